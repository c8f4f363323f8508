"""What a dropout wrapper tells a weave: which masks act, what they will take, and streams made ahead of a run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import cellweave as cw
from cellweave import keras
from cellweave.ops.common import BLOCKS_PER_ELEMENT
from cellweave.scopes import probing, running_loop, session_run
from cellweave.wrappers import preparing_streams

X, H = torch.ones(2, 4), torch.zeros(2, 3)
ALL = {"input_keep_prob": 0.5, "output_keep_prob": 0.5, "state_keep_prob": 0.5}


def gru(**kwargs: Any) -> Any:
    return cw.DropoutWrapper(cw.GRUCell(3), **{"seed": 1, **kwargs})


def variational(**kwargs: Any) -> Any:
    return gru(**{**ALL, "variational_recurrent": True, "input_size": 4, "dtype": "float32", **kwargs})


def test_which_masks_act() -> None:
    assert gru().acting() == ("", "", "", None)
    cell = gru(**ALL)
    assert cell.acting() == ("constant", "constant", "constant", None)
    assert cell.eval().acting() == ("", "", "", None)
    assert variational().acting()[3] is torch.float32
    fed = gru(state_keep_prob=torch.tensor(0.5)).eval()
    assert fed.acting() == ("", "fed", "", None)


@pytest.mark.parametrize(
    "keep, reason",
    [
        (0.0, "a keep probability is 0"),
        (torch.tensor(0.0), "outside"),
        (nn.Parameter(torch.tensor(0.5)), "takes a gradient"),
    ],
    ids=["constant", "fed", "learnt"],
)
def test_what_only_steps_can_have(keep: Any, reason: str) -> None:
    assert reason in gru(input_keep_prob=keep).acting()[0]


def test_a_probability_that_is_fed_too_high() -> None:
    keep = torch.tensor(1.0)
    cell = gru(input_keep_prob=keep)
    assert cell.acting()[0] == "fed" and cell.keep_now("input") == 1.0
    keep.fill_(1.5)
    assert "outside (0, 1]" in cell.acting()[0]
    keep.fill_(float("nan"))
    assert "outside (0, 1]" in cell.acting()[0]


def test_which_states() -> None:
    lstm = cw.DropoutWrapper(cw.LSTMCell(3), state_keep_prob=0.5)
    state = lstm.zero_state(2, "float32")
    assert lstm.dropped_leaves(state) == [(1, 1)] and not lstm.has_own_visitor
    everything = cw.RNNCellDropoutWrapper(keras.LSTMCell(3), state_keep_prob=0.5)
    assert everything.dropped_leaves([H, H]) == [(0, 0), (1, 1)]
    nested = cw.DropoutWrapper(
        cw.MultiRNNCell([cw.LSTMCell(3), cw.GRUCell(3)]),
        state_keep_prob=0.5,
        dropout_state_filter_visitor=lambda part: not isinstance(part, cw.LSTMStateTuple),
    )
    assert nested.has_own_visitor and nested.dropped_leaves(nested.zero_state(2, "float32")) == [(2, 1)]


def test_sizes_of_noise() -> None:
    cell = variational()
    assert [cell.noise_size(kind, 0) for kind in ("input", "state", "output")] == [(4,), (3,), (3,)]
    assert cell.noise_size("state", 1) == (None,)
    tf2 = cw.RNNCellDropoutWrapper(keras.GRUCell(3), **ALL, variational_recurrent=True, input_size=4, dtype="float64")
    assert tf2.noise_size("input", 0) == (4,) and tf2.noise_size("input", 1) == (None,)
    assert tf2.acting()[3] is torch.float64 and tf2.run_draw("input", 0, 9, 4, torch.float64) is tf2.noise_input_0


def test_draws_ahead_are_the_draws_of_steps() -> None:
    """Three steps by hand move a stream exactly as far as taking three steps does."""
    hand, taken = gru(output_keep_prob=0.5), gru(output_keep_prob=0.5)
    for _ in range(3):
        hand(X, H)
    with running_loop(3) as loop:
        loop.next_step()
        draws = taken.step_draws("output", 0, 6, torch.float32, taken.next_op())
        start = draws.start()
        draws.take(draws.blocks, 3)
        assert draws.blocks == 6 * BLOCKS_PER_ELEMENT
        moved = taken.get_extra_state().clone()
        loop.take_back(1)
    assert torch.equal(hand.get_extra_state(), moved)
    assert taken.get_extra_state()[0, 6] == moved[0, 6] - draws.blocks
    assert start == (moved[0, 4], moved[0, 5], 0)


def test_one_variational_draw_serves_steps_and_weave() -> None:
    cell = variational()
    with session_run():
        taken = cell.run_draw("output", 0, 2, 3, torch.float32)
        out, _ = cell(X, H)
        assert cell.run_draw("output", 0, 2, 3, torch.float32) is taken
        dropped = torch.floor(0.5 + taken.noise(torch.device("cpu"))) == 0
    assert torch.equal((out == 0).all(dim=0, keepdim=True), dropped)
    assert cell.run_draw("output", 0, 2, 3, torch.float32).block == 3 * BLOCKS_PER_ELEMENT


@pytest.mark.parametrize("graph_seed", [None, 3])
def test_streams_made_ahead_are_those_of_a_first_step(graph_seed: int | None) -> None:
    def cell() -> Any:
        torch.manual_seed(0)
        cw.set_random_seed(graph_seed)
        return cw.MultiRNNCell([gru(seed=None, **ALL), cw.RNNCellDropoutWrapper(cw.GRUCell(3), 0.5)])

    stepped, prepared = cell(), None
    with session_run():
        stepped(X, (H, H))
    after = torch.rand(1)
    prepared = cell()
    with session_run() as run, probing(), preparing_streams():
        prepared(X, (H, H))
        assert run.ops_made(prepared.cells[0]) == 1
    assert torch.equal(torch.rand(1), after), "as much was asked of torch's generator"
    first, second = (c.cells[0].get_extra_state() for c in (stepped, prepared))
    assert torch.equal(first[:, :6], second[:, :6]) and not second[:, 6].any(), "and nothing has moved"
    assert prepared.cells[1].streams._own == stepped.cells[1].streams._own


def test_without_that_learning_shapes_makes_no_stream() -> None:
    cell = gru(seed=None, **ALL)
    with probing():
        cell(X, H)
    assert not cell.get_extra_state().numel()
