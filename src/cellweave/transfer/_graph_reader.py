"""Following tensors through a graph."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from cellweave._errors import CheckpointError
from cellweave.checkpoint import Graph, Inventory, Node, StoredVariable

#: Operations that hand a tensor on as it is.
_PASSING = (
    "Identity", "Enter", "RefEnter", "ReadVariableOp", "Switch", "RefSwitch", "Merge", "StopGradient",
    "PreventGradient", "Snapshot", "Print", "CheckNumerics", "EnsureShape",
)  # fmt: skip
#: Operations that add.
ADDING = ("Add", "AddV2", "BiasAdd")
#: Operations that give something of another width than what they take.
_RESIZING = (
    "Split", "SplitV", "Sum", "Mean", "Max", "Min", "Prod", "ArgMax", "ExpandDims", "Tile", "Gather", "GatherV2",
    "BatchMatMul", "BatchMatMulV2", "Conv2D", "OneHot",
)  # fmt: skip
#: Operations of savers, whose second input is the keys, and where the tensors begin among their inputs.
_SAVED_FROM = {"Save": 2, "SaveSlices": 3, "SaveV2": 3}
#: How many tensors operations take whose inputs are followed by their places, at least.
_LEAST_INPUTS = {
    **dict.fromkeys(("Cast", "Slice", "StridedSlice", "Gather", "GatherV2", "ResourceGather"), 1),
    **dict.fromkeys(("MatMul", "Split", "Sub", "Mul", "RealDiv", "GreaterEqual", "Concat", "ConcatV2", *ADDING), 2),
    **dict.fromkeys(("Select", "SelectV2", "ClipByValue", "BlockLSTM", "BlockLSTMV2"), 3),
}
#: Names of a SavedModel's variables that are places in a list of a layer's.
_NUMBERED = re.compile(r"(?:.*/)?(?:variables|(?:non_)?trainable_variables)/\d+")
#: As many outputs of an operation are followed: a Split into gates has the most.
_MOST_OUTPUTS = 8


class GraphReader:
    """Follows tensors through one graph, past gradients and savers.

    Raises:
        CheckpointError: the graph is damaged: an operation takes fewer tensors than its kind does.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._uses: dict[str, list[tuple[Node, int]]] = {}
        for node in graph.nodes:
            _check_inputs(graph, node)
            if node.name.split("/")[0].startswith("gradients") or "/gradients/" in node.name:
                continue
            for place, name in enumerate(node.inputs):
                if not name.startswith("^"):
                    self._uses.setdefault(tensor_name(name), []).append((node, place))

    @cached_property
    def saved(self) -> dict[str, str]:
        """The operation that makes what is saved under a key, for the keys of every saver in the graph."""
        found: dict[str, str] = {}
        for node in self.graph.nodes:
            first = _SAVED_FROM.get(node.op)
            names = None if first is None or len(node.inputs) < first else self.maker(node.inputs[1])
            if names is None or names.op != "Const" or not isinstance(names.attrs.get("value"), np.ndarray):
                continue
            keys = [key.decode(errors="replace") for key in names.attrs["value"].reshape(-1) if isinstance(key, bytes)]
            for key, tensor in zip(keys, node.inputs[first:], strict=False):
                maker = self.maker(tensor)
                if maker is not None:
                    found.setdefault(key, maker.name)
        return found

    def users(self, tensor: str) -> Iterator[Node]:
        """Operations that take a tensor, past those that hand it on."""
        return (node for node, _ in self.uses(tensor))

    def uses(self, tensor: str) -> Iterator[tuple[Node, int]]:
        """The same with the place of the tensor among an operation's inputs, the first one."""
        seen: set[str] = set()
        open_names = [tensor_name(tensor)]
        while open_names:
            name = open_names.pop(0)
            for node, place in self._uses.get(name, ()):
                if node.name in seen:
                    continue
                seen.add(node.name)
                if hands_on(node):
                    open_names += [node.name, f"{node.name}:1"] if "Switch" in node.op else [node.name]
                else:
                    yield node, place

    def user(self, tensor: str, *ops: str) -> Node | None:
        """The first operation of these kinds that takes a tensor."""
        return next((node for node in self.users(tensor) if node.op in ops), None)

    def maker(self, tensor: str, *, within: bool = False) -> Node | None:
        """The operation that makes a tensor, past those that hand it on; `within`: no further than a loop's."""
        for _ in range(64):  # a loop's tensors go round
            name = tensor_name(tensor).split(":")[0]
            if name not in self.graph:
                return None
            node = self.graph[name]
            if not hands_on(node) or not node.inputs or (within and self._goes_round(node)):
                return node
            tensor = node.inputs[0]
        return None

    def _goes_round(self, node: Node) -> bool:
        """Whether an operation is the variable of a loop, which each step gives anew."""
        names = (tensor_name(name).split(":")[0] for name in node.inputs) if node.op == "Merge" else ()
        return any(name in self.graph and self.graph[name].op == "NextIteration" for name in names)

    def comes_back(self, product: Node, *, whole: bool = False) -> bool:
        """Whether what a product gives, past no other one, is the state that its matrix is multiplied with next.

        Args:
            product: A product with inputs and state in one tensor.
            whole: Past no operation either that gives something of another width.
        """
        seen: set[str] = set()
        open_names = [product.name]
        while open_names:
            for node, place in self.uses(open_names.pop()):
                if self.is_joined_for(node, place, product):
                    return True
                if node.op == product.op or node.name in seen or (whole and node.op in _RESIZING):
                    continue
                seen.add(node.name)
                open_names += [f"{node.name}:{index}" for index in range(_MOST_OUTPUTS)]
        return False

    def is_joined_for(self, node: Node, place: int, product: Node) -> bool:
        """Whether an operation joins what stands at this place, as the last part, for a product with that matrix."""
        parts = parts_of(node)
        if not parts or node.inputs[place] != parts[-1]:
            return False
        matrix = self.maker(product.inputs[1])
        products = [user for user in self.users(node.name) if user.op == product.op]
        return matrix is not None and any(self.maker(user.inputs[1]) == matrix for user in products)

    def constant(self, tensor: str) -> float | None:
        """The value of a constant of one element."""
        node = self.maker(tensor)
        value: Any = None if node is None or node.op != "Const" else node.attrs.get("value")
        return float(value.reshape(-1)[0]) if isinstance(value, np.ndarray) and value.size == 1 else None

    def other_constant(self, node: Node) -> float | None:
        """The constant among the inputs of an operation."""
        return next((value for name in node.inputs if (value := self.constant(name)) is not None), None)


def _check_inputs(graph: Graph, node: Node) -> None:
    least, given = _LEAST_INPUTS.get(node.op, 0), sum(not name.startswith("^") for name in node.inputs)
    if given < least:
        raise CheckpointError(
            f"{graph.path}: expected at least {least} input{'s' if least > 1 else ''} of the {node.op} {node.name!r}, "
            f"got {given}. The graph is damaged; without it the checkpoint itself can still be read."
        )


def parts_of(node: Node) -> tuple[str, ...]:
    """What an operation joins; of TF 0.x's the axis comes first, of later ones last. Empty when it joins nothing."""
    inputs = tuple(name for name in node.inputs if not name.startswith("^"))
    return {"Concat": inputs[1:], "ConcatV2": inputs[:-1]}.get(node.op, ())


def joined_parts(reader: GraphReader, product: Node) -> tuple[str, ...]:
    """What a cell's product takes in one tensor: inputs and state. Empty when it takes a single one."""
    joined = reader.maker(product.inputs[0])
    return () if joined is None else parts_of(joined)


def is_partitions(node: Node) -> bool:
    """Whether an operation puts the parts of a partitioned variable together."""
    return node.op.startswith("Concat") and "/ConcatPartitions" in node.name


def node_of(reader: GraphReader, variable: StoredVariable) -> str:
    """The operation that makes a variable: the one of its name, what a saver in the graph saves under its key, or the
    first part of one that the graph has in parts only.
    """
    key = variable.any_value.keys[0]
    name = key.removesuffix(":0").removesuffix("/ExponentialMovingAverage")
    return name if name in reader.graph else reader.saved.get(key, f"{name}/part_0")


def named_by_graph(reader: GraphReader, inventory: Inventory) -> Inventory:
    """The inventory with the graph's names for what Keras's SavedModels have by number only: `gru/variables/0`."""
    renamed: dict[str, StoredVariable] = {}
    for lookup, variable in inventory.variables.items():
        name = reader.saved.get(variable.any_value.keys[0], lookup)
        if not variable.of_object or not _NUMBERED.fullmatch(lookup) or name in inventory.variables or name in renamed:
            name = lookup
        renamed[name] = variable if name == lookup else replace(variable, name=name, lookup=name)
    return replace(inventory, variables=renamed)


def hands_on(node: Node) -> bool:
    """Whether an operation hands its tensor on: as it is, as a part of a variable, in another precision or rounded."""
    casts = node.op == "Cast" and all("float" in str(node.attrs.get(name)) for name in ("SrcT", "DstT"))
    return casts or node.op in _PASSING or node.op.startswith("FakeQuant") or is_partitions(node)


def is_dropout(node: Node) -> bool:
    return any(part.startswith("dropout") for part in node.name.split("/"))


def tensor_name(name: str) -> str:
    return name.removesuffix(":0")
