"""A graph's constants as a source of variables: what freezing a graph makes of its weights."""

from __future__ import annotations

import numpy as np

from cellweave.checkpoint._graph import Graph, Node
from cellweave.checkpoint._place import Place
from cellweave.checkpoint._variables import Array, VariableInfo


class FrozenGraph:
    """The `Const` nodes of a graph by name."""

    format = "frozen graph"

    def __init__(self, graph: Graph) -> None:
        self._place = Place(str(graph.path))
        self._nodes: dict[str, Node] = {node.name: node for node in graph.nodes if node.op == "Const"}

    def names(self) -> list[str]:
        """The names of all constants."""
        return list(self._nodes)

    def info(self, name: str) -> VariableInfo:
        """A constant's dtype and shape."""
        return VariableInfo(name, self._nodes[name].attrs.get("dtype", ""), self.read(name).shape)

    def read(self, name: str) -> Array:
        """A constant's value."""
        value = self._nodes[name].attrs.get("value")
        if not isinstance(value, np.ndarray):
            raise self._place.of(name).error("a constant with a tensor", "none")
        return value

    def close(self) -> None:
        """Nothing is open: the arrays map the file."""
