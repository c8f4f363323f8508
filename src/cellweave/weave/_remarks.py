"""What a plan says beside its reason: how the chosen backend runs a layer, where there is something to know of it."""

from __future__ import annotations

from dataclasses import replace

from cellweave.ops.common import RunContext
from cellweave.specs import RunSpec
from cellweave.weave._choice import Choice


def with_remark(choice: Choice, spec: RunSpec, context: RunContext) -> Choice:
    """The choice with its backend's remark on this layer after its reason; as it is where there is none."""
    if choice.backend is None or choice.backend.remarks is None:
        return choice
    remark = choice.backend.remarks(spec, context)
    return choice if remark is None else replace(choice, why=f"{choice.why}; {remark}")
