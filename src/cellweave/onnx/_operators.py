"""A layer as one of ONNX's recurrent operators, where that computes the same."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from cellweave.onnx._nodes import Nodes, Values
from cellweave.onnx._weights import OperatorWeights, Weights, operator_weights
from cellweave.specs import CellSpec, GRUSpec, LSTMSpec, RNNSpec, RunSpec

#: ONNX's name of an activation, and the alpha and beta it takes.
_ACTIVATIONS: dict[Any, tuple[str, tuple[float, ...], tuple[float, ...]]] = {
    "tanh": ("Tanh", (), ()),
    "sigmoid": ("Sigmoid", (), ()),
    "relu": ("Relu", (), ()),
    "linear": ("Affine", (1.0,), (0.0,)),
    "identity": ("Affine", (1.0,), (0.0,)),
    "softsign": ("Softsign", (), ()),
    "softplus": ("Softplus", (), ()),
    "elu": ("Elu", (1.0,), ()),
    "hard_sigmoid": ("HardSigmoid", (0.2,), (0.5,)),
    "leaky_relu": ("LeakyRelu", (0.2,), ()),
}


def misses(run: RunSpec, dtype: ir.DataType | None) -> str:
    """What a layer does that no such operator does; "" where one can have it.

    `clip` of these operators bounds what goes into the activations, not c.
    """
    cell = run.cell
    if dtype is not None and dtype != ir.DataType.FLOAT:
        return f"{dtype.name.lower()}, for which ONNX Runtime has no kernel of them"
    if run.resets:
        return "rows that start anew"
    if run.all_states:
        return "the states of all steps"
    if run.masks:
        return "zoneout"
    for activation in _activations(cell):
        if activation not in _ACTIVATIONS:
            return f"the activation {activation}"
    if isinstance(cell, LSTMSpec):
        unknown = {
            "a bound on c": cell.cell_clip is not None,
            "a projection": cell.projection is not None,
            "coupled gates": cell.coupled,
            "layer normalization": cell.layer_norm,
        }
        return next((name for name, given in unknown.items() if given), "")
    if isinstance(cell, GRUSpec) and cell.reset_after and cell.joined_kernel:
        return "a joined kernel with the reset after its product"
    return ""


def run_operator(
    nodes: Nodes, run: RunSpec, x: ir.Value, state: Values, weights: Weights, lengths: ir.Value | None
) -> tuple[ir.Value, list[ir.Value]]:
    """Outputs `[T, B, H]` and last state of a layer for which `misses` has nothing.

    Args:
        x: `[T, B, I]`. state: Its leaves `[B, H]`. weights: By `WeightSpec.name`. lengths: `[B]` int32.
    """
    cell = run.cell
    axis = nodes.constant([0])
    starts = [nodes("Unsqueeze", leaf, axis) for leaf in state]
    given = operator_weights(nodes, cell, weights, x.dtype or ir.DataType.FLOAT)
    # Runtimes disagree about rows without steps: such a row runs one, and what comes of it is thrown away.
    at_least = None if lengths is None else nodes("Max", lengths, nodes.constant([1], ir.DataType.INT32))
    found = _node(nodes, cell, x, given, at_least, starts, reverse=run.reverse)
    outputs = nodes("Squeeze", found[0], nodes.constant([1]))
    last = [nodes("Squeeze", leaf, axis) for leaf in found[1:]]
    if isinstance(cell, LSTMSpec):
        last = [last[1], last[0]]  # ONNX's h stands before c
    if lengths is None:
        return outputs, last
    some = nodes("Greater", lengths, nodes.constant([0], ir.DataType.INT32))
    has_steps = nodes("Unsqueeze", some, nodes.constant([1]))
    outputs = nodes("Where", has_steps, outputs, nodes.constant(0.0, ir.DataType.FLOAT))
    return outputs, [nodes("Where", has_steps, new, old) for new, old in zip(last, state, strict=True)]


def _node(
    nodes: Nodes, cell: CellSpec, x: ir.Value, given: OperatorWeights, lengths: ir.Value | None, starts: list[ir.Value],
    *, reverse: bool,
) -> Values:  # fmt: skip
    """The operator's outputs: Y, Y_h and Y_c if any."""
    names: list[str] = []
    alphas: list[float] = []
    betas: list[float] = []
    for activation in _activations(cell):
        name, alpha, beta = _ACTIVATIONS[activation]
        names.append(name)
        alphas += alpha
        betas += beta
    shared: dict[str, Any] = {
        "hidden_size": cell.units,
        "direction": "reverse" if reverse else "forward",
        "activations": names,
        "activation_alpha": alphas or None,
        "activation_beta": betas or None,
    }
    inputs = [x, given.w, given.r, given.b, lengths]
    if isinstance(cell, LSTMSpec):
        c, h = starts
        return nodes.several(3, "LSTM", *inputs, h, c, given.p, **shared)
    if isinstance(cell, GRUSpec):
        return nodes.several(2, "GRU", *inputs, starts[0], **shared, linear_before_reset=int(cell.reset_after))
    return nodes.several(2, "RNN", *inputs, starts[0], **shared)


def _activations(cell: CellSpec) -> list[Any]:
    """In ONNX's order: of the gates, of the candidate, of the LSTM's output."""
    if isinstance(cell, RNNSpec):
        return [cell.activation]
    both = [cell.recurrent_activation, cell.activation]
    return [*both, cell.activation] if isinstance(cell, LSTMSpec) else both
