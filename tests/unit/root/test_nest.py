"""Structures: flatten order, packing, comparing."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from typing import Any

import pytest
import torch

import cellweave as cw
from cellweave import _nest

Pair = namedtuple("Pair", ["left", "right"])
OtherPair = namedtuple("OtherPair", ["left", "right"])
NamedLikePair = namedtuple("Pair", ["left", "right"])


@pytest.mark.parametrize("value", [1, None, "ab", torch.ones(2), torch.Size([2, 3]), cw.TensorShape([2, 3]), {1, 2}])
def test_leaves(value: Any) -> None:
    assert not _nest.is_nested(value)
    assert not _nest.is_sequence(value)
    assert _nest.flatten(value) == [value] or _nest.flatten(value)[0] is value


@pytest.mark.parametrize("value", [(), [], (1,), [1], Pair(1, 2), cw.LSTMStateTuple(1, 2)])
def test_sequences(value: Any) -> None:
    assert _nest.is_nested(value)
    assert _nest.is_sequence(value)


def test_a_dict_is_nested_and_no_sequence() -> None:
    assert _nest.is_nested({"a": 1})
    assert not _nest.is_sequence({"a": 1})


def test_flatten_goes_depth_first_and_by_sorted_key() -> None:
    value = ([1, (2, 3)], {"b": 5, "a": [4]}, Pair(6, {"z": 8, "y": 7}), 9)
    assert _nest.flatten(value) == [1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_none_and_empty_structures() -> None:
    assert _nest.flatten(None) == [None]
    assert _nest.flatten([(), [], {}]) == []


@pytest.mark.parametrize(
    "like",
    [
        0,
        (0,),
        [0, 0],
        Pair(0, (0, [0])),
        {"b": 0, "a": (0, 0)},
        cw.LSTMStateTuple(0, 0),
        ((), [0], {}),
        cw.TensorShape([3]),
    ],
)
def test_pack_keeps_the_structure(like: Any) -> None:
    count = len(_nest.flatten(like))
    packed = _nest.pack(like, list(range(count)))
    assert _nest.flatten(packed) == list(range(count))
    _nest.same_structure(like, packed, "test")
    assert type(packed) is type(like) or not _nest.is_nested(like)


def test_pack_keeps_a_dicts_type_and_order_of_keys() -> None:
    packed = _nest.pack(OrderedDict(b=0, a=0), [1, 2])
    assert isinstance(packed, OrderedDict)
    assert list(packed.items()) == [("b", 2), ("a", 1)]


def test_pack_with_the_wrong_number_of_leaves() -> None:
    with pytest.raises(ValueError, match=r"expected 2 leaves.*got 3"):
        _nest.pack((0, 0), [1, 2, 3])
    with pytest.raises(ValueError, match=r"expected 2 leaves.*got 1"):
        _nest.pack((0, 0), [1])


def test_map_structure_over_two_structures() -> None:
    assert _nest.map_structure(lambda a, b: a + b, (1, [2]), (10, [20])) == (11, [22])
    assert _nest.map_structure(lambda a: -a, Pair(1, 2)) == Pair(-1, -2)
    assert _nest.map_structure(lambda a: -a, 3) == -3


def test_map_structure_calls_the_leaves_in_flatten_order() -> None:
    seen: list[int] = []
    _nest.map_structure(seen.append, {"b": 2, "a": 1, "c": (3, 4)})
    assert seen == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "expected, got, kind",
    [
        ((1, 2), [1, 2], TypeError),
        ([1], (1,), TypeError),
        (1, (1,), TypeError),
        ((1,), 1, TypeError),
        ((1, 2), (1, 2, 3), ValueError),
        ((1, (2, 3)), (1, (2,)), ValueError),
        ((1, 2), Pair(1, 2), TypeError),
        (cw.LSTMStateTuple(1, 2), (1, 2), TypeError),
        (Pair(1, 2), OtherPair(1, 2), TypeError),
        ({"a": 1}, {"b": 1}, ValueError),
        ({"a": 1}, (1,), TypeError),
    ],
)
def test_structures_that_differ(expected: Any, got: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=r"^here: expected .*got ") as info:
        _nest.same_structure(expected, got, "here")
    assert isinstance(info.value, cw.CellweaveError)


@pytest.mark.parametrize(
    "expected, got",
    [
        (1, torch.ones(2)),
        ((1, [2]), (3, [4])),
        (Pair(1, 2), NamedLikePair(3, 4)),  # same name and fields, as TF's nest sees it
        ({"a": 1, "b": 2}, OrderedDict(b=1, a=2)),
        ((), ()),
    ],
)
def test_structures_that_are_alike(expected: Any, got: Any) -> None:
    _nest.same_structure(expected, got, "here")


def test_types_may_be_left_out_of_the_comparison() -> None:
    _nest.same_structure((1, 2), [1, 2], "here", check_types=False)
    with pytest.raises(ValueError, match="here"):
        _nest.same_structure((1, 2), [1], "here", check_types=False)


def test_map_structure_refuses_structures_that_differ() -> None:
    with pytest.raises(TypeError, match="map_structure"):
        _nest.map_structure(lambda a, b: a, (1, 2), [1, 2])


@pytest.mark.parametrize(
    "value, picture",
    [
        (1, "*"),
        ((), "()"),
        ((1,), "(*,)"),
        ([1, (2, 3)], "[*, (*, *)]"),
        ({"b": 1, "a": [2]}, "{a: [*], b: *}"),
        (cw.LSTMStateTuple(1, (2,)), "LSTMStateTuple(c=*, h=(*,))"),
    ],
)
def test_describe(value: Any, picture: str) -> None:
    assert _nest.describe(value) == picture


def test_children_and_rebuild_go_one_level() -> None:
    value = {"b": (1, 2), "a": 3}
    assert _nest.children(value) == [3, (1, 2)]
    assert _nest.rebuild(value, [30, 40]) == {"a": 30, "b": 40}
    assert _nest.rebuild(Pair(1, 2), [3, 4]) == Pair(3, 4)


def test_torch_result_tuples_are_rebuilt_as_they_were() -> None:
    """Named results such as `torch.max`'s are tuples of a type of their own."""
    result = torch.ones(2, 3).max(dim=1)
    packed = _nest.pack(result, [1, 2])
    assert type(packed) is type(result)
    assert tuple(packed) == (1, 2)


def test_retyped_goes_as_deep_as_both_agree() -> None:
    pair = Pair(1, 2)
    found = _nest.retyped((pair, [1, 2], 3), [[4, 5], (6, 7), 8])
    assert found == (Pair(4, 5), [6, 7], 8)
    assert isinstance(found[0], Pair) and isinstance(found[1], list)
    assert _nest.retyped(pair, [4, 5, 6]) == [4, 5, 6]
    assert _nest.retyped(3, [4]) == [4]
