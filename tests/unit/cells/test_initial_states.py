"""zero_state in all its forms, its cache, and get_initial_state."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

import cellweave as cw
from helpers import nest

X = torch.zeros(2, 4)


class Shaped(cw.RNNCell):
    """A state of every kind of size."""

    state_size = (3, [cw.TensorShape([2, 5]), cw.LSTMStateTuple(1, 2)], {"b": 4, "a": cw.TensorShape(6)})
    output_size = 3


@pytest.mark.parametrize(
    "batch, rows",
    [
        (2, (2,)),
        (0, (0,)),
        (2.0, (2,)),
        (np.int64(2), (2,)),
        (torch.tensor(2), (2,)),
        (torch.tensor(2.0), (2,)),
        (torch.tensor([2]), (2,)),
        (torch.tensor([2, 7]), (2, 7)),
        ([2], (2,)),
        ((2, 7), (2, 7)),
        (cw.TensorShape([2, 7]), (2, 7)),
        (np.array([2, 7]), (2, 7)),
        (np.array(2), (2,)),
    ],
    ids=repr,
)
def test_batch_sizes(batch: Any, rows: tuple[int, ...]) -> None:
    state = cw.LSTMCell(3).zero_state(batch, "float32")
    assert type(state) is cw.LSTMStateTuple
    assert state.c.shape == state.h.shape == (*rows, 3) and not state.c.any()


@pytest.mark.parametrize(
    "batch",
    [
        None,
        -1,
        2.5,
        float("nan"),
        float("inf"),
        True,
        "2",
        torch.ones(1, 1).int(),
        torch.tensor(-1),
        torch.tensor(1.5),
        np.ones((1, 1), np.int32),
        np.array([1.5]),
        cw.TensorShape([None]),
    ],
    ids=repr,
)
def test_other_batch_sizes_are_refused(batch: Any) -> None:
    with pytest.raises(cw.ArgumentError, match=r"GRUCell.zero_state: expected batch_size"):
        cw.GRUCell(3).zero_state(batch, "float32")


def test_structure_of_a_state() -> None:
    state = Shaped().zero_state(2, "float64")
    assert nest.picture(state) == "(*, [*, LSTMStateTuple(c=*, h=*)], {a: *, b: *})"
    shapes = [tuple(leaf.shape) for leaf in nest.flatten(state)]
    assert shapes == [(2, 3), (2, 2, 5), (2, 1), (2, 2), (2, 6), (2, 4)]
    assert {leaf.dtype for leaf in nest.flatten(state)} == {torch.float64}


@pytest.mark.parametrize(
    "dtype, expected",
    [
        ("int32", torch.int32),
        (torch.bool, torch.bool),
        (np.float16, torch.float16),
        (np.dtype("float64"), torch.float64),
        ("bfloat16", torch.bfloat16),
        ("complex64", torch.complex64),
    ],
    ids=str,
)
def test_any_dtype(dtype: Any, expected: torch.dtype) -> None:
    assert cw.GRUCell(3).zero_state(2, dtype).dtype == expected


@pytest.mark.parametrize("dtype", ["float31", None, "", 3], ids=repr)
def test_unknown_dtype(dtype: Any) -> None:
    with pytest.raises(cw.ArgumentTypeError, match="zero_state: expected a dtype"):
        cw.GRUCell(3).zero_state(2, dtype)


def test_inputs_that_are_no_tensors() -> None:
    with pytest.raises(
        cw.ArgumentTypeError, match=r"GRUCell.get_initial_state: expected inputs \[B, ...\] as tensors, got 'x'"
    ):
        cw.GRUCell(3).get_initial_state("x")
    with pytest.raises(cw.ArgumentTypeError, match=r"GRUCell: expected inputs \[B, D\] as a tensor"):
        cw.GRUCell(3)(np.zeros((2, 4), np.float32), torch.zeros(2, 3))


def test_state_of_integers() -> None:
    """As TF1 has it: not a mixture of dtypes, but a dtype that no cell runs in."""
    with pytest.raises(cw.ArgumentError, match="GRUCell: expected a floating or complex dtype, got int32"):
        cw.GRUCell(3)(X, torch.zeros(2, 3, dtype=torch.int32))


def test_sizes_must_be_known() -> None:
    class Open(cw.RNNCell):
        state_size = cw.TensorShape([None])
        output_size = 3

    with pytest.raises(cw.ArgumentError, match="expected known sizes"):
        Open().zero_state(2, "float32")


class TestCache:
    def test_the_same_object_again(self) -> None:
        cell = cw.LSTMCell(3)
        state = cell.zero_state(2, "float32")
        assert cell.zero_state(2, torch.float32) is state
        assert cell.get_initial_state(X) is state

    def test_another_request_is_another_object(self) -> None:
        cell = cw.LSTMCell(3)
        state = cell.zero_state(2, "float32")
        assert cell.zero_state(3, "float32").c.shape == (3, 3)
        assert cell.zero_state(2, "float64").dtype == torch.float64
        assert cell.zero_state(torch.tensor([2, 2]), "float32").c.shape == (2, 2, 3)
        assert cell.zero_state(2, "float32") is not state  # only the last one is kept

    def test_cells_share_no_cache(self) -> None:
        assert cw.GRUCell(3).zero_state(2, "float32") is not cw.GRUCell(3).zero_state(2, "float32")

    def test_a_changed_size_is_noticed(self) -> None:
        class Growing(cw.RNNCell):
            state_size = 3
            output_size = 3

        cell = Growing()
        cell.zero_state(2, "float32")
        Growing.state_size = 4
        assert cell.zero_state(2, "float32").shape == (2, 4)

    @pytest.mark.parametrize(
        "write",
        [
            pytest.param(lambda leaf: leaf.add_(1), id="in-place"),
            pytest.param(lambda leaf: leaf[0].fill_(1), id="view"),
            pytest.param(lambda leaf: leaf.data.fill_(1), id="data"),
            pytest.param(lambda leaf: leaf.numpy().fill(1), id="numpy"),
            pytest.param(lambda leaf: leaf.detach().fill_(1), id="detach"),
            pytest.param(lambda leaf: leaf.requires_grad_(), id="requires-grad"),
        ],
    )
    def test_not_after_somebody_wrote_into_it(self, write: Any) -> None:
        cell = cw.LSTMCell(3)
        state = cell.zero_state(2, "float32")
        write(state.h)
        fresh = cell.zero_state(2, "float32")
        assert not fresh.h.any() and not fresh.h.requires_grad and fresh.h is not state.h

    def test_not_from_inference_mode(self) -> None:
        cell = cw.GRUCell(3)
        with torch.inference_mode():
            cell.zero_state(2, "float32")
        state = cell.zero_state(2, "float32")
        assert not state.is_inference()
        with torch.inference_mode():
            cell(X, cell.zero_state(2, "float32"))

    def test_not_from_a_fake_mode(self) -> None:
        cell = cw.GRUCell(3)
        with FakeTensorMode():
            assert isinstance(cell.zero_state(2, "float32"), FakeTensor)
        assert not isinstance(cell.zero_state(2, "float32"), FakeTensor)

    def test_not_from_a_function_transform(self) -> None:
        """A tensor that lived inside `torch.func.grad` is dead outside."""
        cell = cw.GRUCell(3)
        torch.func.grad(lambda x: (x + cell.zero_state(2, "float32")).sum())(torch.ones(2, 3))
        state = cell.zero_state(2, "float32")
        assert "GradTrackingTensor" not in repr(state)

    def test_not_copied(self) -> None:
        cell = cw.GRUCell(3)
        state = cell.zero_state(2, "float32")
        assert copy.deepcopy(cell).zero_state(2, "float32") is not state


class TestGetInitialState:
    def test_from_inputs(self) -> None:
        state = cw.LSTMCell(3).get_initial_state(X.double())
        assert type(state) is cw.LSTMStateTuple and state.c.shape == (2, 3) and state.dtype == torch.float64

    def test_from_nested_inputs(self) -> None:
        assert cw.GRUCell(3).get_initial_state((X, X)).shape == (2, 3)

    def test_from_batch_size_and_dtype(self) -> None:
        assert cw.GRUCell(3).get_initial_state(batch_size=5, dtype="float64").shape == (5, 3)
        assert cw.GRUCell(3).get_initial_state(None, torch.tensor(5), torch.float32).shape == (5, 3)

    def test_what_is_given_twice_must_agree(self) -> None:
        cell = cw.GRUCell(3)
        assert cell.get_initial_state(X, 2, "float32").shape == (2, 3)
        with pytest.raises(cw.ArgumentError, match="GRUCell.*batch_size 2 .*got 3"):
            cell.get_initial_state(X, batch_size=3)
        with pytest.raises(cw.ArgumentError, match="GRUCell.*float32.*float64"):
            cell.get_initial_state(X, dtype="float64")

    @pytest.mark.parametrize("given", [{}, {"batch_size": 2}, {"dtype": "float32"}], ids=str)
    def test_both_are_needed_without_inputs(self, given: dict[str, Any]) -> None:
        with pytest.raises(cw.ArgumentError, match="GRUCell.*get_initial_state: expected inputs, or both"):
            cw.GRUCell(3).get_initial_state(**given)
