"""Following tensors through a graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cellweave import CheckpointError
from cellweave.checkpoint import Graph, Node
from cellweave.transfer._graph_reader import GraphReader, parts_of


def node(name: str, op: str, *inputs: str, **attrs: Any) -> Node:
    return Node(name, op, inputs, "", attrs)


def reader(*nodes: Node) -> GraphReader:
    return GraphReader(Graph(Path("m.meta"), nodes, {}, (), {}, {made.name: made for made in nodes}))


@pytest.mark.parametrize(
    "save", [node("save", "SaveV2", "path", "keys", "slices", "a/read"), node("save", "Save", "path", "keys", "a/read")]
)
def test_what_a_saver_saves_under_other_names(save: Node) -> None:
    keys = node("keys", "Const", value=np.array([b"net/a"], object))
    found = reader(node("a", "VariableV2"), node("a/read", "Identity", "a"), keys, save)
    assert found.saved == {"net/a": "a"}


@pytest.mark.parametrize(
    "keys",
    [node("keys", "Placeholder"), node("keys", "Const"), node("keys", "Const", value=np.zeros(1)), node("x", "NoOp")],
)
def test_savers_whose_keys_are_not_told(keys: Node) -> None:
    saves = (node("save", "SaveV2", "path", "keys", "slices", "a"), node("short", "SaveV2", "path"))
    assert reader(node("a", "VariableV2"), keys, *saves).saved == {}


@pytest.mark.parametrize(
    "between, handed",
    [
        *((node("n", op, "x"), True) for op in ("Identity", "StopGradient", "PreventGradient", "CheckNumerics")),
        (node("n", "Print", "x"), True),
        (node("n", "EnsureShape", "x"), True),
        (node("n", "FakeQuantWithMinMaxVars", "x", "low", "high"), True),
        (node("n", "Cast", "x", SrcT="float32", DstT="float16"), True),
        (node("n", "Cast", "x", SrcT="bool", DstT="float32"), False),
        (node("n", "Tanh", "x"), False),
    ],
    ids=lambda value: value.op if isinstance(value, Node) else str(value),
)
def test_operations_that_hand_a_tensor_on(between: Node, handed: bool) -> None:
    """Both ways: from a result to what made it, and from a tensor to who uses it."""
    found = reader(node("x", "Placeholder"), between, node("y", "MatMul", "n", "w"))
    maker = found.maker("n")
    assert maker is not None
    assert maker.name == ("x" if handed else "n")
    assert [user.name for user in found.users("x")] == (["y"] if handed else ["n"])


def test_parts_of_both_operations_that_join() -> None:
    assert parts_of(node("j", "Concat", "axis", "x", "h", "^c")) == ("x", "h")
    assert parts_of(node("j", "ConcatV2", "x", "h", "axis")) == ("x", "h")
    assert parts_of(node("j", "Pack", "x", "h")) == ()


@pytest.mark.parametrize(
    "damaged, text",
    [
        (node("n", "MatMul", "x", "^y"), "at least 2 inputs of the MatMul 'n', got 1"),
        (node("n", "SelectV2", "x", "x"), "at least 3 inputs of the SelectV2 'n', got 2"),
        (node("n", "Cast"), "at least 1 input of the Cast 'n', got 0"),
    ],
)
def test_an_operation_that_takes_too_little(damaged: Node, text: str) -> None:
    with pytest.raises(CheckpointError, match=rf"^m\.meta: expected {text}\. The graph is damaged"):
        reader(node("x", "Placeholder"), damaged)
