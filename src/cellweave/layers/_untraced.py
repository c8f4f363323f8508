"""The marked functions as torch.compile sees them. Imported while it compiles: it has then imported itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from cellweave.layers._graph_breaks import marked

#: What torch.compile says where an unroll, or a step, leaves a graph.
WHY = "cellweave: this unroll runs step by step, or makes its variables; cellweave.explain says why"
_STEPS = "cellweave: a Stepper keeps its state outside of graphs"

untraced = {
    name: torch.compiler.disable(function, reason=WHY)  # type: ignore[no-untyped-call]
    for name, function in marked.items()
}


@torch.compiler.disable(reason=_STEPS)  # type: ignore[untyped-decorator, no-untyped-call]
def step_outside(stepper: Callable[..., torch.Tensor], *arguments: Any) -> torch.Tensor:
    """A step outside of graphs."""
    return stepper(*arguments)
