"""The visitor: which leaves of a state are dropped, and which number each one's mask has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import cellweave as cw
from helpers import nest
from unit.wrappers.masks import Ones, kept, streams

X = torch.ones(2, 64)
ALL = "(LSTMStateTuple(c=*, h=*), *, [*, *])"
SIZE = (cw.LSTMStateTuple(64, 64), 64, [64, 64])


def _wrapper(visitor: Any = None, size: Any = SIZE, **kwargs: Any) -> cw.DropoutWrapper:
    return cw.DropoutWrapper(
        Ones(64, size), state_keep_prob=0.5, seed=11, dropout_state_filter_visitor=visitor, **kwargs
    )


def _indices(wrapper: cw.DropoutWrapper) -> dict[int, int]:
    """Leaf number to the index of the mask that dropped it."""
    zeros = wrapper.zero_state(2, "float32")
    _, state = wrapper(X, zeros)
    found: dict[int, int] = {}
    rows = 1 if wrapper.get_config()["variational_recurrent"] else 2
    for number, leaf in enumerate(nest.flatten(state)):
        if (leaf == 1).all():
            continue
        matches = [i for i in range(9) if torch.equal(leaf != 0, kept(11, "state", i, (rows, 64), 0.5).expand(2, 64))]
        assert len(matches) == 1 and set(leaf.flatten().tolist()) == {0.0, 2.0}
        found[number] = matches[0]
    assert {index for _, index, _ in streams(wrapper)} == set(found.values())
    return found


def _by_type(answers: dict[type, Any]) -> Any:
    return lambda state: next((a for kind, a in answers.items() if type(state) is kind), True)


LSTM = cw.LSTMStateTuple
#: Visitor, then leaf -> mask index per step, and variational.
RULES: dict[str, tuple[Any, dict[int, int], dict[int, int]]] = {
    "default": (None, {1: 1, 2: 2, 3: 3, 4: 4}, {1: 1, 2: 2, 3: 3, 4: 4}),
    "everything": (lambda s: True, {k: k for k in range(5)}, {k: k for k in range(5)}),
    "nothing": (lambda s: False, {}, {}),
    "no-lstm": (lambda s: not isinstance(s, LSTM), {2: 1, 3: 2, 4: 3}, {2: 2, 3: 3, 4: 4}),
    "only-c": (_by_type({LSTM: LSTM(True, False)}), {0: 0, 2: 2, 3: 3, 4: 4}, {0: 0, 2: 2, 3: 3, 4: 4}),
    "pruned-above": (_by_type({tuple: (False, True, True)}), {2: 1, 3: 2, 4: 3}, {2: 2, 3: 3, 4: 4}),
    "pruned-list": (_by_type({list: False, LSTM: False}), {2: 1}, {2: 2}),
    "list-of-bools": (_by_type({list: [False, True], LSTM: LSTM(False, False)}), {2: 2, 4: 4}, {2: 2, 4: 4}),
    "refused-at-the-leaf": (lambda s: not isinstance(s, torch.Tensor), {}, {}),
}


@pytest.mark.parametrize("rule", RULES)
def test_indices_per_step(rule: str) -> None:
    visitor, expected, _ = RULES[rule]
    assert _indices(_wrapper(visitor)) == expected


@pytest.mark.parametrize("rule", RULES)
def test_indices_variational(rule: str) -> None:
    visitor, _, expected = RULES[rule]
    assert _indices(_wrapper(visitor, variational_recurrent=True, dtype="float32")) == expected


def test_the_contracts_example() -> None:
    """(LSTMStateTuple, tensor) with the LSTM pruned: the tensor is state_1 per step, state_2 variational."""
    visitor = RULES["no-lstm"][0]
    assert _indices(_wrapper(visitor, (LSTM(64, 64), 64))) == {2: 1}
    variational = _wrapper(visitor, (LSTM(64, 64), 64), variational_recurrent=True, dtype="float32")
    assert _indices(variational) == {2: 2}


def test_dicts_go_by_sorted_key() -> None:
    wrapper = _wrapper(lambda s: {"a": True, "b": False} if isinstance(s, dict) else True, {"b": 64, "a": 64})
    assert _indices(wrapper) == {0: 0}


def test_plain_states_are_dropped_by_default() -> None:
    assert _indices(_wrapper(size=64)) == {0: 0}
    assert _indices(_wrapper(size=(64, 64))) == {0: 0, 1: 1}


def test_a_joined_lstm_state_is_dropped_whole() -> None:
    cell = cw.LSTMCell(32, state_is_tuple=False)
    wrapper = cw.DropoutWrapper(cell, state_keep_prob=0.5, seed=11)
    _, state = wrapper(torch.ones(2, 64), torch.ones(2, 64))
    assert torch.equal(state != 0, kept(11, "state", 0, (2, 64), 0.5))


def test_tensor_arrays_are_left_alone() -> None:
    class WithArray(cw.RNNCell):
        state_size = (64, 1)
        output_size = 64

        def call(self, inputs: Any, state: Any) -> Any:
            return inputs, (torch.ones(2, 64), cw.TensorArray().write(0, inputs))

    wrapper = cw.DropoutWrapper(WithArray(), state_keep_prob=0.5, seed=11)
    _, (dropped, array) = wrapper(X, (X, None))
    assert torch.equal(dropped != 0, kept(11, "state", 0, (2, 64), 0.5))
    assert isinstance(array, cw.TensorArray) and torch.equal(array.read(0), X)


def test_what_the_visitor_sees() -> None:
    seen: list[str] = []

    def visitor(state: Any) -> Any:
        seen.append(nest.picture(state))
        return LSTM(False, True) if isinstance(state, LSTM) else True

    wrapper = _wrapper(visitor)
    wrapper(X, wrapper.zero_state(2, "float32"))
    assert seen == [ALL, "LSTMStateTuple(c=*, h=*)", "*", "*", "[*, *]", "*", "*"]


@pytest.mark.parametrize("active", [{"state_keep_prob": 1.0, "input_keep_prob": 0.5}, {"eval": True}], ids=str)
def test_no_visits_without_state_dropout(active: dict[str, Any]) -> None:
    def visitor(state: Any) -> Any:
        raise AssertionError("visited")

    options = {key: value for key, value in active.items() if key != "eval"}
    wrapper = cw.DropoutWrapper(Ones(64), **({"state_keep_prob": 0.5} | options), dropout_state_filter_visitor=visitor)
    if "eval" in active:
        wrapper.eval()
    wrapper(X, X)


@pytest.mark.parametrize("bad", [1, 0, None, "yes", np.bool_(True), torch.tensor(True), 1.0], ids=repr)
@pytest.mark.parametrize("variational", [False, True])
def test_what_is_no_bool_is_refused_at_the_call(bad: Any, variational: bool) -> None:
    options: dict[str, Any] = {"variational_recurrent": True, "dtype": "float32"} if variational else {}
    for visitor in (
        lambda s: bad,
        lambda s: bad if isinstance(s, torch.Tensor) else True,
        _by_type({LSTM: LSTM(bad, True)}),
    ):
        wrapper = _wrapper(visitor, **options)
        with pytest.raises(cw.ArgumentTypeError, match="DropoutWrapper: expected the visitor to return a bool"):
            wrapper(X, wrapper.zero_state(2, "float32"))


@pytest.mark.parametrize("bad", [(True,), [True], LSTM(True, True), {"a": True}], ids=repr)
def test_no_structure_for_a_leaf(bad: Any) -> None:
    wrapper = _wrapper(lambda s: bad, 64)
    with pytest.raises(cw.ArgumentTypeError, match="DropoutWrapper: expected the visitor"):
        wrapper(X, X)


def test_no_second_level() -> None:
    wrapper = _wrapper(_by_type({tuple: (LSTM(True, True), True, True)}))
    with pytest.raises(cw.ArgumentTypeError, match="DropoutWrapper: expected the visitor"):
        wrapper(X, wrapper.zero_state(2, "float32"))


@pytest.mark.parametrize(
    "size, bad, kind",
    [
        ((64, 64), [True, True], TypeError),
        ([64, 64], (True, True), TypeError),
        ((64, 64), LSTM(True, True), TypeError),
        ({"a": 64, "b": 64}, (True, True), TypeError),
        ((64, 64), {"a": True, "b": True}, TypeError),
        ({"a": 64, "b": 64}, {"a": True, "c": True}, ValueError),
    ],
    ids=repr,
)
def test_the_answers_structure_is_the_states(size: Any, bad: Any, kind: type[Exception]) -> None:
    """A list is not a tuple, and keys are the state's keys."""
    wrapper = _wrapper(lambda s: True if isinstance(s, torch.Tensor) else bad, size)
    with pytest.raises(kind, match="DropoutWrapper: expected the visitor") as error:
        wrapper(X, wrapper.zero_state(2, "float32"))
    assert isinstance(error.value, cw.CellweaveError)


def test_a_tuple_answers_for_a_state_tuple() -> None:
    assert _indices(_wrapper(lambda s: (True, False) if isinstance(s, LSTM) else True, LSTM(64, 64))) == {0: 0}


@pytest.mark.parametrize("bad", [(True,), (True,) * 4, ()], ids=repr)
def test_one_bool_per_child(bad: Any) -> None:
    wrapper = _wrapper(_by_type({tuple: bad}))
    with pytest.raises(cw.ArgumentError, match=rf"expected the visitor to return 3 bools, got {len(bad)}"):
        wrapper(X, wrapper.zero_state(2, "float32"))
