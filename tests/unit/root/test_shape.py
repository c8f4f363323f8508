"""TensorShape."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch

import cellweave as cw


@pytest.mark.parametrize(
    "given, dims",
    [
        (3, (3,)),
        (0, (0,)),
        ([], ()),
        ((2, None), (2, None)),
        ([None, 4], (None, 4)),
        (torch.Size([2, 3]), (2, 3)),
        (cw.TensorShape([5, None]), (5, None)),
        (range(3), (0, 1, 2)),
        (np.int64(3), (3,)),
        ([np.int64(2), np.int32(3)], (2, 3)),
        (np.array([2, 3]), (2, 3)),
    ],
    ids=repr,
)
def test_what_names_a_shape(given: Any, dims: tuple[int | None, ...]) -> None:
    shape = cw.TensorShape(given)
    assert shape.dims == dims
    assert all(dim is None or type(dim) is int for dim in shape.dims)


@pytest.mark.parametrize(
    "given, kind",
    [
        (-1, ValueError),
        ([2, -3], ValueError),
        ([2.0], TypeError),
        (["2"], TypeError),
        ([True], TypeError),
        ([[2]], TypeError),
        (None, TypeError),
        (2.5, TypeError),
    ],
    ids=repr,
)
def test_what_names_no_shape(given: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=r"^TensorShape: expected .*got ") as info:
        cw.TensorShape(given)
    assert isinstance(info.value, cw.CellweaveError)


def test_questions() -> None:
    shape = cw.TensorShape([2, None, 3])
    assert (shape.rank, shape.ndims, len(shape)) == (3, 3, 3)
    assert shape.as_list() == [2, None, 3]
    assert list(shape) == [2, None, 3]
    assert (shape[0], shape[1], shape[-1]) == (2, None, 3)
    assert not shape.is_fully_defined()
    assert shape.num_elements() is None
    with pytest.raises(IndexError):
        shape[3]


def test_parts_are_shapes() -> None:
    """In a state size a tuple would be a structure of two states."""
    shape = cw.TensorShape([8, None, 3])
    assert type(shape[1:]) is cw.TensorShape and shape[1:] == [None, 3]
    assert shape[:-1].concatenate(5) == cw.TensorShape([8, None]).concatenate([5]) == [8, None, 5]
    assert shape.concatenate(cw.TensorShape([])) == shape


def test_known_shapes() -> None:
    assert cw.TensorShape([2, 3]).is_fully_defined()
    assert cw.TensorShape([2, 3]).num_elements() == 6
    assert cw.TensorShape([2, 0]).num_elements() == 0
    assert cw.TensorShape([]).num_elements() == 1
    assert cw.TensorShape([]).rank == 0


def test_as_list_is_a_copy() -> None:
    shape = cw.TensorShape([2, 3])
    shape.as_list().append(4)
    assert shape.dims == (2, 3)


def test_equality_and_hash() -> None:
    assert cw.TensorShape([2, None]) == cw.TensorShape((2, None))
    assert cw.TensorShape([2]) != cw.TensorShape([3])
    assert cw.TensorShape([2, 3]) == (2, 3)
    assert cw.TensorShape([2, 3]) == [2, 3]
    assert cw.TensorShape([2, 3]) == torch.Size([2, 3])
    assert cw.TensorShape([2]) != 2
    assert len({cw.TensorShape([2]), cw.TensorShape([2]), cw.TensorShape([3])}) == 2


def test_copies_and_pickles() -> None:
    shape = cw.TensorShape([2, None])
    assert copy.deepcopy(shape) == shape
    assert pickle.loads(pickle.dumps(shape)) == shape


def test_it_says_what_it_is() -> None:
    assert repr(cw.TensorShape([2, None])) == "TensorShape([2, None])"


def test_it_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        cw.TensorShape([2]).rank = 3  # type: ignore[misc]
