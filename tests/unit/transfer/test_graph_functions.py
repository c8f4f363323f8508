"""Functions of a graph's library put in place of their calls: whatever a library says, within bounds."""

from __future__ import annotations

from pathlib import Path

import pytest

from cellweave.checkpoint import Graph, Node, Signature
from cellweave.transfer import _graph_functions
from cellweave.transfer._graph_functions import flattened


def graph(call: Node, body: tuple[Node, ...], outputs: tuple[str, ...] = ("add:z:0",)) -> Graph:
    nodes = (Node("x", "Placeholder", (), "", {}), call, Node("y", "Tanh", ("call",), "", {}))
    signatures = {"f": Signature(("a",), outputs)}
    return Graph(Path("m.meta"), nodes, {"f": body}, (), signatures)


def by_name(flat: Graph) -> dict[str, tuple[str, tuple[str, ...]]]:
    return {node.name: (node.op, node.inputs) for node in flat.nodes}


ADD = (Node("add", "AddV2", ("a", "a", "^a"), "", {}),)


def test_a_call() -> None:
    flat = flattened(graph(Node("call", "PartitionedCall", ("x",), "", {"f": "f"}), ADD))
    assert by_name(flat) == {"x": ("Placeholder", ()), "call/add": ("AddV2", ("x", "x")), "y": ("Tanh", ("call/add",))}
    assert flat["y"].inputs == ("call/add",)


def test_a_loop_goes_round() -> None:
    found = by_name(flattened(graph(Node("call", "While", ("x",), "", {"body": "f"}), ADD)))
    assert found["call/variable_0"] == ("Merge", ("x", "call/next_0"))
    assert found["call/next_0"] == ("NextIteration", ("call/add",))
    assert found["call/add"] == ("AddV2", ("call/variable_0", "call/variable_0"))
    assert found["y"] == ("Tanh", ("call/exit_0",)) and found["call/exit_0"] == ("Exit", ("call/variable_0",))


def test_branches_meet() -> None:
    call = Node("call", "If", ("x", "x"), "", {"then_branch": "f", "else_branch": "f"})
    found = by_name(flattened(graph(call, ADD)))
    assert found["call/out_0"] == ("Merge", ("call/then_branch/add", "call/else_branch/add"))


def test_an_argument_that_is_handed_back() -> None:
    call = Node("call", "PartitionedCall", ("x",), "", {"f": "f"})
    assert by_name(flattened(graph(call, (), ("a",))))["y"] == ("Tanh", ("x",))


@pytest.mark.parametrize("attrs, inputs", [({"f": "g"}, ("x",)), ({}, ("x",)), ({"f": 3}, ("x",)), ({"f": "f"}, ())])
def test_calls_that_cannot_be_followed_stay(attrs: dict[str, object], inputs: tuple[str, ...]) -> None:
    found = by_name(flattened(graph(Node("call", "PartitionedCall", inputs, "", attrs), ADD)))
    assert found["call"] == ("PartitionedCall", inputs) and found["y"] == ("Tanh", ("call",))


@pytest.mark.parametrize("op, attr", [("PartitionedCall", "f"), ("While", "body")])
def test_functions_that_call_themselves_end(op: str, attr: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_graph_functions, "_MOST_NODES", 2000)
    again = tuple(Node(f"again_{number}", op, ("a",), "", {attr: "f"}) for number in range(8))
    flat = flattened(graph(Node("call", op, ("x",), "", {attr: "f"}), again, ("again_7:output:0",)))
    assert len(flat.nodes) < 6000


def test_functions_of_nothing_but_calls_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten calls of the next function each, down to one without operations."""
    monkeypatch.setattr(_graph_functions, "_MOST_NODES", 2000)
    calls = [tuple(Node(f"c_{n}", "PartitionedCall", ("a",), "", {"f": f"f{level + 1}"}) for n in range(10))
             for level in range(12)]  # fmt: skip
    functions = {f"f{level}": body for level, body in enumerate([*calls, ()])}
    nodes = (Node("x", "Placeholder", (), "", {}), Node("call", "PartitionedCall", ("x",), "", {"f": "f0"}))
    signatures = dict.fromkeys(functions, Signature(("a",), ("a",)))
    flat = flattened(Graph(Path("m.meta"), nodes, functions, (), signatures))
    assert 0 < len(flat.nodes) < 6000
