"""Layers that a graph tells where the names of their variables do not: what is looked up, what multiplies inputs."""

from __future__ import annotations

from cellweave.checkpoint import Node, StoredVariable
from cellweave.transfer._graph_facts import gates_shown
from cellweave.transfer._graph_reader import ADDING, GraphReader, node_of
from cellweave.transfer._recognise import FoundLayer, Recognised

_LOOKING_UP = ("Gather", "GatherV2", "ResourceGather")


def add_layers_of_graph(reader: GraphReader, found: Recognised) -> None:
    """Move variables that the graph shows to be an embedding's or a dense layer's from the others to the layers."""
    left = {node: variable for variable in found.others if (node := node_of(reader, variable)) in reader.graph}
    for node, variable in list(left.items()):
        if node not in left or len(variable.shape) != 2 or gates_shown(reader, variable):
            continue  # a cell's kernel, whose name does not tell that it is one
        layer = _embedding(reader, node, variable) or _dense(reader, node, left)
        if layer is not None:
            found.layers.append(layer)
            taken = {v.lookup for v in layer.parameters.values()}
            left = {name: v for name, v in left.items() if v.lookup not in taken}
            found.others = [v for v in found.others if v.lookup not in taken]


def _is(reader: GraphReader, tensor: str, node: str) -> bool:
    maker = reader.maker(tensor)
    return maker is not None and maker.name == node


def _embedding(reader: GraphReader, node: str, variable: StoredVariable) -> FoundLayer | None:
    user = reader.user(node, *_LOOKING_UP)
    if user is None or not _is(reader, user.inputs[0], node):
        return None
    rows, columns = variable.shape
    return FoundLayer(variable.lookup, "Embedding", (str(rows), str(columns)), {"weight": variable})


def _dense(reader: GraphReader, node: str, left: dict[str, StoredVariable]) -> FoundLayer | None:
    product = next((u for u in reader.users(node) if u.op == "MatMul" and _is(reader, u.inputs[1], node)), None)
    if product is None or product.attrs.get("transpose_a", False):
        return None
    kernel, as_torch = left[node], bool(product.attrs.get("transpose_b", False))
    outputs, inputs = kernel.shape if as_torch else kernel.shape[::-1]
    if as_torch and inputs == outputs:  # loading tells torch's order by the shape
        return None
    parameters = {"weight": kernel}
    sizes: tuple[str, ...] = (str(inputs), str(outputs))
    bias = _bias(reader, product, outputs, left)
    if bias is None:
        sizes += ("bias=False",)
    else:
        parameters["bias"] = bias
    return FoundLayer(kernel.lookup, "Linear", sizes, parameters, as_torch)


def _bias(reader: GraphReader, product: Node, size: int, left: dict[str, StoredVariable]) -> StoredVariable | None:
    reshaped = reader.user(product.name, "Reshape")  # of a product with the matrix of a sequence's rows
    summed = reader.user(product.name, *ADDING) or (reshaped and reader.user(reshaped.name, *ADDING))
    for tensor in () if summed is None else summed.inputs:
        maker = reader.maker(tensor)
        bias = None if maker is None else left.get(maker.name)
        if bias is not None and bias.shape == (size,):
            return bias
    return None
