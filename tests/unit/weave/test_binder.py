"""Masks are taken from their streams as single steps would take them: same places, same order, same ends."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import cellweave as cw
from cellweave import keras
from cellweave.ops.common import BLOCKS_PER_ELEMENT, BoundMask
from cellweave.scopes import running_loop, seed_state, session_run
from cellweave.weave import Binding, StaticBinding, plan_program, static_program
from helpers import nest
from properties.compositions import tables

CPU = torch.device("cpu")
B, I, N, T = 2, 3, 4, 5
DROP = {"input_keep_prob": 0.5, "output_keep_prob": 0.6, "state_keep_prob": 0.7, "seed": 1}


def program(cell: Any) -> Any:
    leaves = nest.flatten(cell.get_initial_state(batch_size=B, dtype="float32"))
    return plan_program(cell, I, torch.float32, CPU, leaves)[0]


def bound(cell: Any, steps: int = T) -> list[BoundMask]:
    made = program(cell)
    with running_loop(steps) as loop:
        loop.next_step()
        binding = Binding(made, B, torch.float32, CPU, steps)
        binding.draw()
        return [mask for run in made.runs for mask in binding.masks(run.masks)]


def gru(**kwargs: Any) -> Any:
    return cw.DropoutWrapper(cw.GRUCell(N), **{**DROP, **kwargs})


def test_per_step_masks_have_streams_of_their_own() -> None:
    cell = gru()
    masks = bound(cell)
    assert [(m.spec.place, m.block, m.stride) for m in masks] == [
        ("input", 0, BLOCKS_PER_ELEMENT * B * I),
        ("h", 0, BLOCKS_PER_ELEMENT * B * N),
        ("output", 0, BLOCKS_PER_ELEMENT * B * N),
    ]
    assert [round(m.keep, 6) for m in masks] == [0.5, 0.7, 0.6] and not any(m.by_floor for m in masks)
    assert len({(m.seed, m.seed2) for m in masks}) == 3
    assert [m.block for m in bound(cell)] == [T * m.stride for m in masks], "the next run goes on"
    assert cell.get_extra_state()[:, 6].tolist() == [2 * T * m.stride for m in masks]


def test_variational_masks_are_drawn_once_a_run() -> None:
    cell = gru(variational_recurrent=True, input_size=I, dtype="float32")
    masks = bound(cell)
    assert all(m.by_floor and m.stride == 0 and not m.spec.per_step and not m.spec.per_row for m in masks)
    with session_run():
        first, second = bound(cell), bound(cell)
        assert [m.block for m in first] == [m.block for m in second] == [BLOCKS_PER_ELEMENT * n for n in (I, N, N)]
        noise = cell.streams.per_run("input", 0, (1, I), torch.float32, CPU, cw.scopes.current_run())
    assert torch.equal(noise, first[0].draws(1, B, I, torch.zeros(1))), "single steps find the draw that was taken"


def test_a_mask_per_row() -> None:
    cell = gru(variational_recurrent=True, input_size=I, dtype="float32", mask_per_row=True)
    assert all(m.spec.per_row for m in bound(cell))
    assert bound(cell)[0].block == BLOCKS_PER_ELEMENT * B * I


def test_a_mask_cut_in_columns_is_numbers() -> None:
    cell = cw.DropoutWrapper(
        cw.LSTMCell(N, state_is_tuple=False), state_keep_prob=0.5, variational_recurrent=True, dtype="float32", seed=1
    )
    c, h = bound(cell)
    assert (c.spec.place, h.spec.place) == ("c", "h") and c.noise is not None and h.noise is not None
    whole = torch.cat([c.noise, h.noise], dim=1)
    assert whole.shape == (1, 2 * N) and torch.equal(whole, bound_noise(cell))


def bound_noise(cell: Any) -> torch.Tensor:
    """What the wrapper drew first."""
    stream = next(iter(cell.streams.table._streams.values()))
    stream.advance(2 * N, -1)
    return stream.peek((1, 2 * N), torch.float32, CPU)[0]


def test_tf2_masks_of_one_seed_follow_each_other_within_a_step() -> None:
    cell = cw.MultiRNNCell(
        [cw.RNNCellDropoutWrapper(cw.GRUCell(N), output_keep_prob=0.5, seed=1) for _ in range(2)]
        + [cw.RNNCellDropoutWrapper(cw.GRUCell(N), output_keep_prob=0.5, seed=2)]
    )
    first, second, third = bound(cell)
    one = BLOCKS_PER_ELEMENT * B * N
    assert [(m.block, m.stride) for m in (first, second, third)] == [(0, 2 * one), (one, 2 * one), (0, one)]
    assert sorted(seed_state().eager_blocks.values()) == [T * one, 2 * T * one]
    assert [m.block for m in bound(cell)] == [2 * T * one, (2 * T + 1) * one, T * one]


def test_tf2_variational_noise_is_the_wrappers() -> None:
    cell = cw.RNNCellDropoutWrapper(
        keras.GRUCell(N), state_keep_prob=0.5, variational_recurrent=True, dtype="float32", seed=1
    )
    (mask,) = bound(cell)
    assert mask.noise is cell.noise_state_0


def test_fed_probabilities_are_read_at_the_call() -> None:
    keep = torch.tensor(0.25)
    cell = cw.DropoutWrapper(cw.GRUCell(N), keep, seed=1)
    assert bound(cell)[0].keep == 0.25 and bound(cell)[0].by_floor
    keep.fill_(1.0)
    assert bound(cell)[0].keep == 1.0


def test_the_same_wrapper_twice_is_two_ops() -> None:
    cell = cw.DropoutWrapper(cw.GRUCell(I), output_keep_prob=0.5, seed=1)
    masks = bound(cw.MultiRNNCell([cell, cell]))
    assert [m.block for m in masks] == [0, 0] and masks[0].seed2 == masks[1].seed2
    assert cell.get_extra_state()[:, 3].tolist() == [0, 1]


def test_sites_behind_a_step_wait_for_it() -> None:
    opaque = cw.ResidualWrapper(cw.GRUCell(N), residual_fn=lambda x, y: y)
    cell = cw.MultiRNNCell([gru(seed=None), opaque, gru(seed=None)])
    with running_loop(T) as loop:
        loop.next_step()
        binding = Binding(program(cell), B, torch.float32, CPU, T)
        binding.draw(3)
        assert [len(table) for table in tables(cell)] == [3, 0]
        binding.draw()
        assert [len(table) for table in tables(cell)] == [3, 3]


@pytest.mark.parametrize("runs", [1, 2])
def test_static_steps_draw_the_same(runs: int) -> None:
    cell = gru()
    made = static_program(program(cell))
    assert static_program(program(cell)) is not made and static_program(made) is static_program(made)
    for number in range(runs):
        with session_run():
            binding = StaticBinding(made, B, torch.float32, CPU, T)
            assert binding.streams_are_alike()
            binding.draw()
            masks = binding.masks(made.runs[0].masks)
            assert current_ops(cell) == T
        one = BLOCKS_PER_ELEMENT * B * N
        assert [(m.block, m.stride) for m in masks][1:] == [(number * one, 0)] * 2
        assert all(m.spec.per_row and not m.spec.per_step and not m.by_floor for m in masks)
    table = cell.get_extra_state()
    assert table[:, 3].tolist() == [op for op in range(T) for _ in range(3)], "in the order of the steps"
    assert set(table[1::3, 6].tolist()) == {runs * BLOCKS_PER_ELEMENT * B * N}


def current_ops(cell: Any) -> int:
    return cell.ops_made()


def test_static_steps_whose_streams_differ() -> None:
    without_seed = gru(seed=None)
    unseeded = static_program(program(without_seed))
    with session_run():
        assert not StaticBinding(unseeded, B, torch.float32, CPU, T).streams_are_alike()
        assert StaticBinding(unseeded, B, torch.float32, CPU, 1).streams_are_alike(), "a single step is like itself"
    cell = gru()
    made = static_program(program(cell))
    for steps, alike in ((2, True), (3, False)):
        with session_run():
            binding = StaticBinding(made, B, torch.float32, CPU, steps)
            assert binding.streams_are_alike() is alike, "the third step's streams are new, the others have moved"
            if alike:
                binding.draw()
