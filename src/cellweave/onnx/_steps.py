"""One step of a layer as an ONNX graph, traced from the reference."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import onnx_ir as ir
import torch
from torch import nn

from cellweave.onnx._quiet import without_torchs_own_warnings
from cellweave.ops.common import LayerCall
from cellweave.specs import RunSpec
from cellweave.weave import REFERENCE, backends_of

#: Of a tensor of a step: its dtype, its sizes, whether its first axis are rows.
Axes = tuple[torch.dtype, tuple[int, ...], bool]
#: Rows of the example that a step is traced with.
ROWS = 3


class Step(nn.Module):
    """A step on tensors in a row: state, x, whether rows are active, resets; then fresh state, keeps, weights.

    Args:
        run: What runs; of masks only zoneout, which takes the expected share of the new state.
        names: Of the weights.
        fresh: How many leaves a reset starts from; 0: zeros.
    """

    def __init__(self, run: RunSpec, names: tuple[str, ...], fresh: int) -> None:
        super().__init__()
        self._run, self._names, self._fresh = run, names, fresh
        self._leaves = 2 if isinstance(run.cell.state_size, tuple) else 1
        self._cell = RunSpec(run.cell)
        self._reference: Callable[[LayerCall], Any] = next(b.run for b in backends_of(run.cell) if b.name == REFERENCE)

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The new state, the output, and the new state again where all states are asked for."""
        rest = list(tensors)
        state = [rest.pop(0) for _ in range(self._leaves)]
        x = rest.pop(0)
        active = rest.pop(0)[:, None] if self._run.lengths else None
        resets = rest.pop(0)[:, None] if self._run.resets else None
        fresh = [rest.pop(0) for _ in range(self._fresh)] or [torch.zeros_like(leaf) for leaf in state]
        keeps = rest.pop(0) if self._run.masks else None
        start = state if resets is None else [torch.where(resets, a, b) for a, b in zip(fresh, state, strict=True)]
        weights = dict(zip(self._names, rest, strict=True))
        new = list(self._reference(LayerCall(self._cell, x[None], tuple(start), weights))[1])
        for number, mask in enumerate(self._run.masks):
            leaf = 0 if mask.place == "zone_c" else -1
            share = keeps[number].to(x.dtype)  # type: ignore[index]
            new[leaf] = share * new[leaf] + (1 - share) * start[leaf]
        output = new[-1]
        if active is not None:
            output = torch.where(active, output, torch.zeros_like(output))
            new = [torch.where(active, a, b) for a, b in zip(new, state, strict=True)]
        # Runtimes go wrong where one value is two outputs of a body.
        return (*new, output.clone(), *([leaf.clone() for leaf in new] if self._run.all_states else ()))


@functools.lru_cache(maxsize=32)
def step_graph(run: RunSpec, names: tuple[str, ...], fresh: int, axes: tuple[Axes, ...]) -> ir.Graph:
    """A step, as torch's exporter writes it; layers of one form share it. Not to be changed."""
    examples = tuple(torch.zeros(sizes, dtype=dtype) for dtype, sizes, _ in axes)
    rows = tuple({0: torch.export.Dim("rows", min=2)} if by_row else None for _, _, by_row in axes)
    with torch.no_grad(), without_torchs_own_warnings():
        program = torch.onnx.export(
            Step(run, names, fresh).eval(), examples, dynamo=True, verbose=False, optimize=False,
            dynamic_shapes={"tensors": rows},
        )  # fmt: skip
    graph: ir.Graph = program.model.graph  # type: ignore[union-attr]
    return graph
