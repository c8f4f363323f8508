"""The marked functions as torch.compile sees them. Imported while it compiles: it has then imported itself."""

from __future__ import annotations

import torch

from cellweave.layers._graph_breaks import marked

#: What torch.compile says where an unroll leaves a graph.
WHY = "cellweave: this unroll runs step by step, or makes its variables; cellweave.explain says why"

untraced = {
    name: torch.compiler.disable(function, reason=WHY)  # type: ignore[no-untyped-call]
    for name, function in marked.items()
}
