"""Activations in a graph: of one operation, of several, or none."""

from __future__ import annotations

from collections.abc import Iterator

from cellweave.checkpoint import Node
from cellweave.transfer._graph_reader import ADDING, GraphReader, is_dropout, tensor_name

#: Operations of activations, by the names that cellweave has for them.
ACTIVATIONS = {
    "Tanh": "tanh", "Sigmoid": "sigmoid", "Relu": "relu", "Relu6": "relu6", "Elu": "elu", "Selu": "selu",
    "Softplus": "softplus", "Softsign": "softsign", "Exp": "exponential", "Softmax": "softmax",
}  # fmt: skip
#: As many outputs of a Split into gates are followed.
_MOST_GATES = 4
#: Operations between a Keras cell's kernel and its activations; a GRU multiplies by its reset gate on the way.
_LINEAR = ("MatMul", "StridedSlice", "Slice", "Mul")
#: The slope of tf.nn.leaky_relu.
LEAKY_SLOPE = 0.2
#: How the operations begin that take what a cell gives as it is.
_TAKING = (
    "NextIteration", "TensorArrayWrite", "TensorListSetItem", "Concat", "Exit", "Pack", "MatMul", "Select", "RealDiv",
    "Mul",
)  # fmt: skip


def activated(reader: GraphReader, tensor: str) -> tuple[str, Node] | None:
    """Name and result of the activation of a tensor; `linear` where it is used as it is, None where nothing tells."""
    users = list(reader.users(tensor))
    scaled = [node for node in users if node.op == "Mul" and not is_dropout(node)]
    for node in users:
        if node.op == "Sigmoid" and scaled:
            return "swish", scaled[0]
        if node.op in ACTIVATIONS:
            return ACTIVATIONS[node.op], node
        if node.op == "LeakyRelu" and _near(node.attrs.get("alpha", LEAKY_SLOPE), LEAKY_SLOPE):
            return "leaky_relu", node
        if node.op == "Maximum" and any(_near(reader.other_constant(part), LEAKY_SLOPE) for part in scaled):
            return "leaky_relu", node
    as_it_is = users and all(node.op.startswith(_TAKING) for node in users)
    if as_it_is and all(reader.other_constant(node) is None for node in scaled):
        return "linear", reader.graph[tensor_name(tensor).split(":")[0]]
    return None


def first_activations(reader: GraphReader, kernel: str) -> Iterator[str]:
    """The activations that the products with a kernel come to first, one for each product of each gate."""
    seen: set[str] = set()
    open_names = [kernel]
    while open_names:
        for node in reader.users(open_names.pop(0)):
            if node.name in seen:
                continue
            seen.add(node.name)
            told = _activation_of(reader, node)
            if told is not None:
                yield told
            elif node.op in ("Split", "SplitV"):
                open_names += [f"{node.name}:{index}" if index else node.name for index in range(_MOST_GATES)]
            elif node.op in _LINEAR or node.op in ADDING:
                open_names.append(node.name)


def _activation_of(reader: GraphReader, node: Node) -> str | None:
    """What an operation begins: an activation of one operation, or of Keras' several."""
    if node.op == "Mul" and _near(reader.other_constant(node), 0.2):
        shifted = reader.user(node.name, *ADDING)
        if shifted is not None and _near(reader.other_constant(shifted), 0.5):
            return "hard_sigmoid"
    return ACTIVATIONS.get(node.op)


def _near(value: float | None, wanted: float) -> bool:
    return value is not None and abs(value - wanted) < 1e-6
