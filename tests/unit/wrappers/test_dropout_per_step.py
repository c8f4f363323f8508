"""DropoutWrapper per step: what is dropped in which order, by which draw of which stream."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import cellweave as cw
from cellweave.wrappers import _mask_streams
from helpers import nest
from helpers.woven import assert_same_run, both_ways
from oracles.philox import mask_seed, op_seeds, uniform
from unit.wrappers.masks import Ones, kept, streams

B, D = 3, 8
X = torch.ones(B, D)
KEEP = {"input_keep_prob": 0.5, "output_keep_prob": 0.75, "state_keep_prob": 0.25}


def _masked(*masks: tuple[torch.Tensor, float]) -> torch.Tensor:
    """Ones after these masks, in order."""
    value = torch.ones(masks[0][0].shape)
    for mask, keep in masks:
        value = torch.where(mask, value * (1.0 / keep), 0.0)
    return value


def test_op_seeds() -> None:
    """The contract's vector for seed 11."""
    wrapper = cw.DropoutWrapper(Ones(D, (D, D)), **KEEP, seed=11)
    wrapper(X, (X, X))
    rows = {(kind, index): (seed, seed2) for kind, index, _, _, seed, seed2, *_ in wrapper.get_extra_state().tolist()}
    assert rows == {
        (0, 0): (87654321, 1189992502),
        (1, 0): (87654321, 201927314),
        (1, 1): (87654321, 180686734),
        (2, 0): (87654321, 405474468),
    }


@pytest.mark.parametrize("seed", [0, -5, 2**31, 2**70])
def test_masks_of_any_seed(seed: int) -> None:
    wrapper = cw.DropoutWrapper(Ones(D), output_keep_prob=0.5, seed=seed)
    assert torch.equal(wrapper(X, X)[0], _masked((kept(seed, "output", 0, (B, D), 0.5), 0.5)))


def test_input_then_cell_then_state_and_output() -> None:
    cell = Ones(D)
    wrapper = cw.DropoutWrapper(cell, **KEEP, seed=11)
    out, state = wrapper(X, X)
    shape = (B, D)
    assert torch.equal(
        out, _masked((kept(11, "input", 0, shape, 0.5), 0.5), (kept(11, "output", 0, shape, 0.75), 0.75))
    )
    assert torch.equal(state, _masked((kept(11, "state", 0, shape, 0.25), 0.25)))
    assert cell.arrived[0] is X  # the incoming state is never dropped


def test_output_is_computed_before_the_state_is_dropped() -> None:
    """A GRU's output and state are one tensor in the cell, and get masks of their own."""
    cell = cw.GRUCell(D)
    plain, _ = cell(X, X)
    out, state = cw.DropoutWrapper(cell, state_keep_prob=0.5, seed=11)(X, X)
    assert torch.equal(out, plain)
    assert torch.equal(state, torch.where(kept(11, "state", 0, (B, D), 0.5), plain * 2, 0.0))
    both, state = cw.DropoutWrapper(cell, state_keep_prob=0.5, output_keep_prob=0.5, seed=11)(X, X)
    assert torch.equal(both, torch.where(kept(11, "output", 0, (B, D), 0.5), plain * 2, 0.0))
    assert not torch.equal(both != 0, state != 0)


def test_the_dropped_state_goes_into_the_next_step() -> None:
    cell = Ones(D)
    wrapper = cw.DropoutWrapper(cell, state_keep_prob=0.5, seed=11)
    _, final = cw.dynamic_rnn(wrapper, torch.ones(B, 4, D), dtype="float32")
    states = [*cell.arrived[1:], final]
    for step, state in enumerate(states):
        assert torch.equal(state != 0, kept(11, "state", 0, (B, D), 0.5, draw=step))


@pytest.mark.parametrize("kind", ["input", "output", "state"])
def test_one_stays_out_and_draws_nothing(kind: str) -> None:
    wrapper = cw.DropoutWrapper(Ones(D), **(KEEP | {f"{kind}_keep_prob": 1.0}), seed=11)
    wrapper(X, X)
    assert {name for name, _, _ in streams(wrapper)} == {"input", "output", "state"} - {kind}


def test_eval_draws_nothing() -> None:
    wrapper = cw.DropoutWrapper(Ones(D), **KEEP, seed=11).eval()
    before = torch.get_rng_state()
    out, state = wrapper(X, X)
    assert torch.equal(out, X) and torch.equal(state, X) and streams(wrapper) == {}
    wrapper.train()
    assert not torch.equal(wrapper(X, X)[0], X)
    moved = streams(wrapper)
    wrapper.eval()(X, X)
    assert streams(wrapper) == moved and torch.equal(torch.get_rng_state(), before)


def test_nested_inputs_and_outputs_have_a_mask_per_leaf() -> None:
    class Two(cw.RNNCell):
        state_size = D
        output_size = (D, D)

        def call(self, inputs: Any, state: Any) -> Any:
            return (inputs["b"], inputs["a"]), state

    wrapper = cw.DropoutWrapper(Two(), input_keep_prob=0.5, output_keep_prob=0.75, seed=11)
    out, _ = wrapper({"b": X, "a": X}, X)
    masks = [
        [(kept(11, "input", i, (B, D), 0.5), 0.5), (kept(11, "output", 1 - i, (B, D), 0.75), 0.75)] for i in (0, 1)
    ]
    assert torch.equal(out[1], _masked(*masks[0])) and torch.equal(out[0], _masked(*masks[1]))


def test_calls_follow_each_other() -> None:
    wrapper = cw.DropoutWrapper(Ones(D), output_keep_prob=0.5, seed=11)
    for draw in range(4):
        assert torch.equal(wrapper(X, X)[0] != 0, kept(11, "output", 0, (B, D), 0.5, draw=draw))
        assert streams(wrapper) == {("output", 0, 0): B * D * (draw + 1)}


def test_steps_of_an_unroll_are_draws_in_time_order_and_the_next_unroll_goes_on() -> None:
    wrapper = cw.DropoutWrapper(Ones(D), input_keep_prob=0.5, seed=11)
    for run in range(3):
        out, _ = cw.dynamic_rnn(wrapper, torch.ones(5, B, D), dtype="float32", time_major=True)
        for step in range(5):
            assert torch.equal(out[step] != 0, kept(11, "input", 0, (B, D), 0.5, draw=5 * run + step))
    assert streams(wrapper) == {("input", 0, 0): 15 * B * D}


@pytest.mark.parametrize("lengths, ran", [([2, 1, 3], 3), ([0, 0, 0], 1), ([-4, 0, -1], 1), ([9, 1, 1], 5), (None, 5)])
@pytest.mark.parametrize("kind", ["input", "output", "state"])
def test_only_executed_steps_draw(lengths: Any, ran: int, kind: str) -> None:
    wrapper = cw.DropoutWrapper(Ones(D), **{f"{kind}_keep_prob": 0.5}, seed=11)
    cw.dynamic_rnn(wrapper, torch.ones(B, 5, D), lengths, dtype="float32")
    assert streams(wrapper) == {(kind, 0, 0): ran * B * D}
    cw.dynamic_rnn(wrapper, torch.ones(B, 5, D), lengths, dtype="float32")
    assert streams(wrapper) == {(kind, 0, 0): 2 * ran * B * D}


def test_copy_through_freezes_the_dropped_state() -> None:
    wrapper = cw.DropoutWrapper(Ones(D), state_keep_prob=0.5, seed=11)
    _, final = cw.dynamic_rnn(wrapper, torch.ones(B, 4, D), [1, 3, 4], dtype="float32")
    for row, draw in enumerate((0, 2, 3)):
        assert torch.equal(final[row] != 0, kept(11, "state", 0, (B, D), 0.5, draw=draw)[row])


@pytest.mark.parametrize("ahead", [1, 2 * B * D, 3 * B * D + 1])
def test_drawing_ahead_changes_nothing(ahead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many steps are drawn together, each step has its own draw."""
    xs = torch.ones(7, B, D)
    whole = cw.dynamic_rnn(cw.DropoutWrapper(Ones(D), **KEEP, seed=11), xs, dtype="float32", time_major=True)
    monkeypatch.setattr(_mask_streams, "_AHEAD", ahead)
    wrapper = cw.DropoutWrapper(Ones(D), **KEEP, seed=11)
    parts = cw.dynamic_rnn(wrapper, xs, dtype="float32", time_major=True)
    assert torch.equal(whole[0], parts[0]) and torch.equal(whole[1], parts[1])
    assert set(streams(wrapper).values()) == {7 * B * D}


@both_ways
def test_an_unroll_is_the_same_calls_one_by_one(backend: str | None) -> None:
    cell = cw.LSTMCell(D)
    whole, single = (cw.DropoutWrapper(cell, **KEEP, seed=11) for _ in range(2))
    xs = torch.linspace(-1, 1, B * 6 * D).reshape(B, 6, D)
    with cw.use_backend(backend):
        out, final = cw.dynamic_rnn(whole, xs, dtype="float32")
    state = cell.zero_state(B, "float32")
    for step in range(6):
        hand, state = single(xs[:, step], state)
        assert_same_run(backend, out[:, step], hand)
    assert_same_run(backend, final, state)
    assert torch.equal(whole.get_extra_state(), single.get_extra_state())


def test_static_steps_are_ops_of_their_own_with_one_seed() -> None:
    wrapper = cw.DropoutWrapper(Ones(D), input_keep_prob=0.5, seed=11)
    for run in range(2):
        outputs, _ = cw.static_rnn(wrapper, [X] * 4, dtype="float32")
        for out in outputs:
            assert torch.equal(out != 0, kept(11, "input", 0, (B, D), 0.5, draw=run))
    assert streams(wrapper) == {("input", 0, op): 2 * B * D for op in range(4)}


def test_static_steps_that_are_not_run_draw_nothing() -> None:
    wrapper = cw.DropoutWrapper(Ones(D), input_keep_prob=0.5, seed=11)
    cw.static_rnn(wrapper, [X] * 4, dtype="float32", sequence_length=[1, 2, 0])
    assert streams(wrapper) == {("input", 0, op): B * D for op in range(2)}


def test_calls_by_hand_in_one_session_run_are_ops_of_their_own() -> None:
    wrapper = cw.DropoutWrapper(Ones(D), output_keep_prob=0.5, seed=11)
    for run in range(2):
        with cw.session_run():
            for _ in range(3):
                assert torch.equal(wrapper(X, X)[0] != 0, kept(11, "output", 0, (B, D), 0.5, draw=run))
    assert streams(wrapper) == {("output", 0, op): 2 * B * D for op in range(3)}


def test_session_runs_do_not_nest() -> None:
    wrapper = cw.DropoutWrapper(Ones(D), output_keep_prob=0.5, seed=11)
    with cw.session_run():
        wrapper(X, X)
        with cw.session_run():
            wrapper(X, X)
        cw.dynamic_rnn(wrapper, X[None], dtype="float32")
    assert [op for _, _, op in streams(wrapper)] == [0, 1, 2]


def test_an_error_inside_a_session_run_ends_it() -> None:
    wrapper = cw.DropoutWrapper(Ones(D), output_keep_prob=0.5, seed=11)

    def fails() -> None:
        with cw.session_run():
            wrapper(X, X)
            cw.dynamic_rnn(wrapper, X, dtype="float32")

    with pytest.raises(cw.ShapeError):
        fails()
    wrapper(X, X)
    assert list(streams(wrapper)) == [("output", 0, 0)]


def test_wrappers_made_anew_inside_one_run_are_not_confused() -> None:
    """Python may give a new wrapper the address of one that is gone."""
    with cw.session_run():
        for _ in range(20):
            wrapper = cw.DropoutWrapper(Ones(D), output_keep_prob=0.5, seed=11)
            assert torch.equal(wrapper(X, X)[0] != 0, kept(11, "output", 0, (B, D), 0.5))
            assert list(streams(wrapper)) == [("output", 0, 0)]
            del wrapper


def test_the_same_wrapper_twice_in_a_stack_is_two_ops() -> None:
    wrapper = cw.DropoutWrapper(Ones(D), output_keep_prob=0.5, seed=11)
    multi = cw.MultiRNNCell([wrapper, wrapper])
    out, _ = cw.dynamic_rnn(multi, torch.ones(4, B, D), dtype="float32", time_major=True)
    for step in range(4):
        mask = kept(11, "output", 0, (B, D), 0.5, draw=step)
        assert torch.equal(out[step], torch.where(mask, 4.0, 0.0))
    assert streams(wrapper) == {("output", 0, op): 4 * B * D for op in (0, 1)}


def test_a_direct_call_of_a_stack_is_one_run() -> None:
    wrapper = cw.DropoutWrapper(Ones(D), output_keep_prob=0.5, seed=11)
    multi = cw.MultiRNNCell([wrapper, cw.ResidualWrapper(wrapper, lambda x, y: y)])
    for draw in range(2):
        out, _ = multi(X, (X, X))
        assert torch.equal(out, torch.where(kept(11, "output", 0, (B, D), 0.5, draw=draw), 4.0, 0.0))
    assert streams(wrapper) == {("output", 0, op): 2 * B * D for op in (0, 1)}


def test_one_wrapper_forwards_and_backwards_is_two_ops() -> None:
    wrapper = cw.DropoutWrapper(Ones(D), output_keep_prob=0.5, seed=11)
    (forward, backward), _ = cw.bidirectional_dynamic_rnn(wrapper, wrapper, torch.ones(B, 4, D), dtype="float32")
    assert torch.equal(backward, forward.flip(1))
    assert streams(wrapper) == {("output", 0, op): 4 * B * D for op in (0, 1)}


def test_equal_seeds_give_equal_masks_and_wrappers_are_independent() -> None:
    cells = [cw.DropoutWrapper(Ones(D), output_keep_prob=0.5, seed=seed) for seed in (11, 11, 12)]
    outs = [cw.dynamic_rnn(cell, torch.ones(B, 4, D), dtype="float32")[0] for cell in cells]
    assert torch.equal(outs[0], outs[1]) and not torch.equal(outs[0], outs[2])
    stack = cw.MultiRNNCell([cw.DropoutWrapper(Ones(D), output_keep_prob=0.5, seed=11) for _ in range(2)])
    out, _ = cw.dynamic_rnn(stack, torch.ones(B, 4, D), dtype="float32")
    assert torch.equal(out, outs[0] * 2)


def test_wrappers_in_wrappers_apply_in_order() -> None:
    """Inner first for state and output, outer first for the input: each keeps its own streams."""
    cell = Ones(D)
    inner = cw.DropoutWrapper(cell, input_keep_prob=0.5, state_keep_prob=0.5, output_keep_prob=0.5, seed=1)
    outer = cw.DropoutWrapper(inner, input_keep_prob=0.25, state_keep_prob=0.25, output_keep_prob=0.25, seed=2)
    out, state = outer(X, X)
    shape = (B, D)
    both = [(kept(2, k, 0, shape, 0.25), kept(1, k, 0, shape, 0.5)) for k in ("input", "state", "output")]
    joint = [a & b for a, b in both]
    assert torch.equal(out, torch.where(joint[0] & joint[2], 64.0, 0.0))
    assert torch.equal(state, torch.where(joint[1], 8.0, 0.0))


def test_around_a_stack_only_the_last_output_is_dropped() -> None:
    cells = [Ones(D, cw.LSTMStateTuple(D, D)), Ones(D)]
    wrapper = cw.DropoutWrapper(cw.MultiRNNCell(cells), output_keep_prob=0.5, state_keep_prob=0.5, seed=11)
    zeros = wrapper.zero_state(B, "float32")
    out, state = wrapper(X, zeros)
    shape = (B, D)
    assert torch.equal(out != 0, kept(11, "output", 0, shape, 0.5))
    assert (state[0].c == 1).all()
    for leaf, index in ((state[0].h, 1), (state[1], 2)):
        assert torch.equal(leaf != 0, kept(11, "state", index, shape, 0.5))
    assert nest.picture(state) == "(LSTMStateTuple(c=*, h=*), *)"


def test_another_batch_size_goes_on_in_the_same_stream() -> None:
    wrapper = cw.DropoutWrapper(Ones(D), output_keep_prob=0.5, seed=11)
    wrapper(X, X)
    out, _ = wrapper(torch.ones(5, D), torch.ones(5, D))
    noise = uniform((5, D), "float32", *op_seeds(None, mask_seed(11, "output", 0)), 256 * B * D)
    assert torch.equal(out != 0, torch.tensor(noise >= 0.5))
    assert streams(wrapper) == {("output", 0, 0): (B + 5) * D}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_dtypes(dtype: str) -> None:
    real = getattr(torch, dtype)
    x = torch.ones(B, D, dtype=real)
    wrapper = cw.DropoutWrapper(Ones(D), input_keep_prob=0.7, state_keep_prob=0.7, seed=11)
    for draw in range(2):
        out, state = wrapper(x, x)
        assert out.dtype == state.dtype == real
        assert torch.equal(out != 0, kept(11, "input", 0, (B, D), 0.7, draw=draw, dtype=dtype))
        assert torch.equal(state != 0, kept(11, "state", 0, (B, D), 0.7, draw=draw, dtype=dtype))
    assert out.max().item() == pytest.approx(1 / float(np.float32(0.7)), rel=torch.finfo(real).eps * 2)


def test_only_floats_are_dropped() -> None:
    wrapper = cw.DropoutWrapper(Ones(D), input_keep_prob=0.5, seed=11)
    with pytest.raises(cw.ArgumentError, match="DropoutWrapper: expected a floating input.*int64"):
        wrapper(X.long(), X)


def test_no_rows_and_no_steps() -> None:
    wrapper = cw.DropoutWrapper(cw.GRUCell(D), **KEEP, seed=11)
    out, state = cw.dynamic_rnn(wrapper, torch.ones(0, 3, D), dtype="float32")
    assert out.shape == (0, 3, D) and state.shape == (0, D) and set(streams(wrapper).values()) == {0}
    out, state = cw.dynamic_rnn(wrapper, torch.ones(2, 0, D), dtype="float32")
    assert out.shape == (2, 0, D) and set(streams(wrapper).values()) == {0}


def test_a_static_unroll_without_steps_draws_nothing() -> None:
    wrapper = cw.DropoutWrapper(cw.GRUCell(D), **KEEP, seed=11)
    outs, _ = cw.static_rnn(wrapper, [X, X], dtype="float32", sequence_length=[0, -1, 0])
    assert not outs[1].any() and set(streams(wrapper).values()) <= {0}


def test_without_steps_not_even_a_seed_is_drawn() -> None:
    wrapper = cw.DropoutWrapper(Ones(D), **KEEP)
    before = torch.get_rng_state()
    cw.dynamic_rnn(wrapper, torch.ones(B, 0, D), dtype="float32")
    assert torch.equal(torch.get_rng_state(), before)


def test_gradient_is_mask_over_keep() -> None:
    x = X.clone().requires_grad_()
    wrapper = cw.DropoutWrapper(Ones(D), input_keep_prob=0.5, seed=11)
    wrapper(x, X)[0].sum().backward()
    assert torch.equal(x.grad, torch.where(kept(11, "input", 0, (B, D), 0.5), 2.0, 0.0))


def test_a_loop_inside_a_loop_goes_on_in_its_stream() -> None:
    """An op inside two loops is one op: its executions follow each other."""

    class TwoSteps(cw.RNNCell):
        state_size = D
        output_size = cw.TensorShape([2, D])

        def __init__(self, cell: Any) -> None:
            super().__init__()
            self.cell = cell

        def call(self, inputs: Any, state: Any) -> Any:
            return cw.dynamic_rnn(self.cell, torch.stack([inputs, inputs], 1), initial_state=state)

    wrapper = cw.DropoutWrapper(Ones(D), input_keep_prob=0.5, seed=11)
    out, _ = cw.dynamic_rnn(TwoSteps(wrapper), torch.ones(3, B, D), initial_state=X, time_major=True)
    drawn = out.transpose(1, 2).reshape(6, B, D)
    for draw in range(6):
        assert torch.equal(drawn[draw] != 0, kept(11, "input", 0, (B, D), 0.5, draw=draw))
    assert streams(wrapper) == {("input", 0, 0): 6 * B * D}
