"""Backends that stand in for real ones: they record their calls, and compute as the reference does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from cellweave.ops.common import Backend, LayerCall
from cellweave.weave import _backend


@dataclass
class Fake:
    """A backend in place of another one, for all recurrences.

    Attributes:
        name: Which one.
        refusal: What it says to every run; None: it can run all.
        calls: What it was given.
    """

    name: str = "native"
    refusal: str | None = None
    calls: list[LayerCall] = field(default_factory=list)

    def record_for(self, reference: Backend) -> Backend:
        """Its record, computing as another one."""

        def run(call: LayerCall) -> Any:
            self.calls.append(call)
            return reference.run(call)

        return Backend(self.name, lambda spec, context: self.refusal, run)


@contextmanager
def fakes(*chosen: Fake) -> Iterator[None]:
    """Let weave know these backends and reference alone. Cells that ran before remember what ran them."""
    with pytest.MonkeyPatch.context() as patch:
        for kind, records in list(_backend.BACKENDS.items()):
            reference = next(record for record in records if record.name == "reference")
            patch.setitem(_backend.BACKENDS, kind, (*[fake.record_for(reference) for fake in chosen], reference))
        yield
