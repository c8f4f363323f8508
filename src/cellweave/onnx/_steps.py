"""A layer as ONNX's `Scan`, whose body is the reference's step: for what no recurrent operator of ONNX computes."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import onnx_ir as ir
import torch
from torch import nn

from cellweave.onnx._nodes import Nodes, Values
from cellweave.onnx._weights import Weights
from cellweave.ops.common import LayerCall
from cellweave.specs import RunSpec
from cellweave.weave import REFERENCE, backends_of

#: Rows of the example that a step is traced with.
_ROWS = 3


@dataclass(frozen=True)
class StepInputs:
    """What a layer runs on, beside its weights.

    Attributes:
        x: `[T, B, I]`. state: Leaves. lengths: `[B]` int32. resets: `[T, B]`. fresh: What a reset starts from.
    """

    x: ir.Value
    state: Values
    lengths: ir.Value | None
    resets: ir.Value | None
    fresh: Values


class _Step(nn.Module):
    """One step of the reference on tensors in a row: state, x, whether a row is active, resets, fresh, weights."""

    def __init__(self, run: RunSpec, names: Sequence[str], leaves: int, fresh: int) -> None:
        super().__init__()
        self._run, self._names, self._leaves, self._fresh = run, names, leaves, fresh
        self._reference: Callable[[LayerCall], Any] = next(b.run for b in backends_of(run.cell) if b.name == REFERENCE)

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The new state and the output."""
        rest = list(tensors)
        state = tuple(rest.pop(0) for _ in range(self._leaves))
        x = rest.pop(0)
        lengths = rest.pop(0).to(torch.int32) if self._run.lengths else None
        resets = rest.pop(0)[None] if self._run.resets else None
        fresh = tuple(rest.pop(0) for _ in range(self._fresh)) or None
        weights = dict(zip(self._names, rest, strict=True))
        result = self._reference(LayerCall(self._run, x[None], state, weights, (), lengths, resets, fresh))
        return (*result[1], result[0][0])


def run_scan(nodes: Nodes, run: RunSpec, given: StepInputs, weights: Weights) -> tuple[ir.Value, list[ir.Value]]:
    """Outputs `[T, B, O]` and last state.

    A reversed run goes through memory backwards: a row keeps its state until its own last step comes.
    """
    scanned = [given.x]
    if given.lengths is not None:
        scanned.append(_active(nodes, given.x, given.lengths))
    if given.resets is not None:
        scanned.append(given.resets)
    carried, captured = list(given.state), [*given.fresh, *weights.values()]
    body = _body(run, weights, carried, scanned, captured)
    direction = [int(run.reverse)]
    found = nodes.several(
        len(carried) + 1, "Scan", *carried, *scanned, body=body, num_scan_inputs=len(scanned),
        scan_input_directions=direction * len(scanned), scan_output_directions=direction,
    )  # fmt: skip
    return found[-1], list(found[:-1])


def _active(nodes: Nodes, x: ir.Value, lengths: ir.Value) -> ir.Value:
    """`[T, B]` bool: the step belongs to the row."""
    steps = nodes("Squeeze", nodes("Shape", x, start=0, end=1), nodes.constant([0]))
    numbers = nodes("Range", nodes.constant(0), steps, nodes.constant(1))
    limits = nodes("Cast", lengths, to=ir.DataType.INT64)
    active = nodes("Less", nodes("Unsqueeze", numbers, nodes.constant([1])), limits)
    active.dtype, active.shape = ir.DataType.BOOL, ir.Shape((x.shape or (None, None))[:2])
    return active


def _body(run: RunSpec, weights: Weights, carried: Values, scanned: Values, captured: Values) -> ir.Graph:
    """The step's graph; captured values are read where they stand, outside of it."""
    leaves, fresh = len(carried), len(captured) - len(weights)
    axes = [_axes(value, 0, by_row=True) for value in carried] + [_axes(value, 1, by_row=True) for value in scanned]
    axes += [_axes(value, 0, by_row=number < fresh) for number, value in enumerate(captured)]
    once = replace(run, masks=(), residual=False, reverse=False)
    graph = _step_graph(once, tuple(weights), leaves, fresh, tuple(axes)).clone()
    _name_apart(graph, [*carried, *scanned, *captured], reverse=run.reverse)
    inner = len(carried) + len(scanned)
    for value, outer in zip(graph.inputs[inner:], captured, strict=True):
        value.replace_all_uses_with(outer)
    del graph.inputs[inner:]
    return graph


#: Of a tensor of a step: its dtype, its sizes, whether its first axis are rows.
_Axes = tuple[torch.dtype, tuple[int, ...], bool]


@functools.lru_cache(maxsize=32)
def _step_graph(run: RunSpec, names: tuple[str, ...], leaves: int, fresh: int, axes: tuple[_Axes, ...]) -> ir.Graph:
    """A step of the reference, as torch's exporter writes it; layers of one form share it. Not to be changed."""
    step = _Step(run, names, leaves, fresh).eval()
    examples = tuple(torch.zeros(sizes, dtype=dtype) for dtype, sizes, _ in axes)
    rows = tuple({0: torch.export.Dim("rows", min=2)} if by_row else None for _, _, by_row in axes)
    with torch.no_grad():
        program = torch.onnx.export(
            step, examples, dynamo=True, verbose=False, optimize=False, dynamic_shapes={"tensors": rows}
        )
    graph: ir.Graph = program.model.graph  # type: ignore[union-attr]
    return graph


def _axes(value: ir.Value, first: int, *, by_row: bool) -> _Axes:
    """What a step gets of a value: its axes from `first` on."""
    sizes = [dim if isinstance(dim, int) else _ROWS for dim in (value.shape or ())][first:]
    if by_row:
        sizes[0] = _ROWS
    return _TORCH_DTYPES[value.dtype or ir.DataType.FLOAT], tuple(sizes), by_row


_TORCH_DTYPES = {ir.DataType.FLOAT: torch.float32, ir.DataType.DOUBLE: torch.float64, ir.DataType.BOOL: torch.bool}


def _name_apart(graph: ir.Graph, outer: Values, *, reverse: bool) -> None:
    """Give what the graph holds names that no other layer's body has."""
    key = " ".join([str(value.name) for value in outer] + ["reverse"] * reverse)
    prefix = f"step_{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    graph.name = prefix
    for value in list(graph.initializers.values()):
        value.name = f"{prefix}_{value.name}"
    for value in [*graph.inputs, *[output for node in graph for output in node.outputs]]:
        value.name = f"{prefix}_{value.name}"
    for node in graph:
        node.name = f"{prefix}_{node.name}"
