"""A layer as ONNX's `Scan` over its step: for what no recurrent operator of ONNX computes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir
import torch

from cellweave.onnx._nodes import Nodes, Values
from cellweave.onnx._steps import ROWS, Axes, step_graph
from cellweave.onnx._weights import Weights
from cellweave.ops.common._native_frame import recurs_on_outputs
from cellweave.specs import RunSpec

_TORCH_DTYPES = {ir.DataType.FLOAT: torch.float32, ir.DataType.DOUBLE: torch.float64, ir.DataType.BOOL: torch.bool}


@dataclass(frozen=True)
class ScanInputs:
    """What a layer runs on, beside its weights.

    Attributes:
        x: `[T, B, I]`. state: Its leaves. lengths: `[B]` int32. resets: `[T, B]`. fresh: What a reset starts from.
        keeps: `[masks]` float64, of zoneout.
    """

    x: ir.Value
    state: Values
    lengths: ir.Value | None = None
    resets: ir.Value | None = None
    fresh: Values = ()
    keeps: ir.Value | None = None


def run_scan(nodes: Nodes, run: RunSpec, given: ScanInputs, weights: Weights) -> tuple[ir.Value, list[ir.Value]]:
    """Outputs `[T, B, O]`; the last state, and behind it the states after each step if the run asks for them.

    A reversed run goes through memory backwards: a row keeps its state until its own last step comes.
    """
    active = None if given.lengths is None else _active(nodes, given.x, given.lengths)
    scanned = [value for value in (given.x, active, given.resets) if value is not None]
    carried = list(given.state)
    captured = [*given.fresh, *([] if given.keeps is None else [given.keeps]), *weights.values()]
    body = _body(run, weights, carried, scanned, captured, len(given.fresh))
    collected = 1 + run.all_states * len(carried)
    direction = [int(run.reverse)]
    found = nodes.several(
        len(carried) + collected, "Scan", *carried, *scanned, body=body, num_scan_inputs=len(scanned),
        scan_input_directions=direction * len(scanned), scan_output_directions=direction * collected,
    )  # fmt: skip
    last, states = list(found[: len(carried)]), list(found[len(carried) + 1 :])
    if run.reverse and active is not None:  # past its end, a row has the state after its last step
        within, first = nodes("Unsqueeze", active, nodes.constant([2])), nodes.constant([0])
        pairs = zip(states, last, strict=False)
        states = [nodes("Where", within, value, nodes("Unsqueeze", end, first)) for value, end in pairs]
    if recurs_on_outputs(run, given.lengths, given.resets):
        states = states[:-1]  # the operator leaves h out, which its outputs are
    return found[len(carried)], [*last, *states]


def _active(nodes: Nodes, x: ir.Value, lengths: ir.Value) -> ir.Value:
    """`[T, B]` bool: the step belongs to the row."""
    steps = nodes("Squeeze", nodes("Shape", x, start=0, end=1), nodes.constant([0]))
    numbers = nodes("Range", nodes.constant(0), steps, nodes.constant(1))
    limits = nodes("Cast", lengths, to=ir.DataType.INT64)
    active = nodes("Less", nodes("Unsqueeze", numbers, nodes.constant([1])), limits)
    active.dtype, active.shape = ir.DataType.BOOL, ir.Shape((x.shape or (None, None))[:2])
    return active


def _body(run: RunSpec, weights: Weights, carried: Values, scanned: Values, captured: Values, fresh: int) -> ir.Graph:
    """The step's graph; captured values are read where they stand, outside of it."""
    axes = [_axes(value, 0, by_row=True) for value in carried] + [_axes(value, 1, by_row=True) for value in scanned]
    axes += [_axes(value, 0, by_row=number < fresh) for number, value in enumerate(captured)]
    step = replace(run, residual=False, reverse=False)  # what a step knows nothing of
    graph = step_graph(step, tuple(weights), fresh, tuple(axes)).clone()
    _name_apart(graph, [*carried, *scanned, *captured], reverse=run.reverse)
    inner = len(carried) + len(scanned)
    for value, outer in zip(graph.inputs[inner:], captured, strict=True):
        value.replace_all_uses_with(outer)
    del graph.inputs[inner:]
    return graph


def _axes(value: ir.Value, first: int, *, by_row: bool) -> Axes:
    """What a step gets of a value: its axes from `first` on."""
    sizes = [dim if isinstance(dim, int) else ROWS for dim in (value.shape or ())][first:]
    if by_row:
        sizes[0] = ROWS
    return _TORCH_DTYPES[value.dtype or ir.DataType.FLOAT], tuple(sizes), by_row


def _name_apart(graph: ir.Graph, outer: Sequence[ir.Value], *, reverse: bool) -> None:
    """Give what the graph holds names that no other layer's body has."""
    key = " ".join([str(value.name) for value in outer] + ["reverse"] * reverse)
    prefix = f"step_{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    graph.name = prefix
    for value in [*graph.initializers.values(), *graph.inputs, *[out for node in graph for out in node.outputs]]:
        value.name = f"{prefix}_{value.name}"
    for node in graph:
        node.name = f"{prefix}_{node.name}"
