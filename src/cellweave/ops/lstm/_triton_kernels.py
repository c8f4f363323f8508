"""The time loops of the LSTM as Triton kernels: forward, and backward to the gates.

One launch runs a whole sequence. Program `part` of a group owns U units of the cell and V units of h, keeps its slice
of the recurrent weights on chip, and meets the others of its group once per step (twice under a projection). Gates lie
as `4 * unit + gate` in order i, j, f, o; all buffers by memory index, whatever the direction.
"""

from __future__ import annotations

import triton
import triton.language as tl

from cellweave.ops.common._triton_device import (
    arrive,
    at_least,
    at_most,
    begins_anew,
    factors,
    hand_back,
    hand_on,
    join_four,
    load_operand,
    load_weights,
    multiply,
    reset_to,
    row_lengths,
    split_four,
    step_rows,
    wait,
)
from cellweave.ops.lstm._triton_cell import load_diagonals, step_backward, step_forward

#: Places of masks, as `_triton_masks.PLACES` numbers them.
_H, _C, _OUTPUT, _ZONE_H, _ZONE_C = (tl.constexpr(place) for place in (1, 2, 3, 4, 5))


@triton.jit(do_not_specialize=["T", "B"])
def lstm_fwd_persistent(
    x_gates, weight, h0, c0, reset_h, reset_c, lengths, resets, peephole, projection,
    table, scales, given, out, hs, cs, gates, ms, raw, h_last, c_last, all_h, all_c, counters,
    T, B, forget_bias, cell_clip, proj_clip,
    H: tl.constexpr, P: tl.constexpr, ROWS: tl.constexpr, U: tl.constexpr, V: tl.constexpr, PROGRAMS: tl.constexpr,
    K1: tl.constexpr, K2: tl.constexpr, SPLIT: tl.constexpr, M1: tl.constexpr, M2: tl.constexpr,
    ACTIVATION: tl.constexpr, GATE_ACTIVATION: tl.constexpr, COUPLED: tl.constexpr, PEEPHOLES: tl.constexpr,
    CLIP: tl.constexpr, PROJECTION: tl.constexpr, PROJ_CLIP: tl.constexpr, LENGTHS: tl.constexpr,
    RESETS: tl.constexpr, GIVEN_RESETS: tl.constexpr, REVERSE: tl.constexpr, COUNT: tl.constexpr, KINDS: tl.constexpr,
    BITS: tl.constexpr, ZONE_H: tl.constexpr, ZONE_C: tl.constexpr, SAVE: tl.constexpr, STATES: tl.constexpr,
    PRECISION: tl.constexpr, SPINS: tl.constexpr,
):  # fmt: skip
    """Outputs, last state and what backward needs.

    Args:
        x_gates: Input products with biases `[T, B, 4H]`. weight: `[P, 4H]`. h0, reset_h: `[B, P]`. c0, reset_c:
            `[B, H]`. peephole: `[3, H]` for f, i, o. projection: `[H, P]`. table, scales, given: The masks.
        out: `[T, B, P]`. hs, cs: Operands of each step after its reset, `[T, B, P]` and float32 `[T, B, H]`. gates:
            Activated, `[T, B, 4H]`. ms, raw: h before its projection `[T, B, H]`, and after it before its clip
            `[T, B, P]`. all_h, all_c: State after each step. counters: int32 `[groups, 2]`, zeros.
    """
    part = tl.program_id(0) % PROGRAMS
    rows = (tl.program_id(0) // PROGRAMS) * ROWS + tl.arange(0, ROWS)
    counter = counters + (tl.program_id(0) // PROGRAMS) * 2
    here = rows < B
    units, places = part * U + tl.arange(0, U), part * V + tl.arange(0, V)
    columns = part * (4 * U) + tl.arange(0, 4 * U)
    in_c, in_h = here[:, None] & (units < H)[None, :], here[:, None] & (places < P)[None, :]
    in_gates = here[:, None] & (columns < 4 * H)[None, :]
    at_c, at_h = rows[:, None] * H + units[None, :], rows[:, None] * P + places[None, :]

    weight1 = load_weights(weight, 0, P, 4 * H, 1, columns, columns < 4 * H, K1, SPLIT)
    if K2 > 0:
        weight2 = load_weights(weight, K1, P, 4 * H, 1, columns, columns < 4 * H, K2, SPLIT)
    if PROJECTION:
        projection1 = load_weights(projection, 0, H, P, 1, places, places < P, M1, SPLIT)
        if M2 > 0:
            projection2 = load_weights(projection, M1, H, P, 1, places, places < P, M2, SPLIT)
    diagonal_f, diagonal_i, diagonal_o = load_diagonals(peephole, units, H, PEEPHOLES)
    length = row_lengths(lengths, rows, here, T, LENGTHS)
    always_h = factors(table, scales, given, 0, rows, places, in_h, P, _H, 0, COUNT, KINDS, BITS)
    always_c = factors(table, scales, given, 0, rows, units, in_c, H, _C, 0, COUNT, KINDS, BITS)
    always_out = factors(table, scales, given, 0, rows, places, in_h, P, _OUTPUT, 0, COUNT, KINDS, BITS)
    always_zone_h = factors(table, scales, given, 0, rows, places, in_h, P, _ZONE_H, 0, COUNT, KINDS, BITS)
    always_zone_c = factors(table, scales, given, 0, rows, units, in_c, H, _ZONE_C, 0, COUNT, KINDS, BITS)

    h = tl.load(h0 + at_h, mask=in_h, other=0.0).to(tl.float32)
    c = tl.load(c0 + at_c, mask=in_c, other=0.0).to(tl.float32)
    arrivals = 0
    for step in range(T):
        first, near = step_rows(step, T, B, length, rows, LENGTHS, REVERSE)
        active = (step < length)[:, None]
        if RESETS:
            fresh = begins_anew(resets, first, near, here, active)
            h = reset_to(h, reset_h, at_h, in_h, fresh, GIVEN_RESETS)
            c = reset_to(c, reset_c, at_c, in_c, fresh, GIVEN_RESETS)
        here_c, here_h = near[:, None] * H + units[None, :], near[:, None] * P + places[None, :]
        tl.store(hs + first * P + here_h, h.to(hs.dtype.element_ty), mask=in_h)
        arrive(counter, PROGRAMS)
        arrivals += PROGRAMS
        if SAVE:
            tl.store(cs + first * H + here_c, c, mask=in_c)
        total = tl.load(
            x_gates + first * (4 * H) + near[:, None] * (4 * H) + columns[None, :], mask=in_gates, other=0.0
        ).to(tl.float32)
        keep_h = always_h * factors(table, scales, given, step, rows, places, in_h, P, _H, 1, COUNT, KINDS, BITS)
        keep_c = always_c * factors(table, scales, given, step, rows, units, in_c, H, _C, 1, COUNT, KINDS, BITS)
        keep_out = always_out * factors(
            table, scales, given, step, rows, places, in_h, P, _OUTPUT, 1, COUNT, KINDS, BITS
        )
        wait(counter, arrivals, PROGRAMS, SPINS)
        operand = load_operand(hs + first * P, near * P, here, 0, P, K1, SPLIT)
        total += multiply(operand, weight1, SPLIT, PRECISION)
        if K2 > 0:
            operand = load_operand(hs + first * P, near * P, here, K1, P, K2, SPLIT)
            total += multiply(operand, weight2, SPLIT, PRECISION)
        i, j, f, o = split_four(total, ROWS, U)
        i, j, f, o, new_c, new_h = step_forward(
            i, j, f, o, c, diagonal_f, diagonal_i, diagonal_o, forget_bias, cell_clip,
            ACTIVATION, GATE_ACTIVATION, COUPLED, PEEPHOLES, CLIP,
        )  # fmt: skip
        if gates is not None:
            tile = join_four(i, j, f, o, ROWS, U)
            tl.store(
                gates + first * (4 * H) + near[:, None] * (4 * H) + columns[None, :],
                tile.to(gates.dtype.element_ty),
                mask=in_gates,
            )
        if PROJECTION:
            tl.store(ms + first * H + here_c, new_h.to(ms.dtype.element_ty), mask=in_c)
            arrive(counter, PROGRAMS)
            arrivals += PROGRAMS
            wait(counter, arrivals, PROGRAMS, SPINS)
            operand = load_operand(ms + first * H, near * H, here, 0, H, M1, SPLIT)
            new_h = multiply(operand, projection1, SPLIT, PRECISION)
            if M2 > 0:
                operand = load_operand(ms + first * H, near * H, here, M1, H, M2, SPLIT)
                new_h += multiply(operand, projection2, SPLIT, PRECISION)
            if PROJ_CLIP:
                if SAVE:
                    tl.store(raw + first * P + here_h, new_h.to(raw.dtype.element_ty), mask=in_h)
                new_h = at_most(at_least(new_h, -proj_clip), proj_clip)
        zone_h = always_zone_h * factors(
            table, scales, given, step, rows, places, in_h, P, _ZONE_H, 1, COUNT, KINDS, BITS
        )
        zone_c = always_zone_c * factors(
            table, scales, given, step, rows, units, in_c, H, _ZONE_C, 1, COUNT, KINDS, BITS
        )
        output, state = hand_on(new_h, h, keep_h, keep_out, zone_h, active, ZONE_H)
        tl.store(out + first * P + here_h, output.to(out.dtype.element_ty), mask=in_h)
        h = state.to(hs.dtype.element_ty).to(tl.float32)  # what all programs will read: rounded as it is stored
        _, c = hand_on(new_c, c, keep_c, keep_c, zone_c, active, ZONE_C)
        if STATES:
            tl.store(all_h + first * P + here_h, h.to(all_h.dtype.element_ty), mask=in_h)
            tl.store(all_c + first * H + here_c, c.to(all_c.dtype.element_ty), mask=in_c)
    tl.store(h_last + at_h, h.to(h_last.dtype.element_ty), mask=in_h)
    tl.store(c_last + at_c, c.to(c_last.dtype.element_ty), mask=in_c)


@triton.jit(do_not_specialize=["T", "B"])
def lstm_bwd_exchange(
    weight, lengths, resets, peephole, projection, table, scales, given, cs, gates, raw,
    d_out, d_h_last, d_c_last, d_all_h, d_all_c, d_gates, d_projected, d_h0, d_c0, d_reset_h, d_reset_c, d_peephole,
    counters, T, B, cell_clip, proj_clip,
    H: tl.constexpr, P: tl.constexpr, ROWS: tl.constexpr, U: tl.constexpr, V: tl.constexpr, PROGRAMS: tl.constexpr,
    K1: tl.constexpr, K2: tl.constexpr, SPLIT: tl.constexpr, M1: tl.constexpr, M2: tl.constexpr,
    ACTIVATION: tl.constexpr, GATE_ACTIVATION: tl.constexpr, COUPLED: tl.constexpr, PEEPHOLES: tl.constexpr,
    CLIP: tl.constexpr, PROJECTION: tl.constexpr, PROJ_CLIP: tl.constexpr, LENGTHS: tl.constexpr,
    RESETS: tl.constexpr, GIVEN_RESETS: tl.constexpr, REVERSE: tl.constexpr, COUNT: tl.constexpr, KINDS: tl.constexpr,
    BITS: tl.constexpr, ZONE_H: tl.constexpr, ZONE_C: tl.constexpr, STATES: tl.constexpr,
    PRECISION: tl.constexpr, SPINS: tl.constexpr,
):  # fmt: skip
    """Gradients of the gates' totals and of everything that is not a product over all steps.

    Args:
        weight, lengths, resets, peephole, projection, table, scales, given, cs, gates, raw: As forward had and left
            them.
        d_out, d_h_last, d_c_last, d_all_h, d_all_c: Upstream.
        d_gates: `[T, B, 4H]`, which all programs read. d_projected: Gradient of the projected h before its clip,
            `[T, B, P]`. d_h0, d_reset_h: `[B, P]`. d_c0, d_reset_c: `[B, H]`. d_peephole: float32 `[3, B, H]`.
    """
    part = tl.program_id(0) % PROGRAMS
    rows = (tl.program_id(0) // PROGRAMS) * ROWS + tl.arange(0, ROWS)
    counter = counters + (tl.program_id(0) // PROGRAMS) * 2
    here = rows < B
    units, places = part * U + tl.arange(0, U), part * V + tl.arange(0, V)
    columns = part * (4 * U) + tl.arange(0, 4 * U)
    in_c, in_h = here[:, None] & (units < H)[None, :], here[:, None] & (places < P)[None, :]
    in_gates = here[:, None] & (columns < 4 * H)[None, :]
    at_c, at_h = rows[:, None] * H + units[None, :], rows[:, None] * P + places[None, :]

    weight1 = load_weights(weight, 0, 4 * H, 1, 4 * H, places, places < P, K1, SPLIT)
    if K2 > 0:
        weight2 = load_weights(weight, K1, 4 * H, 1, 4 * H, places, places < P, K2, SPLIT)
    if PROJECTION:
        projection1 = load_weights(projection, 0, P, 1, P, units, units < H, M1, SPLIT)
        if M2 > 0:
            projection2 = load_weights(projection, M1, P, 1, P, units, units < H, M2, SPLIT)
    diagonal_f, diagonal_i, diagonal_o = load_diagonals(peephole, units, H, PEEPHOLES)
    if PEEPHOLES:
        sum_f, sum_i, sum_o = (
            tl.zeros((ROWS, U), tl.float32), tl.zeros((ROWS, U), tl.float32), tl.zeros((ROWS, U), tl.float32)
        )  # fmt: skip
    if GIVEN_RESETS:
        sum_reset_h, sum_reset_c = tl.zeros((ROWS, V), tl.float32), tl.zeros((ROWS, U), tl.float32)
    length = row_lengths(lengths, rows, here, T, LENGTHS)
    always_h = factors(table, scales, given, 0, rows, places, in_h, P, _H, 0, COUNT, KINDS, BITS)
    always_c = factors(table, scales, given, 0, rows, units, in_c, H, _C, 0, COUNT, KINDS, BITS)
    always_out = factors(table, scales, given, 0, rows, places, in_h, P, _OUTPUT, 0, COUNT, KINDS, BITS)
    always_zone_h = factors(table, scales, given, 0, rows, places, in_h, P, _ZONE_H, 0, COUNT, KINDS, BITS)
    always_zone_c = factors(table, scales, given, 0, rows, units, in_c, H, _ZONE_C, 0, COUNT, KINDS, BITS)

    d_h = tl.load(d_h_last + at_h, mask=in_h, other=0.0).to(tl.float32)
    d_c = tl.load(d_c_last + at_c, mask=in_c, other=0.0).to(tl.float32)
    arrivals = 0
    for back in range(T):
        step = T - 1 - back
        first, near = step_rows(step, T, B, length, rows, LENGTHS, REVERSE)
        active = (step < length)[:, None]
        here_c, here_h = near[:, None] * H + units[None, :], near[:, None] * P + places[None, :]
        at_gates = near[:, None] * (4 * H) + columns[None, :]
        c = tl.load(cs + first * H + here_c, mask=in_c, other=0.0)
        i, j, f, o = split_four(
            tl.load(gates + first * (4 * H) + at_gates, mask=in_gates, other=0.0).to(tl.float32), ROWS, U
        )
        d_output = tl.load(d_out + first * P + here_h, mask=in_h, other=0.0).to(tl.float32)
        keep_h = always_h * factors(table, scales, given, step, rows, places, in_h, P, _H, 1, COUNT, KINDS, BITS)
        keep_c = always_c * factors(table, scales, given, step, rows, units, in_c, H, _C, 1, COUNT, KINDS, BITS)
        keep_out = always_out * factors(
            table, scales, given, step, rows, places, in_h, P, _OUTPUT, 1, COUNT, KINDS, BITS
        )
        if STATES:
            d_h += tl.load(d_all_h + first * P + here_h, mask=in_h, other=0.0).to(tl.float32)
            d_c += tl.load(d_all_c + first * H + here_c, mask=in_c, other=0.0).to(tl.float32)
        zone_h = always_zone_h * factors(
            table, scales, given, step, rows, places, in_h, P, _ZONE_H, 1, COUNT, KINDS, BITS
        )
        zone_c = always_zone_c * factors(
            table, scales, given, step, rows, units, in_c, H, _ZONE_C, 1, COUNT, KINDS, BITS
        )
        d_h, past_h = hand_back(d_h, d_output, keep_h, keep_out, zone_h, active, ZONE_H)
        d_c, past_c = hand_back(d_c, tl.zeros_like(d_c), keep_c, keep_c, zone_c, active, ZONE_C)
        if PROJECTION:
            if PROJ_CLIP:
                before = tl.load(raw + first * P + here_h, mask=in_h, other=0.0).to(tl.float32)
                d_h = tl.where(tl.abs(before) <= proj_clip, d_h, 0.0)
            tl.store(d_projected + first * P + here_h, d_h.to(d_projected.dtype.element_ty), mask=in_h)
            arrive(counter, PROGRAMS)
            arrivals += PROGRAMS
            wait(counter, arrivals, PROGRAMS, SPINS)
            operand = load_operand(d_projected + first * P, near * P, here, 0, P, M1, SPLIT)
            d_m = multiply(operand, projection1, SPLIT, PRECISION)
            if M2 > 0:
                operand = load_operand(d_projected + first * P, near * P, here, M1, P, M2, SPLIT)
                d_m += multiply(operand, projection2, SPLIT, PRECISION)
        else:
            d_m = d_h
        d_i, d_j, d_f, d_o, d_c, new_c = step_backward(
            d_m, d_c, i, j, f, o, c, diagonal_f, diagonal_i, diagonal_o, cell_clip,
            ACTIVATION, GATE_ACTIVATION, COUPLED, PEEPHOLES, CLIP,
        )  # fmt: skip
        d_c += past_c
        if PEEPHOLES:
            sum_f += d_f * c
            sum_i += d_i * c
            sum_o += d_o * new_c
        tile = join_four(d_i, d_j, d_f, d_o, ROWS, U)
        tl.store(d_gates + first * (4 * H) + at_gates, tile.to(d_gates.dtype.element_ty), mask=in_gates)
        arrive(counter, PROGRAMS)
        arrivals += PROGRAMS
        wait(counter, arrivals, PROGRAMS, SPINS)
        operand = load_operand(d_gates + first * (4 * H), near * (4 * H), here, 0, 4 * H, K1, SPLIT)
        d_h = past_h + multiply(operand, weight1, SPLIT, PRECISION)
        if K2 > 0:
            operand = load_operand(d_gates + first * (4 * H), near * (4 * H), here, K1, 4 * H, K2, SPLIT)
            d_h += multiply(operand, weight2, SPLIT, PRECISION)
        if RESETS:
            fresh = begins_anew(resets, first, near, here, active)
            if GIVEN_RESETS:
                sum_reset_h += tl.where(fresh, d_h, 0.0)
                sum_reset_c += tl.where(fresh, d_c, 0.0)
            d_h, d_c = tl.where(fresh, 0.0, d_h), tl.where(fresh, 0.0, d_c)
    tl.store(d_h0 + at_h, d_h.to(d_h0.dtype.element_ty), mask=in_h)
    tl.store(d_c0 + at_c, d_c.to(d_c0.dtype.element_ty), mask=in_c)
    if GIVEN_RESETS:
        tl.store(d_reset_h + at_h, sum_reset_h.to(d_reset_h.dtype.element_ty), mask=in_h)
        tl.store(d_reset_c + at_c, sum_reset_c.to(d_reset_c.dtype.element_ty), mask=in_c)
    if PEEPHOLES:
        tl.store(d_peephole + at_c, sum_f, mask=in_c)
        tl.store(d_peephole + B * H + at_c, sum_i, mask=in_c)
        tl.store(d_peephole + 2 * B * H + at_c, sum_o, mask=in_c)
