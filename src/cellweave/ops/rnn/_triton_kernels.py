"""The time loops of the plain recurrent network as Triton kernels; those of the LSTM say how they share the work."""

from __future__ import annotations

import triton
import triton.language as tl

from cellweave.ops.common._triton_device import (
    activated,
    arrive,
    begins_anew,
    factors,
    hand_back,
    hand_on,
    load_operand,
    load_weights,
    multiply,
    reset_to,
    row_lengths,
    slope,
    step_rows,
    wait,
)

#: Places of masks, as `_triton_masks.PLACES` numbers them.
_H, _OUTPUT, _ZONE_H = tl.constexpr(1), tl.constexpr(3), tl.constexpr(4)


@triton.jit(do_not_specialize=["T", "B"])
def rnn_fwd_persistent(
    x_gates, weight, h0, reset_h, lengths, resets, table, scales, given, out, hs, gates, h_last, all_h, counters, T, B,
    H: tl.constexpr, ROWS: tl.constexpr, U: tl.constexpr, PROGRAMS: tl.constexpr, K1: tl.constexpr, K2: tl.constexpr,
    SPLIT: tl.constexpr, SAVE: tl.constexpr,
    ACTIVATION: tl.constexpr, LENGTHS: tl.constexpr, RESETS: tl.constexpr, GIVEN_RESETS: tl.constexpr,
    REVERSE: tl.constexpr, COUNT: tl.constexpr, KINDS: tl.constexpr, BITS: tl.constexpr, ZONE_H: tl.constexpr,
    STATES: tl.constexpr, PRECISION: tl.constexpr, SPINS: tl.constexpr,
):  # fmt: skip
    """Outputs, last state and what backward needs.

    Args:
        x_gates: Input products with biases `[T, B, H]`. weight: `[H, H]`. h0, reset_h: `[B, H]`. table, scales, given:
            The masks.
        out: `[T, B, H]`. hs: Operands of each step after its reset. gates: h as the step made it. all_h: h after each
            step. counters: int32 `[groups, 2]`, zeros.
    """
    part = tl.program_id(0) % PROGRAMS
    rows = (tl.program_id(0) // PROGRAMS) * ROWS + tl.arange(0, ROWS)
    counter = counters + (tl.program_id(0) // PROGRAMS) * 2
    here, units = rows < B, part * U + tl.arange(0, U)
    inside, at = here[:, None] & (units < H)[None, :], rows[:, None] * H + units[None, :]
    weight1 = load_weights(weight, 0, H, H, 1, units, units < H, K1, SPLIT)
    if K2 > 0:
        weight2 = load_weights(weight, K1, H, H, 1, units, units < H, K2, SPLIT)
    length = row_lengths(lengths, rows, here, T, LENGTHS)
    always = factors(table, scales, given, 0, rows, units, inside, H, _H, 0, COUNT, KINDS, BITS)
    always_out = factors(table, scales, given, 0, rows, units, inside, H, _OUTPUT, 0, COUNT, KINDS, BITS)
    always_zone = factors(table, scales, given, 0, rows, units, inside, H, _ZONE_H, 0, COUNT, KINDS, BITS)
    h = tl.load(h0 + at, mask=inside, other=0.0).to(tl.float32)
    arrivals = 0
    for step in range(T):
        first, near = step_rows(step, T, B, length, rows, LENGTHS, REVERSE)
        active = (step < length)[:, None]
        if RESETS:
            fresh = begins_anew(resets, first, near, here, active)
            h = reset_to(h, reset_h, at, inside, fresh, GIVEN_RESETS)
        here_h = near[:, None] * H + units[None, :]
        tl.store(hs + first * H + here_h, h.to(hs.dtype.element_ty), mask=inside)
        arrive(counter, PROGRAMS)
        arrivals += PROGRAMS
        total = tl.load(x_gates + first * H + here_h, mask=inside, other=0.0).to(tl.float32)
        keep = always * factors(table, scales, given, step, rows, units, inside, H, _H, 1, COUNT, KINDS, BITS)
        keep_out = always_out * factors(
            table, scales, given, step, rows, units, inside, H, _OUTPUT, 1, COUNT, KINDS, BITS
        )
        zone = always_zone * factors(table, scales, given, step, rows, units, inside, H, _ZONE_H, 1, COUNT, KINDS, BITS)
        wait(counter, arrivals, PROGRAMS, SPINS)
        operand = load_operand(hs + first * H, near * H, here, 0, H, K1, SPLIT)
        total += multiply(operand, weight1, SPLIT, PRECISION)
        if K2 > 0:
            operand = load_operand(hs + first * H, near * H, here, K1, H, K2, SPLIT)
            total += multiply(operand, weight2, SPLIT, PRECISION)
        new_h = activated(total, ACTIVATION)
        if gates is not None:
            tl.store(gates + first * H + here_h, new_h.to(gates.dtype.element_ty), mask=inside)
        output, state = hand_on(new_h, h, keep, keep_out, zone, active, ZONE_H)
        tl.store(out + first * H + here_h, output.to(out.dtype.element_ty), mask=inside)
        h = state.to(hs.dtype.element_ty).to(tl.float32)  # what all programs will read: rounded as it is stored
        if STATES:
            tl.store(all_h + first * H + here_h, h.to(all_h.dtype.element_ty), mask=inside)
    tl.store(h_last + at, h.to(h_last.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["T", "B"])
def rnn_bwd_exchange(
    weight, lengths, resets, table, scales, given, gates, d_out, d_h_last, d_all_h, d_gates, d_h0, d_reset_h, counters,
    T, B, H: tl.constexpr, ROWS: tl.constexpr, U: tl.constexpr, PROGRAMS: tl.constexpr, K1: tl.constexpr,
    K2: tl.constexpr, SPLIT: tl.constexpr,
    ACTIVATION: tl.constexpr, LENGTHS: tl.constexpr, RESETS: tl.constexpr, GIVEN_RESETS: tl.constexpr,
    REVERSE: tl.constexpr, COUNT: tl.constexpr, KINDS: tl.constexpr, BITS: tl.constexpr, ZONE_H: tl.constexpr,
    STATES: tl.constexpr, PRECISION: tl.constexpr, SPINS: tl.constexpr,
):  # fmt: skip
    """Gradients of the totals, `d_gates [T, B, H]`, and of the states."""
    part = tl.program_id(0) % PROGRAMS
    rows = (tl.program_id(0) // PROGRAMS) * ROWS + tl.arange(0, ROWS)
    counter = counters + (tl.program_id(0) // PROGRAMS) * 2
    here, units = rows < B, part * U + tl.arange(0, U)
    inside, at = here[:, None] & (units < H)[None, :], rows[:, None] * H + units[None, :]
    weight1 = load_weights(weight, 0, H, 1, H, units, units < H, K1, SPLIT)
    if K2 > 0:
        weight2 = load_weights(weight, K1, H, 1, H, units, units < H, K2, SPLIT)
    length = row_lengths(lengths, rows, here, T, LENGTHS)
    always = factors(table, scales, given, 0, rows, units, inside, H, _H, 0, COUNT, KINDS, BITS)
    always_out = factors(table, scales, given, 0, rows, units, inside, H, _OUTPUT, 0, COUNT, KINDS, BITS)
    always_zone = factors(table, scales, given, 0, rows, units, inside, H, _ZONE_H, 0, COUNT, KINDS, BITS)
    if GIVEN_RESETS:
        sum_reset = tl.zeros((ROWS, U), tl.float32)
    d_h = tl.load(d_h_last + at, mask=inside, other=0.0).to(tl.float32)
    arrivals = 0
    for back in range(T):
        step = T - 1 - back
        first, near = step_rows(step, T, B, length, rows, LENGTHS, REVERSE)
        active = (step < length)[:, None]
        here_h = near[:, None] * H + units[None, :]
        d_output = tl.load(d_out + first * H + here_h, mask=inside, other=0.0).to(tl.float32)
        value = tl.load(gates + first * H + here_h, mask=inside, other=0.0).to(tl.float32)
        keep = always * factors(table, scales, given, step, rows, units, inside, H, _H, 1, COUNT, KINDS, BITS)
        keep_out = always_out * factors(
            table, scales, given, step, rows, units, inside, H, _OUTPUT, 1, COUNT, KINDS, BITS
        )
        zone = always_zone * factors(table, scales, given, step, rows, units, inside, H, _ZONE_H, 1, COUNT, KINDS, BITS)
        if STATES:
            d_h += tl.load(d_all_h + first * H + here_h, mask=inside, other=0.0).to(tl.float32)
        d_new, d_h = hand_back(d_h, d_output, keep, keep_out, zone, active, ZONE_H)
        d_total = d_new * slope(value, ACTIVATION)
        tl.store(d_gates + first * H + here_h, d_total.to(d_gates.dtype.element_ty), mask=inside)
        arrive(counter, PROGRAMS)
        arrivals += PROGRAMS
        wait(counter, arrivals, PROGRAMS, SPINS)
        operand = load_operand(d_gates + first * H, near * H, here, 0, H, K1, SPLIT)
        d_h += multiply(operand, weight1, SPLIT, PRECISION)
        if K2 > 0:
            operand = load_operand(d_gates + first * H, near * H, here, K1, H, K2, SPLIT)
            d_h += multiply(operand, weight2, SPLIT, PRECISION)
        if RESETS:
            fresh = begins_anew(resets, first, near, here, active)
            if GIVEN_RESETS:
                sum_reset += tl.where(fresh, d_h, 0.0)
            d_h = tl.where(fresh, 0.0, d_h)
    tl.store(d_h0 + at, d_h.to(d_h0.dtype.element_ty), mask=inside)
    if GIVEN_RESETS:
        tl.store(d_reset_h + at, sum_reset.to(d_reset_h.dtype.element_ty), mask=inside)
