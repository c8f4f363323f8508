"""Properties of unrolls over random compositions of cells and wrappers."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import assume, given

import cellweave as cw
from helpers import nest
from helpers.woven import assert_same_run
from oracles.unroll import reverse
from properties.compositions import DTYPE, Case, assert_same, cases, few, results, start_again, tables


def _unroll(case: Case, cell: Any, xs: torch.Tensor | None = None, **kwargs: Any) -> Any:
    arguments = {"sequence_length": case.lengths, "dtype": DTYPE} | kwargs
    return cw.dynamic_rnn(cell, case.inputs() if xs is None else xs, **arguments)


@few(60)
@given(cases())
def test_structures_and_shapes(case: Case) -> None:
    cell = case.cell()
    zeros = cell.get_initial_state(batch_size=case.batch, dtype=DTYPE)
    assert nest.picture(zeros) == nest.picture(cell.state_size)
    out, state = cell(case.inputs()[:, 0], zeros)
    assert nest.picture(state) == nest.picture(cell.state_size) and out.shape == (case.batch, cell.output_size)
    for leaf, size in zip(nest.flatten(state), nest.flatten(cell.state_size), strict=True):
        assert leaf.shape == (case.batch, size) and leaf.dtype == DTYPE
    out, state = _unroll(case, case.cell())
    assert nest.picture(state) == nest.picture(cell.state_size) and out.shape == (
        case.batch,
        case.time,
        cell.output_size,
    )


@few(60)
@given(cases("variational", full_length=True))
def test_an_unroll_is_stepping_by_hand(case: Case) -> None:
    """Calls outside any unroll are runs of their own: variational masks would be drawn anew."""
    cell = case.cell()
    with cw.use_backend("reference"):  # to the bit; for what is woven see test_weave
        expected = results(_unroll(case, cell))
    stood = tables(cell)
    cell, xs, outs = case.cell(), case.inputs(), []
    state = cell.get_initial_state(batch_size=case.batch, dtype=DTYPE)
    for step in range(case.time):
        out, state = cell(xs[:, step], state)
        outs.append(out)
    assert_same(results((torch.stack(outs, dim=1), state)), expected)
    assert_same(tables(cell), stood)


@few(60)
@given(cases())
def test_an_unroll_is_a_raw_loop(case: Case) -> None:
    ends = torch.tensor(case.lengths or [case.time] * case.batch)
    assume(bool(ends.any()))  # where no row has a step, an unroll runs one all the same
    cell = case.cell()
    with cw.use_backend("reference"):
        expected = results(_unroll(case, cell))
    stood = tables(cell)
    cell, xs = case.cell(), case.inputs()

    def loop(time: int, output: Any, state: Any, loop_state: Any) -> Any:
        if output is None:
            state = cell.get_initial_state(batch_size=case.batch, dtype=DTYPE)
        return time >= ends, xs[:, min(time, case.time - 1)], state, output, None

    emitted, state, _ = cw.raw_rnn(cell, loop)
    out = emitted.stack().transpose(0, 1)
    out = torch.cat([out, out.new_zeros(case.batch, case.time - out.shape[1], out.shape[2])], dim=1)
    assert_same(results((out, state)), expected)
    assert_same(tables(cell), stood)


@few(60)
@given(cases("per_step"))
def test_a_static_unroll_is_a_dynamic_one(case: Case) -> None:
    """Where no mask is drawn per step: static steps are ops of their own, which start at one place."""
    for backend in ("reference", None):
        with cw.use_backend(backend):
            expected = results(_unroll(case, case.cell()))
            outs, state = cw.static_rnn(case.cell(), list(case.inputs().unbind(1)), None, DTYPE, case.lengths)
        assert_same_run(backend, results((torch.stack(outs, dim=1), state)), expected)


@few(60)
@given(cases())
def test_batch_major_is_time_major(case: Case) -> None:
    out, state = _unroll(case, case.cell())
    other, other_state = _unroll(case, case.cell(), case.inputs().transpose(0, 1), time_major=True)
    assert_same(results((other.transpose(0, 1), other_state)), results((out, state)))


@few(60)
@given(cases(), cases())
def test_bidirectional_is_two_unrolls(case: Case, other: Case) -> None:
    xs, lengths = case.inputs(), case.lengths

    def cells() -> list[Any]:
        start_again()
        torch.manual_seed(7)
        made = [tree.make(case.depth) for tree in (case.tree, other.tree)]
        for cell in made:
            cell.build([case.batch, case.depth])
        start_again()
        return made

    outs, states = cw.bidirectional_dynamic_rnn(*cells(), xs, lengths, dtype=DTYPE)
    fw, bw = cells()
    out_fw, state_fw = cw.dynamic_rnn(fw, xs, lengths, dtype=DTYPE)
    flipped = torch.tensor(reverse(xs.transpose(0, 1).numpy(), lengths).copy())
    out_bw, state_bw = cw.dynamic_rnn(bw, flipped, lengths, dtype=DTYPE, time_major=True)
    back = torch.tensor(reverse(out_bw.detach().numpy(), lengths).copy()).transpose(0, 1)
    assert_same(results((outs, states)), results(((out_fw, back), (state_fw, state_bw))))


@few(60)
@given(cases())
def test_what_follows_a_rows_end_changes_nothing(case: Case) -> None:
    """More steps, of any content: outputs, states, draws and gradients stay as they are."""
    lengths = case.lengths or [case.time] * case.batch
    found = []
    for extra, content in ((0, 0.0), (2, 1e6), (3, float("nan"))):
        cell, xs = case.cell(), torch.cat([case.inputs(), case.inputs(extra)], dim=1)
        for row, length in enumerate(lengths):
            xs[row, length:] = content
        xs.requires_grad_()
        out, state = _unroll(case, cell, xs, sequence_length=lengths)
        assert out.shape[1] == case.time + extra and not out[:, case.time :].any()
        loss = sum(leaf.square().sum() for leaf in [out, *nest.flatten(state)])
        weights = list(cell.parameters())
        grads = torch.autograd.grad(loss, [xs, *weights], allow_unused=True, materialize_grads=True)
        for row, length in enumerate(lengths):
            assert not grads[0][row, length:].any()
        kept = [out[:, : case.time], *nest.flatten(state), grads[0][:, : case.time], *grads[1:], *tables(cell)]
        found.append(kept)
    assert_same(found[1], found[0])
    assert_same(found[2], found[0])


@few(60)
@given(cases("variational"))
def test_two_unrolls_are_one_with_the_state_carried(case: Case) -> None:
    """A sequence cut in two: state and streams go on, except for what is drawn once per run."""
    xs = case.inputs(case.time + 1)
    for backend in ("reference", None):
        with cw.use_backend(backend):
            expected = results(cw.dynamic_rnn(case.cell(), xs, dtype=DTYPE))
            cell = case.cell()
            first, state = cw.dynamic_rnn(cell, xs[:, :1], dtype=DTYPE)
            second, state = cw.dynamic_rnn(cell, xs[:, 1:], initial_state=state)
        assert_same_run(backend, results((torch.cat([first, second], dim=1), state)), expected)


@few(60)
@given(cases("fed"))
def test_evaluation_is_repeatable_and_draws_nothing(case: Case) -> None:
    cell = case.cell().eval()
    before = torch.get_rng_state()
    first = results(_unroll(case, cell))
    assert_same(results(_unroll(case, cell)), first)
    assert not any(m.get_extra_state().numel() for m in cell.modules() if isinstance(m, cw.DropoutWrapper))
    assert torch.equal(torch.get_rng_state(), before)
