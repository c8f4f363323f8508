"""Weights that stand in a file as its operators want them, not as the model has them."""

from __future__ import annotations

import sys

import onnx_ir as ir
from onnxscript import optimizer

from cellweave.onnx._directions import OPERATORS, B, P, R, W, input_at

_WEIGHTS = (W, R, B, P)


def fold_weights(model: ir.Model) -> None:
    """Compute what lies between a model's parameters and its recurrent operators, and drop what nobody reads then."""
    wanted: set[ir.Node] = set()
    operators = (node for node in model.graph if node.op_type in OPERATORS)
    for value in (input_at(node, place) for node in operators for place in _WEIGHTS):
        if value is not None:
            _collect(value, wanted)
    optimizer.fold_constants(
        model, should_fold=lambda node: node in wanted, input_size_limit=sys.maxsize, output_size_limit=sys.maxsize
    )
    optimizer.remove_unused_nodes(model)


def _collect(value: ir.Value, found: set[ir.Node]) -> bool:
    """Add the nodes behind a value that come from constants alone; whether all of them do."""
    node = value.producer()
    if node is None:
        return value.is_initializer() and not value.is_graph_input()
    constant = all([given is None or _collect(given, found) for given in node.inputs])  # noqa: C419  # looks at all
    if constant and node.op_type != "Constant":
        found.add(node)
    return constant
