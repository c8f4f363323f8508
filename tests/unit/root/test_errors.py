"""The tree of exceptions."""

from __future__ import annotations

import inspect
import pickle

import pytest

import cellweave as cw
from cellweave import _errors

TREE = {
    "ShapeError": ValueError,
    "ArgumentError": ValueError,
    "ArgumentTypeError": TypeError,
    "StructureError": ValueError,
    "DTypeError": TypeError,
    "ScopeError": ValueError,
    "ModeError": RuntimeError,
    "OrderError": RuntimeError,
    "NodeError": AttributeError,
    "MemberError": AttributeError,
    "MisfitError": RuntimeError,
    "BackendError": RuntimeError,
    "CheckpointError": ValueError,
    "RunError": RuntimeError,
}
DEFINED = {
    name for name, value in vars(_errors).items() if inspect.isclass(value) and value.__module__ == _errors.__name__
}


def test_the_tree_is_complete() -> None:
    assert {*TREE, "CellweaveError"} == DEFINED


@pytest.mark.parametrize("name", TREE)
def test_an_error_is_ours_and_the_builtin_that_tf_raises(name: str) -> None:
    error = getattr(cw, name)
    assert issubclass(error, cw.CellweaveError)
    assert issubclass(error, TREE[name])
    assert str(error("GRUCell: expected this, got that.")) == "GRUCell: expected this, got that."
    assert inspect.getdoc(error)


@pytest.mark.parametrize("name", TREE)
def test_the_tree_is_drawn(name: str) -> None:
    assert f"{name} ({TREE[name].__name__})" in (_errors.__doc__ or "")


@pytest.mark.parametrize("name", TREE)
def test_an_error_crosses_processes(name: str) -> None:
    error = pickle.loads(pickle.dumps(getattr(cw, name)("text")))
    assert type(error) is getattr(cw, name)
    assert error.args == ("text",)
