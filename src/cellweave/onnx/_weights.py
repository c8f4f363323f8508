"""A layer's weights as ONNX's recurrent operators take them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from cellweave.onnx._nodes import Nodes
from cellweave.specs import CellSpec, GRUSpec, LSTMSpec

#: ONNX's order of gates, in cellweave's letters. Its update gate z keeps the old state, as `u` does.
_LSTM_ORDER, _GRU_ORDER, _PEEPHOLE_ORDER = "iofj", "urc", "iof"

Weights = Mapping[str, ir.Value]


class OperatorWeights(NamedTuple):
    """Inputs of an operator, for one direction.

    Attributes:
        w: `[1, G*H, I]`. r: `[1, G*H, H]`. b: `[1, 2*G*H]`. p: `[1, 3*H]` or None.
    """

    w: ir.Value
    r: ir.Value
    b: ir.Value | None
    p: ir.Value | None


def operator_weights(nodes: Nodes, cell: CellSpec, weights: Weights, dtype: ir.DataType) -> OperatorWeights:
    """The weights of an RNN, GRU or LSTM without projection in ONNX's layout.

    Args:
        weights: By `WeightSpec.name`. dtype: Theirs.
    """
    if isinstance(cell, GRUSpec) and cell.joined_kernel:
        return _joined_gru(nodes, cell, weights, dtype)
    units = cell.units
    if "recurrent_kernel" in weights:
        kernel, recurrent = weights["kernel"], weights["recurrent_kernel"]
    else:
        kernel, recurrent = _rows_of(nodes, weights["kernel"], units)
    if isinstance(cell, GRUSpec):
        order, wanted = cell.gate_order, _GRU_ORDER
    elif isinstance(cell, LSTMSpec):
        order, wanted = cell.gate_order, _LSTM_ORDER
    else:
        order = wanted = "h"
    rows = _first_reordered if cell.transposed else _as_rows
    w, r = [rows(nodes, matrix, order, wanted, units) for matrix in (kernel, recurrent)]
    both = isinstance(cell, GRUSpec) and cell.reset_after
    b = _bias(nodes, weights.get("bias"), order, wanted, units, both=both)
    if isinstance(cell, LSTMSpec) and cell.forget_bias:
        b = _plus_forget_bias(nodes, b, cell, dtype)
    p = None
    if isinstance(cell, LSTMSpec) and cell.peepholes:
        p = _first(nodes, nodes("Concat", *[weights[f"w_{gate}_diag"] for gate in _PEEPHOLE_ORDER], axis=0))
    return OperatorWeights(w, r, b, p)


def _rows_of(nodes: Nodes, joined: ir.Value, units: int) -> tuple[ir.Value, ir.Value]:
    """`[I + H, N]` as `[I, N]` and `[H, N]`."""
    zero, last, end, axis = [nodes.constant([n]) for n in (0, -units, 2**62, 0)]
    return nodes("Slice", joined, zero, last, axis), nodes("Slice", joined, last, end, axis)


def _as_rows(nodes: Nodes, matrix: ir.Value, order: str, wanted: str, units: int) -> ir.Value:
    """`[N, G*H]` as `[1, G*H, N]`, gates in the wanted order."""
    return _first(nodes, nodes("Transpose", _reordered(nodes, matrix, order, wanted, 1, units), perm=[1, 0]))


def _first_reordered(nodes: Nodes, matrix: ir.Value, order: str, wanted: str, units: int) -> ir.Value:
    """`[G*H, N]` as `[1, G*H, N]`, gates in the wanted order."""
    return _first(nodes, _reordered(nodes, matrix, order, wanted, 0, units))


def _reordered(nodes: Nodes, value: ir.Value, order: str, wanted: str, axis: int, units: int) -> ir.Value:
    """The same gates, of `units` elements each along an axis, in another order."""
    if order == wanted:
        return value
    columns = np.arange(len(order) * units).reshape(len(order), units)
    index = columns[[order.index(gate) for gate in wanted]].reshape(-1)
    return nodes("Gather", value, nodes.constant(index), axis=axis)


def _bias(nodes: Nodes, bias: ir.Value | None, order: str, wanted: str, units: int, *, both: bool) -> ir.Value | None:
    """`[1, 2*G*H]`: the inputs' bias beside the state's, which is zeros unless `both` stand in `[2, G*H]`."""
    if bias is None:
        return None
    moved = _reordered(nodes, bias, order, wanted, 1 if both else 0, units)
    if both:
        return nodes("Reshape", moved, nodes.constant([1, -1]))
    return _first(nodes, nodes("Concat", moved, nodes("Sub", moved, moved), axis=0))


def _plus_forget_bias(nodes: Nodes, bias: ir.Value | None, cell: LSTMSpec, dtype: ir.DataType) -> ir.Value:
    """The forget bias, which cellweave adds when it runs, inside the stored bias."""
    added = np.zeros((1, 2, len(_LSTM_ORDER), cell.units))
    added[:, 0, _LSTM_ORDER.index("f")] = cell.forget_bias
    constant = nodes.constant(added.reshape(1, -1), dtype)
    return constant if bias is None else nodes("Add", bias, constant)


def _joined_gru(nodes: Nodes, cell: GRUSpec, weights: Weights, dtype: ir.DataType) -> OperatorWeights:
    """TF1's GRU: one kernel for both gates, one for the candidate."""
    gates_w, gates_r = _rows_of(nodes, weights["gates/kernel"], cell.units)
    candidate_w, candidate_r = _rows_of(nodes, weights["candidate/kernel"], cell.units)
    order = "ruc"
    w, r = [
        _as_rows(nodes, nodes("Concat", *pair, axis=1), order, _GRU_ORDER, cell.units)
        for pair in ((gates_w, candidate_w), (gates_r, candidate_r))
    ]
    bias = nodes("Concat", weights["gates/bias"], weights["candidate/bias"], axis=0)
    return OperatorWeights(w, r, _bias(nodes, bias, order, _GRU_ORDER, cell.units, both=False), None)


def _first(nodes: Nodes, value: ir.Value) -> ir.Value:
    """With an axis for directions before it."""
    return nodes("Unsqueeze", value, nodes.constant([0]))
