"""Following tensors through a graph."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from cellweave.checkpoint import Graph, Node, StoredVariable

#: Operations that hand a tensor on as it is.
_PASSING = (
    "Identity",
    "Enter",
    "RefEnter",
    "ReadVariableOp",
    "Switch",
    "RefSwitch",
    "Merge",
    "StopGradient",
    "Snapshot",
)
#: Operations that add.
ADDING = ("Add", "AddV2", "BiasAdd")
#: As many outputs of an operation are followed: a Split into gates has the most.
_MOST_OUTPUTS = 8


class GraphReader:
    """Follows tensors through one graph, past gradients and savers."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._users: dict[str, list[Node]] = {}
        for node in graph.nodes:
            if node.name.split("/")[0].startswith("gradients") or "/gradients/" in node.name:
                continue
            for name in node.inputs:
                if not name.startswith("^"):
                    self._users.setdefault(tensor_name(name), []).append(node)

    def users(self, tensor: str) -> Iterator[Node]:
        """Operations that take a tensor, past those that hand it on."""
        seen: set[str] = set()
        open_names = [tensor_name(tensor)]
        while open_names:
            name = open_names.pop(0)
            for node in self._users.get(name, ()):
                if node.name in seen:
                    continue
                seen.add(node.name)
                if node.op in _PASSING or is_partitions(node):
                    open_names += [node.name, f"{node.name}:1"] if "Switch" in node.op else [node.name]
                else:
                    yield node

    def user(self, tensor: str, *ops: str) -> Node | None:
        """The first operation of these kinds that takes a tensor."""
        return next((node for node in self.users(tensor) if node.op in ops), None)

    def maker(self, tensor: str) -> Node | None:
        """The operation that makes a tensor, past those that hand it on."""
        for _ in range(64):  # a loop's tensors go round
            name = tensor_name(tensor).split(":")[0]
            if name not in self.graph:
                return None
            node = self.graph[name]
            if not (node.op in _PASSING or is_partitions(node)) or not node.inputs:
                return node
            tensor = node.inputs[0]
        return None

    def comes_back(self, product: Node) -> bool:
        """Whether what a product gives, past no other one, is multiplied with its matrix again: later, or in a loop."""
        matrix = self.maker(product.inputs[1])
        seen: set[str] = set()
        open_names = [product.name]
        while open_names:
            for node in self.users(open_names.pop()):
                if node.op == product.op:
                    if matrix is not None and self.maker(node.inputs[1]) == matrix:
                        return True
                elif node.name not in seen:
                    seen.add(node.name)
                    open_names += [f"{node.name}:{index}" for index in range(_MOST_OUTPUTS)]
        return False

    def constant(self, tensor: str) -> float | None:
        """The value of a constant of one element."""
        node = self.maker(tensor)
        value: Any = None if node is None or node.op != "Const" else node.attrs.get("value")
        return float(value.reshape(-1)[0]) if isinstance(value, np.ndarray) and value.size == 1 else None

    def other_constant(self, node: Node) -> float | None:
        """The constant among the inputs of an operation."""
        return next((value for name in node.inputs if (value := self.constant(name)) is not None), None)


def is_partitions(node: Node) -> bool:
    """Whether an operation puts the parts of a partitioned variable together."""
    return node.op.startswith("Concat") and "/ConcatPartitions" in node.name


def node_of(variable: StoredVariable) -> str:
    """The operation that makes a variable."""
    return variable.any_value.keys[0].removesuffix(":0").removesuffix("/ExponentialMovingAverage")


def is_dropout(node: Node) -> bool:
    return any(part.startswith("dropout") for part in node.name.split("/"))


def tensor_name(name: str) -> str:
    return name.removesuffix(":0")
