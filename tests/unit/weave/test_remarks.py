"""What a backend remarks on a layer that it runs stands after the reason of the choice."""

from __future__ import annotations

import pytest
import torch

from cellweave.ops.common import Backend, RunContext
from cellweave.specs import GRUSpec, RunSpec
from cellweave.weave import Choice, with_remark

RUN = RunSpec(GRUSpec(3))
CONTEXT = RunContext(torch.float32, "cpu", 1, 2, 3, needs_grad=False, transforms=False)


@pytest.mark.parametrize("remark, why", [("in pieces of 2 rows", "fast; in pieces of 2 rows"), (None, "fast")])
def test_after_the_reason(remark: str | None, why: str) -> None:
    asked = []

    def remarks(spec: RunSpec, context: RunContext) -> str | None:
        asked.append((spec, context))
        return remark

    backend = Backend("native", lambda spec, context: None, lambda call: None, remarks=remarks)  # type: ignore[arg-type, return-value]
    choice = Choice("native", backend, 2, "fast")
    found = with_remark(choice, RUN, CONTEXT)
    assert (found.name, found.backend, found.threads, found.why) == ("native", backend, 2, why)
    assert asked == [(RUN, CONTEXT)]


def test_nothing_where_nothing_runs_or_nothing_is_to_be_said() -> None:
    nothing = Choice("none", None, 1, "torch: no")
    silent = Choice("torch", Backend("torch", lambda spec, context: None, lambda call: None), 1, "fast")  # type: ignore[arg-type, return-value]
    assert with_remark(nothing, RUN, CONTEXT) is nothing
    assert with_remark(silent, RUN, CONTEXT) is silent
