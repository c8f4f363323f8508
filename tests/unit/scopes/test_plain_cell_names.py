"""Default names of plain `RNNCell`s: TF1 reopens the enclosing scope around their calls and forgets what was taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import cellweave as cw

N = 3
X, H = torch.ones(2, N), torch.zeros(2, N)


class Plain(cw.RNNCell):
    """One weight, made in `call`."""

    state_size = output_size = N

    def call(self, inputs: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        output = inputs @ cw.get_variable("w", [N, N])
        return output, output


class PairOfPlain(cw.RNNCell):
    """Two cells inside that know nothing of each other's names."""

    state_size = output_size = N

    def __init__(self) -> None:
        super().__init__()
        self.lower, self.upper = Plain(), Plain()

    def call(self, inputs: torch.Tensor, state: torch.Tensor) -> Any:
        return self.upper(self.lower(inputs, state)[0], state)


def _stack() -> Any:
    return cw.MultiRNNCell([cw.BasicRNNCell(N)])


#: A cell, its state, its first variable.
CELLS: dict[str, tuple[Callable[[], Any], Any, str]] = {
    "own": (Plain, H, "plain/w"),
    "pair": (PairOfPlain, H, "pair_of_plain/plain/w"),
    "dropped": (lambda: cw.DropoutWrapper(Plain(), seed=1), H, "plain/w"),
    "stack": (_stack, (H,), "multi_rnn_cell/cell_0/basic_rnn_cell/kernel"),
    "stack in a stack": (
        lambda: cw.MultiRNNCell([_stack()]),
        ((H,),),
        "multi_rnn_cell/cell_0/multi_rnn_cell/cell_0/basic_rnn_cell/kernel",
    ),
    "contrib": (lambda: cw.contrib.UGRNNCell(N), H, "ugrnn_cell/kernel"),
}


@pytest.mark.parametrize("kind", CELLS)
def test_two_share_where_that_is_allowed(kind: str) -> None:
    make, state, first = CELLS[kind]
    with cw.VariableStore() as store, cw.variable_scope("s", reuse=cw.AUTO_REUSE):
        one = make()
        one(X, state)
        before = list(store.variables)
        make()(X, state)
        with cw.variable_scope(cw.get_variable_scope(), reuse=True):
            make()(X, state)
        one(X, state)
    assert list(store.variables) == before
    assert before[0] == f"s/{first}"


@pytest.mark.parametrize("kind", [kind for kind in CELLS if kind != "pair"])
def test_two_collide_where_nothing_is_shared(kind: str) -> None:
    make, state, first = CELLS[kind]
    with cw.VariableStore():
        make()(X, state)
        with pytest.raises(cw.ScopeError, match=first):
            make()(X, state)


def test_what_is_taken_inside_is_forgotten_too() -> None:
    with cw.VariableStore() as store, cw.variable_scope("s"):
        Plain(name="a")(X, H)
        cw.BasicRNNCell(N, name="a")(X, H)
        cw.BasicRNNCell(N, name="a")(X, H)
    assert list(store.variables) == [
        "s/a/w", "s/a/kernel", "s/a/bias", "s/a_1/kernel", "s/a_1/bias",
    ]  # fmt: skip


def test_a_built_one_keeps_its_name_taken() -> None:
    """`build` opens nothing around itself."""
    with cw.VariableStore() as store:
        built = _stack()
        built.build([None, N])
        built(X, (H,))
        _stack()(X, (H,))
    assert [name.split("/")[0] for name in store.variables][::2] == ["multi_rnn_cell", "multi_rnn_cell_1"]


def test_outside_a_store_names_stay_distinct() -> None:
    pair = PairOfPlain()
    pair(X, H)
    assert list(cw.variable_names(pair)) == ["pair_of_plain/plain/w", "pair_of_plain/plain_1/w"]
