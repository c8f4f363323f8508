"""The elementwise part of one LSTM step as Triton kernels: what runs between two products.

Without a projection a step is one product and one kernel. With one it is two of each: `lstm_fwd_step` makes c and the h
that is projected, `lstm_fwd_output` takes it from there; backward the other way round.
"""

from __future__ import annotations

import triton
import triton.language as tl

from cellweave.ops.common._triton_device import (
    activated,
    at_least,
    at_most,
    hand_back,
    hand_on,
    join_four,
    row_lengths,
    split_four,
    step_rows,
)
from cellweave.ops.common._triton_step_device import (
    enter_step,
    finish_step,
    gate_columns,
    leave_step,
    normalized,
    normalized_back,
    overwrite,
    step_at,
    step_factors,
    tile_of,
    unfinish_step,
)
from cellweave.ops.lstm._triton_cell import (
    cell_backward,
    cell_forward,
    clipped,
    load_diagonals,
    output_backward,
    output_gate,
    step_forward,
)

#: Places of masks, as `_triton_masks.PLACES` numbers them.
_C, _ZONE_C = tl.constexpr(2), tl.constexpr(5)


@triton.jit
def _normalized_gates(i, j, f, o, norms, units, inside, H: tl.constexpr, epsilon, NORM: tl.constexpr):
    """The gates' totals normalized; as they are where nothing is."""
    i = normalized(i, norms, 0, units, inside, H, epsilon, NORM)
    j = normalized(j, norms, 1, units, inside, H, epsilon, NORM)
    f = normalized(f, norms, 2, units, inside, H, epsilon, NORM)
    return i, j, f, normalized(o, norms, 3, units, inside, H, epsilon, NORM)


@triton.jit(do_not_specialize=["T", "B", "step"])
def lstm_fwd_step(
    x_gates, product, peephole, norms, reset_h, reset_c, lengths, resets, table, scales, given, h, c, m, out, hs, cs,
    gates, ms, all_h, all_c, T, B, step, clock, forget_bias, cell_clip, epsilon,
    H: tl.constexpr, ROWS: tl.constexpr, U: tl.constexpr, NORM: tl.constexpr,
    ACTIVATION: tl.constexpr, GATE_ACTIVATION: tl.constexpr, COUPLED: tl.constexpr, PEEPHOLES: tl.constexpr,
    CLIP: tl.constexpr, PROJECTION: tl.constexpr, LENGTHS: tl.constexpr, RESETS: tl.constexpr,
    GIVEN_RESETS: tl.constexpr, REVERSE: tl.constexpr, COUNT: tl.constexpr, KINDS: tl.constexpr, BITS: tl.constexpr,
    ZONE_H: tl.constexpr, ZONE_C: tl.constexpr, SAVE: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    """A step from its products to c and, without a projection, h.

    Args:
        product: Of h and the recurrent weight, `[B, 4H]`. norms: Gamma and beta of i, j, f, o, c, `[10, H]`. h, c:
            State, `[B, H]`, c in float32; overwritten. m: h before its projection, `[B, H]`. The rest as
            `lstm_fwd_persistent` has it; gates that are normalized are kept as totals.
    """
    step = step_at(step, clock)
    rows, here, units, inside = tile_of(B, H, ROWS, U)
    columns = gate_columns(4, H, U)
    in_gates = here[:, None] & (columns < 4 * H)[None, :]
    length = row_lengths(lengths, rows, here, T, LENGTHS)
    first, near = step_rows(step, T, B, length, rows, LENGTHS, REVERSE)
    at, there = rows[:, None] * H + units[None, :], first * H + near[:, None] * H + units[None, :]
    at_gates = first * (4 * H) + near[:, None] * (4 * H) + columns[None, :]
    total = tl.load(x_gates + at_gates, mask=in_gates, other=0.0).to(tl.float32)
    total += tl.load(product + rows[:, None] * (4 * H) + columns[None, :], mask=in_gates, other=0.0).to(tl.float32)
    old_c = tl.load(c + at, mask=inside, other=0.0)
    i, j, f, o = split_four(total, ROWS, U)
    diagonal_f, diagonal_i, diagonal_o = load_diagonals(peephole, units, H, PEEPHOLES)
    i, j, f, o = _normalized_gates(i, j, f, o, norms, units, inside, H, epsilon, NORM)
    i, j, f, total_c = cell_forward(
        i, j, f, old_c, diagonal_f, diagonal_i, forget_bias, ACTIVATION, GATE_ACTIVATION, COUPLED, PEEPHOLES
    )
    new_c = clipped(normalized(total_c, norms, 4, units, inside, H, epsilon, NORM), cell_clip, CLIP)
    o = output_gate(o, new_c, diagonal_o, GATE_ACTIVATION, PEEPHOLES)
    new_h = o * activated(new_c, ACTIVATION)
    if gates is not None:
        if not NORM:
            total = join_four(i, j, f, o, ROWS, U)
        tl.store(gates + at_gates, total.to(gates.dtype.element_ty), mask=in_gates)
    keep = step_factors(table, scales, given, step, rows, units, inside, H, _C, COUNT, KINDS, BITS)
    zone = step_factors(table, scales, given, step, rows, units, inside, H, _ZONE_C, COUNT, KINDS, BITS)
    _, state = hand_on(new_c, old_c, keep, keep, zone, (step < length)[:, None], ZONE_C)
    if STATES:
        tl.store(all_c + there, state.to(all_c.dtype.element_ty), mask=inside)
    enter_step(
        state, c, cs, reset_c, resets, step + 1, T, B, length, rows, here, units, inside, H,
        LENGTHS, RESETS, GIVEN_RESETS, REVERSE, SAVE,
    )  # fmt: skip
    if PROJECTION:
        tl.store(m + at, new_h.to(m.dtype.element_ty), mask=inside)
        if SAVE:
            tl.store(ms + there, new_h.to(ms.dtype.element_ty), mask=inside)
    else:
        finish_step(
            new_h, h, hs, reset_h, resets, out, all_h, table, scales, given, step, T, B, length, rows, here, units,
            inside, H, LENGTHS, RESETS, GIVEN_RESETS, REVERSE, COUNT, KINDS, BITS, ZONE_H, STATES, SAVE,
        )  # fmt: skip


@triton.jit(do_not_specialize=["T", "B", "step"])
def lstm_fwd_output(
    projected, reset_h, lengths, resets, table, scales, given, h, out, hs, raw, all_h, T, B, step, clock, proj_clip,
    P: tl.constexpr, ROWS: tl.constexpr, U: tl.constexpr, PROJ_CLIP: tl.constexpr,
    LENGTHS: tl.constexpr, RESETS: tl.constexpr, GIVEN_RESETS: tl.constexpr, REVERSE: tl.constexpr,
    COUNT: tl.constexpr, KINDS: tl.constexpr, BITS: tl.constexpr, ZONE_H: tl.constexpr, SAVE: tl.constexpr,
    STATES: tl.constexpr,
):  # fmt: skip
    """A step from its projected h, `[B, P]`, to h."""
    step = step_at(step, clock)
    rows, here, places, inside = tile_of(B, P, ROWS, U)
    length = row_lengths(lengths, rows, here, T, LENGTHS)
    new_h = tl.load(projected + rows[:, None] * P + places[None, :], mask=inside, other=0.0).to(tl.float32)
    if PROJ_CLIP:
        if SAVE:
            first, near = step_rows(step, T, B, length, rows, LENGTHS, REVERSE)
            there = first * P + near[:, None] * P + places[None, :]
            tl.store(raw + there, new_h.to(raw.dtype.element_ty), mask=inside)
        new_h = at_most(at_least(new_h, -proj_clip), proj_clip)
    finish_step(
        new_h, h, hs, reset_h, resets, out, all_h, table, scales, given, step, T, B, length, rows, here, places,
        inside, P, LENGTHS, RESETS, GIVEN_RESETS, REVERSE, COUNT, KINDS, BITS, ZONE_H, STATES, SAVE,
    )  # fmt: skip


@triton.jit(do_not_specialize=["T", "B", "step"])
def lstm_bwd_output(
    product, lengths, resets, table, scales, given, raw, d_out, d_all_h, past_h, sum_reset_h, d_projected, d_raw,
    T, B, step, clock, proj_clip,
    P: tl.constexpr, ROWS: tl.constexpr, U: tl.constexpr, PROJ_CLIP: tl.constexpr,
    LENGTHS: tl.constexpr, RESETS: tl.constexpr, GIVEN_RESETS: tl.constexpr, REVERSE: tl.constexpr,
    COUNT: tl.constexpr, KINDS: tl.constexpr, BITS: tl.constexpr, ZONE_H: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    """The gradient of a step's projected h before its clip: `d_raw [B, P]`, and by memory index `d_projected`.

    Args:
        product: Of the later step's gates' gradients and the recurrent weight, `[B, P]`. past_h: float32, what else
            reaches h; overwritten. sum_reset_h: float32, of given states; added to.
    """
    step = step_at(step, clock)
    rows, here, places, inside = tile_of(B, P, ROWS, U)
    length = row_lengths(lengths, rows, here, T, LENGTHS)
    d_h, d_old = unfinish_step(
        past_h, product, sum_reset_h, resets, d_out, d_all_h, table, scales, given, step, T, B, length, rows, here,
        places, inside, P, LENGTHS, RESETS, GIVEN_RESETS, REVERSE, COUNT, KINDS, BITS, ZONE_H, STATES,
    )  # fmt: skip
    first, near = step_rows(step, T, B, length, rows, LENGTHS, REVERSE)
    at, there = rows[:, None] * P + places[None, :], first * P + near[:, None] * P + places[None, :]
    if PROJ_CLIP:
        before = tl.load(raw + there, mask=inside, other=0.0).to(tl.float32)
        d_h = tl.where(tl.abs(before) <= proj_clip, d_h, 0.0)
    overwrite(past_h + at, d_old, inside)
    tl.store(d_raw + at, d_h.to(d_raw.dtype.element_ty), mask=inside)
    tl.store(d_projected + there, d_h.to(d_projected.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["T", "B", "step"])
def lstm_bwd_step(
    product, d_m, peephole, norms, lengths, resets, table, scales, given, cs, gates, d_out, d_all_h, d_all_c, past_h,
    d_c, sum_reset_h, sum_reset_c, d_peephole, d_norms, d_gates, d_totals, T, B, step, clock, forget_bias, cell_clip,
    epsilon,
    H: tl.constexpr, ROWS: tl.constexpr, U: tl.constexpr, NORM: tl.constexpr,
    ACTIVATION: tl.constexpr, GATE_ACTIVATION: tl.constexpr, COUPLED: tl.constexpr, PEEPHOLES: tl.constexpr,
    CLIP: tl.constexpr, PROJECTION: tl.constexpr, LENGTHS: tl.constexpr, RESETS: tl.constexpr,
    GIVEN_RESETS: tl.constexpr, REVERSE: tl.constexpr, COUNT: tl.constexpr, KINDS: tl.constexpr, BITS: tl.constexpr,
    ZONE_H: tl.constexpr, ZONE_C: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    """Gradients of a step's totals, `d_totals [B, 4H]` and by memory index `d_gates`, and of its old c.

    Args:
        product, past_h, sum_reset_h, sum_reset_c: As in `lstm_bwd_output`, which takes the first three under a
            projection. d_m: Gradient of h before its projection, `[B, H]`. d_c: float32, of c; overwritten.
            d_peephole, d_norms: float32 `[3, B, H]`, `[10, B, H]`; added to.
    """
    step = step_at(step, clock)
    rows, here, units, inside = tile_of(B, H, ROWS, U)
    columns = gate_columns(4, H, U)
    in_gates = here[:, None] & (columns < 4 * H)[None, :]
    length = row_lengths(lengths, rows, here, T, LENGTHS)
    first, near = step_rows(step, T, B, length, rows, LENGTHS, REVERSE)
    at, there = rows[:, None] * H + units[None, :], first * H + near[:, None] * H + units[None, :]
    at_gates = first * (4 * H) + near[:, None] * (4 * H) + columns[None, :]
    if PROJECTION:
        d_new_h = tl.load(d_m + at, mask=inside, other=0.0).to(tl.float32)
    else:
        d_new_h, d_old_h = unfinish_step(
            past_h, product, sum_reset_h, resets, d_out, d_all_h, table, scales, given, step, T, B, length, rows, here,
            units, inside, H, LENGTHS, RESETS, GIVEN_RESETS, REVERSE, COUNT, KINDS, BITS, ZONE_H, STATES,
        )  # fmt: skip
    d_state = tl.load(d_c + at, mask=inside, other=0.0)
    if STATES:
        d_state += tl.load(d_all_c + there, mask=inside, other=0.0).to(tl.float32)
    keep = step_factors(table, scales, given, step, rows, units, inside, H, _C, COUNT, KINDS, BITS)
    zone = step_factors(table, scales, given, step, rows, units, inside, H, _ZONE_C, COUNT, KINDS, BITS)
    d_new_c, d_past_c = hand_back(d_state, tl.zeros_like(d_state), keep, keep, zone, (step < length)[:, None], ZONE_C)
    old_c = tl.load(cs + there, mask=inside, other=0.0)
    of_i, of_j, of_f, of_o = split_four(tl.load(gates + at_gates, mask=in_gates, other=0.0).to(tl.float32), ROWS, U)
    diagonal_f, diagonal_i, diagonal_o = load_diagonals(peephole, units, H, PEEPHOLES)
    i, j, f, o = _normalized_gates(of_i, of_j, of_f, of_o, norms, units, inside, H, epsilon, NORM)
    if NORM:
        i, j, f, total_c = cell_forward(
            i, j, f, old_c, diagonal_f, diagonal_i, forget_bias, ACTIVATION, GATE_ACTIVATION, COUPLED, PEEPHOLES
        )
    else:
        total_c = f * old_c + i * j
    wide_c = normalized(total_c, norms, 4, units, inside, H, epsilon, NORM)
    new_c = clipped(wide_c, cell_clip, CLIP)
    if NORM:
        o = output_gate(o, new_c, diagonal_o, GATE_ACTIVATION, PEEPHOLES)
    d_o, d_wide_c = output_backward(
        d_new_h, d_new_c, o, wide_c, new_c, diagonal_o, cell_clip, ACTIVATION, GATE_ACTIVATION, PEEPHOLES, CLIP
    )
    d_total_c = normalized_back(d_wide_c, total_c, norms, d_norms, 4, B, rows, units, inside, H, epsilon, NORM)
    d_i, d_j, d_f, d_old_c = cell_backward(
        d_total_c, i, j, f, old_c, diagonal_f, diagonal_i, ACTIVATION, GATE_ACTIVATION, COUPLED, PEEPHOLES
    )
    if PEEPHOLES:
        sums, size = d_peephole + at, B.to(tl.int64) * H
        tl.store(sums, tl.load(sums, mask=inside, other=0.0) + d_f * old_c, mask=inside)
        tl.store(sums + size, tl.load(sums + size, mask=inside, other=0.0) + d_i * old_c, mask=inside)
        tl.store(sums + 2 * size, tl.load(sums + 2 * size, mask=inside, other=0.0) + d_o * new_c, mask=inside)
    d_i = normalized_back(d_i, of_i, norms, d_norms, 0, B, rows, units, inside, H, epsilon, NORM)
    d_j = normalized_back(d_j, of_j, norms, d_norms, 1, B, rows, units, inside, H, epsilon, NORM)
    d_f = normalized_back(d_f, of_f, norms, d_norms, 2, B, rows, units, inside, H, epsilon, NORM)
    d_o = normalized_back(d_o, of_o, norms, d_norms, 3, B, rows, units, inside, H, epsilon, NORM)
    tile = join_four(d_i, d_j, d_f, d_o, ROWS, U)
    tl.store(d_totals + rows[:, None] * (4 * H) + columns[None, :], tile.to(d_totals.dtype.element_ty), mask=in_gates)
    overwrite(d_gates + at_gates, tile, in_gates)  # where gates were computed again
    d_old_c = leave_step(
        d_old_c + d_past_c, sum_reset_c, resets, step, T, B, length, rows, here, units, inside, H,
        LENGTHS, RESETS, GIVEN_RESETS, REVERSE,
    )  # fmt: skip
    overwrite(d_c + at, d_old_c, inside)
    if not PROJECTION:
        overwrite(past_h + at, d_old_h, inside)


@triton.jit(do_not_specialize=["B"])
def lstm_gates_again(
    gates, peephole, cs, B, forget_bias, cell_clip, H: tl.constexpr, ROWS: tl.constexpr, U: tl.constexpr,
    ACTIVATION: tl.constexpr, GATE_ACTIVATION: tl.constexpr, COUPLED: tl.constexpr, PEEPHOLES: tl.constexpr,
    CLIP: tl.constexpr,
):  # fmt: skip
    """Totals `[B, 4H]` become activated gates, in place; B are the rows of all steps, `cs` float32 their old c."""
    rows, here, units, inside = tile_of(B, H, ROWS, U)
    columns = gate_columns(4, H, U)
    in_gates = here[:, None] & (columns < 4 * H)[None, :]
    at_gates = gates + rows[:, None] * (4 * H) + columns[None, :]
    old_c = tl.load(cs + rows[:, None] * H + units[None, :], mask=inside, other=0.0)
    i, j, f, o = split_four(tl.load(at_gates, mask=in_gates, other=0.0).to(tl.float32), ROWS, U)
    diagonal_f, diagonal_i, diagonal_o = load_diagonals(peephole, units, H, PEEPHOLES)
    i, j, f, o, _, _ = step_forward(
        i, j, f, o, old_c, diagonal_f, diagonal_i, diagonal_o, forget_bias, cell_clip,
        ACTIVATION, GATE_ACTIVATION, COUPLED, PEEPHOLES, CLIP,
    )  # fmt: skip
    overwrite(at_gates, join_four(i, j, f, o, ROWS, U), in_gates)
