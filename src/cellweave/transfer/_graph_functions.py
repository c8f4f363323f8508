"""Graphs whose loops, branches and calls are functions of their library, with these functions' operations in place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from cellweave.checkpoint import Graph, Node
from cellweave.transfer._graph_reader import tensor_name

_LOOPS = dict.fromkeys(("While", "StatelessWhile"), "body")
_BRANCHES = dict.fromkeys(("If", "StatelessIf"), ("then_branch", "else_branch"))
_CALLS = dict.fromkeys(("PartitionedCall", "StatefulPartitionedCall"), "f")
#: Functions within functions, so deep at most; TF2's own layers nest four or five.
_DEEPEST = 16
#: Operations of functions that are put in place, at most; further calls stay. A training graph of TF2's Keras has some
#: ten thousand.
_MOST_NODES = 100_000


def flattened(graph: Graph) -> Graph:
    """The graph as TF1 writes loops and branches: a loop's variables go round by Merge and NextIteration.

    Conditions of loops are left out. A call of a function that is not there stays as it is.
    """
    if not graph.functions:
        return graph
    flat = _Flat(graph)
    flat.add(graph.nodes, "", {}, 0)
    nodes = tuple(replace(node, inputs=tuple(flat.renamed(name) for name in node.inputs)) for node in flat.nodes)
    return replace(graph, nodes=nodes, functions={}, signatures={}, _by_name={node.name: node for node in nodes})


class _Flat:
    """The operations so far, and what stands for the outputs of the calls among them."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes: list[Node] = []
        self._left = _MOST_NODES
        self._instead: dict[str, str] = {}

    def renamed(self, tensor: str) -> str:
        """A tensor, where it is a call's output what the function gives there."""
        for _ in range(_DEEPEST):
            if tensor not in self._instead:
                break
            tensor = self._instead[tensor]
        return tensor

    def add(self, nodes: Sequence[Node], prefix: str, given: dict[str, str], depth: int) -> None:
        """Add operations below a scope; `given` is what stands for a function's arguments."""
        for node in nodes:
            self._left -= depth > 0  # of a call too: its function may hold nothing but calls
            inputs = [name for name in node.inputs if not name.startswith("^")] if prefix else list(node.inputs)
            made = replace(node, name=prefix + node.name, inputs=tuple(_tensor(n, prefix, given) for n in inputs))
            results = self._called(made, depth)
            if results is None:
                self.nodes.append(made)
                continue
            for index, tensor in enumerate(results):
                self._instead[tensor_name(f"{made.name}:{index}")] = tensor

    def _called(self, node: Node, depth: int) -> list[str] | None:
        """What a call gives, after its function's operations are added; None where it is none, or stays."""
        if depth >= _DEEPEST or self._left < 0:
            return None
        if node.op in _LOOPS:
            return self._loop(node, depth)
        if node.op in _BRANCHES:
            return self._branches(node, depth)
        if node.op in _CALLS:
            return self._body(node, _CALLS[node.op], node.inputs, node.name, depth)
        return None

    def _branches(self, node: Node, depth: int) -> list[str] | None:
        then, other = (
            self._body(node, attr, node.inputs[1:], f"{node.name}/{attr}", depth) for attr in _BRANCHES[node.op]
        )
        if then is None or other is None:
            return None
        return self._merged(node, "out", zip(then, other, strict=False))

    def _loop(self, node: Node, depth: int) -> list[str] | None:
        following = [f"{node.name}/next_{index}" for index in range(len(node.inputs))]
        variables = [f"{node.name}/variable_{index}" for index in range(len(node.inputs))]
        body = self._body(node, _LOOPS[node.op], variables, node.name, depth)
        if body is None:
            return None
        self._merged(node, "variable", zip(node.inputs, following, strict=True))
        for name, tensor in zip(following, body, strict=False):
            self.nodes.append(Node(name, "NextIteration", (tensor,), "", {}))
        exits = [f"{node.name}/exit_{index}" for index in range(len(node.inputs))]
        self.nodes += [Node(e, "Exit", (v,), "", {}) for e, v in zip(exits, variables, strict=True)]
        return exits

    def _merged(self, node: Node, what: str, tensors: Iterable[tuple[str, ...]]) -> list[str]:
        made = [Node(f"{node.name}/{what}_{index}", "Merge", pair, "", {}) for index, pair in enumerate(tensors)]
        self.nodes += made
        return [merge.name for merge in made]

    def _body(self, node: Node, attr: str, inputs: Sequence[str], scope: str, depth: int) -> list[str] | None:
        """What a function gives for these inputs; its operations are added below a scope."""
        function = node.attrs.get(attr)
        if not isinstance(function, str) or function not in self.graph.signatures:
            return None
        signature = self.graph.signatures[function]
        if len(signature.inputs) != len(inputs):
            return None
        given = dict(zip(signature.inputs, inputs, strict=True))
        self.add(self.graph.functions[function], scope + "/", given, depth + 1)
        return [_tensor(name, scope + "/", given) for name in signature.outputs]


def _tensor(name: str, prefix: str, given: dict[str, str]) -> str:
    """A tensor's name in the whole graph: of an argument, or of `node:output:0` in a function."""
    if not prefix:
        return name
    node, _, rest = name.partition(":")
    if not rest:
        return given.get(node, prefix + node)
    return tensor_name(f"{prefix}{node}:{rest.rpartition(':')[2]}")
