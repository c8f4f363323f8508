"""The reference over sequences: step by step it does what the cells and wrappers do."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import cellweave as cw
from cellweave.ops import gru, lstm
from cellweave.ops.common import BoundMask, LayerCall, reference_sequence
from cellweave.ops.common._sequence import reading_order
from cellweave.specs import GRUSpec, LSTMSpec, MaskSpec, RNNSpec, RunSpec
from helpers.tolerances import assert_same_bits

LENGTHS = torch.tensor([5, 0, 3], dtype=torch.int32)


def _counting(x: torch.Tensor, state: Any) -> Any:
    """A cell that adds up its inputs: what it saw can be read from its state."""
    return (state[0] + x,)


def _call(x: torch.Tensor, **options: Any) -> LayerCall:
    flags = {name: options.pop(name) for name in ("residual", "reverse", "all_states") if name in options}
    masks = options.get("masks", ())
    run = RunSpec(
        RNNSpec(1), tuple(m.spec for m in masks), lengths="lengths" in options, resets="resets" in options, **flags
    )
    return LayerCall(run, x, (torch.zeros(x.shape[1], x.shape[2]),), {}, **options)


def _numbered(T: int = 5, B: int = 3) -> torch.Tensor:
    return (torch.arange(T)[:, None] + 1.0 + 10 * torch.arange(B))[:, :, None]


def test_the_bits_of_the_stepwise_lstm() -> None:
    cell = cw.LSTMCell(6, use_peepholes=True, num_proj=4, proj_clip=0.3, dtype="float32")
    x, state = torch.randn(5, 3, 4), cw.LSTMStateTuple(torch.randn(3, 6), torch.randn(3, 4))
    with cw.use_backend("reference"):
        out, last = cw.dynamic_rnn(cell, x, sequence_length=LENGTHS, initial_state=state, time_major=True)
    spec = LSTMSpec(6, peepholes=True, projection=4, proj_clip=0.3, forget_bias=1.0)
    names = [weight.name for weight in spec.weights(4)]
    call = LayerCall(
        RunSpec(spec, lengths=True), x, tuple(state), dict(zip(names, cell.weights, strict=True)), lengths=LENGTHS
    )
    got, got_last, _ = lstm.BACKENDS[-1].run(call)
    for what, a, b in zip(("out", "c", "h"), (got, *got_last), (out, *last), strict=True):
        assert_same_bits(what, a, b)


def test_the_bits_of_a_wrapped_gru() -> None:
    """Masks of a DropoutWrapper bound by hand, and a residual, against the wrappers' own loop."""
    cell = cw.GRUCell(4, dtype="float32")
    wrapped = cw.ResidualWrapper(cw.DropoutWrapper(cell, 0.8, 0.7, 0.9, seed=3))
    x, h = torch.randn(5, 3, 4), torch.randn(3, 4)
    with cw.use_backend("reference"):
        out, last = cw.dynamic_rnn(wrapped, x, sequence_length=LENGTHS, initial_state=h, time_major=True)
    streams = wrapped.cell.streams.table
    masks = []
    for kind, place, keep in (("input", "input", 0.8), ("state", "h", 0.9), ("output", "output", 0.7)):
        stream = next(streams.get(site, lambda: (0, 0)) for site in streams.sites() if site.kind == kind)
        start = stream.block - 5 * 256 * 12
        rounded = float(torch.tensor(keep))
        masks.append(BoundMask(MaskSpec(place, True, True), rounded, False, stream.seed, stream.seed2, start, 256 * 12))
    run = RunSpec(GRUSpec(4), tuple(mask.spec for mask in masks), residual=True, lengths=True)
    names = [weight.name for weight in run.cell.weights(4)]
    call = LayerCall(run, x, (h,), dict(zip(names, cell.weights, strict=True)), tuple(masks), LENGTHS)
    got, (got_last,), _ = gru.BACKENDS[-1].run(call)
    assert_same_bits("out", got, out)
    assert_same_bits("last", got_last, last)


def test_lengths() -> None:
    x = _numbered()
    x[3:, 2] = float("nan")
    out, (last,), _ = reference_sequence(_counting, _call(x, lengths=LENGTHS))
    assert out[:, 2, 0].tolist() == [21.0, 43.0, 66.0, 0.0, 0.0]
    assert not out[:, 1].any() and last[:, 0].tolist() == [15.0, 0.0, 66.0]


def test_backwards_from_each_rows_end() -> None:
    out, (last,), _ = reference_sequence(_counting, _call(_numbered(), lengths=LENGTHS, reverse=True))
    assert out[:, 2, 0].tolist() == [66.0, 45.0, 23.0, 0.0, 0.0]
    assert last[:, 0].tolist() == [15.0, 0.0, 66.0]
    out, _, _ = reference_sequence(_counting, _call(_numbered(), reverse=True))
    assert out[:, 0, 0].tolist() == [15.0, 14.0, 12.0, 9.0, 5.0]


@pytest.mark.parametrize("reverse", [False, True])
def test_resets_by_memory_index(reverse: bool) -> None:
    resets = torch.zeros(5, 3, dtype=torch.bool)
    resets[2, 0] = resets[4, 2] = True  # the second lies past its row's end
    options = {"lengths": LENGTHS, "resets": resets, "reset_state": (torch.full((3, 1), 100.0),), "reverse": reverse}
    out, (last,), _ = reference_sequence(_counting, _call(_numbered(), **options))
    wanted = [106.0, 105.0, 103.0, 9.0, 5.0] if reverse else [1.0, 3.0, 103.0, 107.0, 112.0]
    assert out[:, 0, 0].tolist() == wanted
    assert last[:, 0].tolist() == [106.0 if reverse else 112.0, 0.0, 66.0]
    out, _, _ = reference_sequence(_counting, _call(_numbered(), resets=resets, reverse=reverse))
    assert out[2, 0].item() == 3.0


def test_a_residual_is_the_unmasked_input() -> None:
    mask = BoundMask(MaskSpec("input", False, False), 0.5, True, noise=torch.zeros(1, 1))
    x = _numbered()
    out, _, _ = reference_sequence(_counting, _call(x, masks=(mask,), residual=True, lengths=LENGTHS))
    assert torch.equal(out, torch.where(torch.arange(5)[:, None, None] < LENGTHS[:, None], x, torch.zeros(())))


def test_masks_count_a_rows_own_steps() -> None:
    mask = BoundMask(MaskSpec("output", True, True), 0.5, False, 1, 2, 3, 256 * 3)
    x = torch.ones(5, 3, 1)
    forwards, _, _ = reference_sequence(lambda x, _: (x,), _call(x, masks=(mask,)))
    backwards, _, _ = reference_sequence(lambda x, _: (x,), _call(x, masks=(mask,), lengths=LENGTHS, reverse=True))
    assert torch.equal(backwards[:, 0], forwards[:, 0].flip(0))
    assert torch.equal(backwards[:3, 2], forwards[:3, 2].flip(0)) and forwards.unique().tolist() == [0.0, 2.0]


def _zone(keep: float, **options: Any) -> BoundMask:
    return BoundMask(MaskSpec("zone_h", "noise" not in options, True), keep, True, **options)


def test_zoneout_keeps_the_operand_of_the_step() -> None:
    """What stays is the state that the step started from: after a reset, not before."""
    x, resets = _numbered(B=1), torch.zeros(5, 1, dtype=torch.bool)
    resets[2, 0] = True
    options: dict[str, Any] = {"resets": resets, "reset_state": (torch.full((1, 1), 100.0),)}
    out, (last,), _ = reference_sequence(_counting, _call(x, masks=(_zone(0.0, noise=torch.zeros(1, 1)),), **options))
    assert out.flatten().tolist() == [0.0, 0.0, 100.0, 100.0, 100.0] and last.item() == 100.0
    out, _, _ = reference_sequence(_counting, _call(x, masks=(_zone(0.5, expected=True),), **options))
    assert out.flatten().tolist() == [0.5, 1.5, 101.5, 103.5, 106.0]


def test_the_output_is_the_new_state_and_masks_come_after_it() -> None:
    masks = (_zone(0.25, expected=True), BoundMask(MaskSpec("h", False, False), 0.5, True, noise=torch.ones(1, 1)))
    out, (last,), (states,) = reference_sequence(_counting, _call(_numbered(2, 1), masks=masks, all_states=True))
    assert out.flatten().tolist() == [0.25, 1.0] and states.flatten().tolist() == [0.5, 2.0] and last.item() == 2.0


def test_zoneout_on_c_leaves_h_to_the_new_c() -> None:
    spec = LSTMSpec(4)
    weights = {weight.name: torch.randn(weight.shape) for weight in spec.weights(3)}
    state, x = (torch.randn(2, 4), torch.randn(2, 4)), torch.randn(1, 2, 3)
    plain, _, _ = lstm.BACKENDS[-1].run(LayerCall(RunSpec(spec), x, state, weights))
    mask = BoundMask(MaskSpec("zone_c", True, True), 0.0, False)
    run = RunSpec(spec, (mask.spec,), all_states=True)
    out, last, states = lstm.BACKENDS[-1].run(LayerCall(run, x, state, weights, (mask,)))
    assert torch.equal(out, plain) and torch.equal(last[0], state[0]) and torch.equal(last[1], out[0])
    assert torch.equal(states[0][0], state[0]) and torch.equal(states[1], out)


@pytest.mark.parametrize("reverse", [False, True])
def test_all_states_stand_before_the_reset_that_follows(reverse: bool) -> None:
    resets = torch.zeros(5, 3, dtype=torch.bool)
    resets[2, 0] = True
    call = _call(_numbered(), lengths=LENGTHS, resets=resets, reverse=reverse, residual=True, all_states=True)
    out, (last,), (states,) = reference_sequence(_counting, call)
    assert states[:, 0, 0].tolist() == ([6.0, 5.0, 3.0, 9.0, 5.0] if reverse else [1.0, 3.0, 3.0, 7.0, 12.0])
    assert torch.equal(states[0 if reverse else 4, 0], last[0]) and torch.equal(states[3:, 2], last[2].expand(2, 1))
    assert torch.equal(states[:, 1], call.state[0][1].expand(5, 1))
    assert torch.equal(out[:3, 2], (call.x + states)[:3, 2])
    assert reference_sequence(_counting, _call(_numbered(), lengths=LENGTHS)).states == ()


def test_no_steps() -> None:
    options = {"lengths": torch.zeros(3, dtype=torch.int32), "resets": torch.zeros(0, 3).bool()}
    call = _call(torch.zeros(0, 3, 1), all_states=True, **options)
    out, last, (states,) = reference_sequence(_counting, call)
    assert list(out.shape) == [0, 3, 1] and last is call.state and list(states.shape) == [0, 3, 1]


def test_reading_order_undoes_itself() -> None:
    order = reading_order(LENGTHS, 5, torch.device("cpu"))
    assert order.tolist() == [[4, 0, 2], [3, 1, 1], [2, 2, 0], [1, 3, 3], [0, 4, 4]]
    assert torch.equal(order.gather(0, order), torch.arange(5)[:, None].expand(5, 3))
