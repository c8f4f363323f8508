"""Two directions of a layer as one operator that runs both."""

from __future__ import annotations

import itertools
from typing import Any

import onnx_ir as ir

from cellweave.onnx._nodes import Nodes

#: Recurrent operators, and how many outputs each has.
OPERATORS = {"RNN": 2, "GRU": 2, "LSTM": 3}
#: Places of inputs: X and sequence_lens are one for both directions, the others have an axis for them.
X, W, R, B, LENGTHS, INITIAL_H, INITIAL_C, P = range(8)
_BY_DIRECTION = (W, R, B, INITIAL_H, INITIAL_C, P)
_LISTS = ("activations", "activation_alpha", "activation_beta")


def join_directions(graph: ir.Graph) -> None:
    """Put a forward operator and the reversed one right behind it in one, where both read the same inputs."""
    operators = [node for node in graph if node.op_type in OPERATORS]
    for first, second in itertools.pairwise(operators):
        if _fit(first, second) and not _follows(second, first):
            _join(graph, first, second)
    graph.sort()


def _fit(first: ir.Node, second: ir.Node) -> bool:
    """Whether the second is the first's other direction, as far as attributes and inputs tell."""
    ways = (_value(first, "direction"), _value(second, "direction"))
    if second.op_type != first.op_type or ways != ("forward", "reverse"):
        return False
    same = all(_value(first, name) == _value(second, name) for name in ("hidden_size", "linear_before_reset"))
    shared = all(input_at(first, place) is input_at(second, place) for place in (X, LENGTHS))
    return same and shared and all((input_at(first, n) is None) == (input_at(second, n) is None) for n in _BY_DIRECTION)


def _follows(node: ir.Node, other: ir.Node) -> bool:
    """Whether a node needs what another computes."""
    seen: set[ir.Node] = set()
    waiting = [node]
    while waiting:
        for value in waiting.pop().inputs:
            producer = None if value is None else value.producer()
            if producer is other:
                return True
            if producer is not None and producer not in seen:
                seen.add(producer)
                waiting.append(producer)
    return False


def _join(graph: ir.Graph, first: ir.Node, second: ir.Node) -> None:
    """Put one operator in the place of two."""
    made: list[ir.Node] = []
    nodes = Nodes(made, first.version or graph.opset_imports[""])
    inputs = [input_at(first, place) for place in range(len(first.inputs))]
    for place in _BY_DIRECTION:
        one, two = input_at(first, place), input_at(second, place)
        if one is not None and two is not None:
            inputs[place] = nodes("Concat", one, two, axis=0)
    attributes: dict[str, Any] = {name: attr.value for name, attr in first.attributes.items()}
    attributes["direction"] = "bidirectional"
    for name in _LISTS:
        attributes[name] = [*(_value(first, name) or ()), *(_value(second, name) or ())] or None
    outputs = nodes.several(OPERATORS[first.op_type], first.op_type, *inputs, **attributes)
    for place, value in enumerate(outputs):
        # The optimizer takes away outputs that nobody reads.
        read = [node.outputs[place] if place < len(node.outputs) else None for node in (first, second)]
        if any(old is not None and old.uses() for old in read):
            parts = nodes.several(2, "Split", value, axis=1 if place == 0 else 0, num_outputs=2)
            for part, old in zip(parts, read, strict=True):
                if old is not None:
                    part.type, part.shape = old.type, old.shape
                    old.replace_all_uses_with(part)
    graph.insert_before(first, made)
    graph.remove([first, second], safe=True)


def input_at(node: ir.Node, place: int) -> ir.Value | None:
    """An input of a node, None where it has none at this place."""
    return node.inputs[place] if place < len(node.inputs) else None


def _value(node: ir.Node, name: str) -> Any:
    attribute = node.attributes.get(name)
    return None if attribute is None else attribute.value
