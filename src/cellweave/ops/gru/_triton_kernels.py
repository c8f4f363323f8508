"""The time loops of the gated recurrent unit as Triton kernels; see those of the LSTM for how they share the work.

The gates r and u lie as `2 * unit + gate`; in buffers of three columns a unit the candidate's H columns come first.
With the reset before the product a step has two meetings, for h and for r * h, else one.
"""

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
    join_two,
    load_operand,
    load_weights,
    multiply,
    reset_to,
    row_lengths,
    split_two,
    step_rows,
    wait,
)
from cellweave.ops.gru._triton_cell import mix, mix_back, reset_back

#: Places of masks, as `_triton_masks.PLACES` numbers them.
_H, _OUTPUT, _ZONE_H = tl.constexpr(1), tl.constexpr(3), tl.constexpr(4)


@triton.jit(do_not_specialize=["T", "B"])
def gru_fwd_persistent(
    x_gates, weight, candidate, bias, h0, reset_h, lengths, resets, table, scales, given, out, hs, rhs, gates, values,
    from_h, h_last, all_h, counters, T, B,
    H: tl.constexpr, ROWS: tl.constexpr, U: tl.constexpr, PROGRAMS: tl.constexpr, K1: tl.constexpr, K2: tl.constexpr,
    SPLIT: tl.constexpr, SAVE: tl.constexpr, BIAS: tl.constexpr,
    AFTER: tl.constexpr, GATE_ACTIVATION: tl.constexpr,
    ACTIVATION: tl.constexpr, LENGTHS: tl.constexpr, RESETS: tl.constexpr, GIVEN_RESETS: tl.constexpr,
    REVERSE: tl.constexpr, COUNT: tl.constexpr, KINDS: tl.constexpr, BITS: tl.constexpr, ZONE_H: tl.constexpr,
    STATES: tl.constexpr, PRECISION: tl.constexpr, SPINS: tl.constexpr,
):  # fmt: skip
    """Outputs, last state and what backward needs.

    Args:
        x_gates: Input products with biases `[T, B, 3H]`. weight: Of r and u, `[H, 2H]`. candidate: `[H, H]`. bias: Of
            the candidate's recurrent product, `[H]`. h0, reset_h: `[B, H]`. table, scales, given: The masks.
        out: `[T, B, H]`. hs: Operands of each step after its reset. rhs: r * h. gates: r and u, `[T, B, 2H]`. values:
            The candidates. from_h: Their recurrent products. all_h: h after each step. counters: int32 `[groups, 2]`,
            zeros.
    """
    part = tl.program_id(0) % PROGRAMS
    rows = (tl.program_id(0) // PROGRAMS) * ROWS + tl.arange(0, ROWS)
    counter = counters + (tl.program_id(0) // PROGRAMS) * 2
    here, units = rows < B, part * U + tl.arange(0, U)
    inside, at = here[:, None] & (units < H)[None, :], rows[:, None] * H + units[None, :]
    columns = part * (2 * U) + tl.arange(0, 2 * U)
    in_gates = here[:, None] & (columns < 2 * H)[None, :]
    weight1 = load_weights(weight, 0, H, 2 * H, 1, columns, columns < 2 * H, K1, SPLIT)
    if K2 > 0:
        weight2 = load_weights(weight, K1, H, 2 * H, 1, columns, columns < 2 * H, K2, SPLIT)
    candidate1 = load_weights(candidate, 0, H, H, 1, units, units < H, K1, SPLIT)
    if K2 > 0:
        candidate2 = load_weights(candidate, K1, H, H, 1, units, units < H, K2, SPLIT)
    if BIAS:
        shift = tl.load(bias + units, mask=units < H, other=0.0).to(tl.float32)[None, :]
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
        base = x_gates + first * (3 * H)
        at_gates = near[:, None] * (3 * H) + H + columns[None, :]
        total = tl.load(base + at_gates, mask=in_gates, other=0.0).to(tl.float32)
        value = tl.load(base + near[:, None] * (3 * H) + units[None, :], mask=inside, other=0.0).to(tl.float32)
        keep = always * factors(table, scales, given, step, rows, units, inside, H, _H, 1, COUNT, KINDS, BITS)
        keep_out = always_out * factors(
            table, scales, given, step, rows, units, inside, H, _OUTPUT, 1, COUNT, KINDS, BITS
        )
        zone = always_zone * factors(table, scales, given, step, rows, units, inside, H, _ZONE_H, 1, COUNT, KINDS, BITS)
        wait(counter, arrivals, PROGRAMS, SPINS)
        product = tl.zeros((ROWS, U), tl.float32)
        operand = load_operand(hs + first * H, near * H, here, 0, H, K1, SPLIT)
        total += multiply(operand, weight1, SPLIT, PRECISION)
        if AFTER:
            product += multiply(operand, candidate1, SPLIT, PRECISION)
        if K2 > 0:
            operand = load_operand(hs + first * H, near * H, here, K1, H, K2, SPLIT)
            total += multiply(operand, weight2, SPLIT, PRECISION)
            if AFTER:
                product += multiply(operand, candidate2, SPLIT, PRECISION)
        r, u = split_two(activated(total, GATE_ACTIVATION), ROWS, U)
        if AFTER:
            if BIAS:
                product += shift
            value += r * product
            if from_h is not None:
                tl.store(from_h + first * H + here_h, product.to(from_h.dtype.element_ty), mask=inside)
        else:
            tl.store(rhs + first * H + here_h, (r * h).to(rhs.dtype.element_ty), mask=inside)
            arrive(counter, PROGRAMS)
            arrivals += PROGRAMS
            wait(counter, arrivals, PROGRAMS, SPINS)
            operand = load_operand(rhs + first * H, near * H, here, 0, H, K1, SPLIT)
            value += multiply(operand, candidate1, SPLIT, PRECISION)
            if K2 > 0:
                operand = load_operand(rhs + first * H, near * H, here, K1, H, K2, SPLIT)
                value += multiply(operand, candidate2, SPLIT, PRECISION)
        value = activated(value, ACTIVATION)
        new_h = mix(u, h, value)
        if gates is not None:
            at_two = near[:, None] * (2 * H) + columns[None, :]
            tile = join_two(r, u, ROWS, U)
            tl.store(gates + first * (2 * H) + at_two, tile.to(gates.dtype.element_ty), mask=in_gates)
            tl.store(values + first * H + here_h, value.to(values.dtype.element_ty), mask=inside)
        output, state = hand_on(new_h, h, keep, keep_out, zone, active, ZONE_H)
        tl.store(out + first * H + here_h, output.to(out.dtype.element_ty), mask=inside)
        h = state.to(hs.dtype.element_ty).to(tl.float32)  # what all programs will read: rounded as it is stored
        if STATES:
            tl.store(all_h + first * H + here_h, h.to(all_h.dtype.element_ty), mask=inside)
    tl.store(h_last + at, h.to(h_last.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["T", "B"])
def gru_bwd_exchange(
    weight, candidate, lengths, resets, table, scales, given, hs, gates, values, from_h, d_out, d_h_last, d_all_h,
    d_gates, d_from_h, d_h0, d_reset_h, counters, T, B,
    H: tl.constexpr, ROWS: tl.constexpr, U: tl.constexpr, PROGRAMS: tl.constexpr, K1: tl.constexpr, K2: tl.constexpr,
    M1: tl.constexpr, M2: tl.constexpr, SPLIT: tl.constexpr,
    AFTER: tl.constexpr, GATE_ACTIVATION: tl.constexpr,
    ACTIVATION: tl.constexpr, LENGTHS: tl.constexpr, RESETS: tl.constexpr, GIVEN_RESETS: tl.constexpr,
    REVERSE: tl.constexpr, COUNT: tl.constexpr, KINDS: tl.constexpr, BITS: tl.constexpr, ZONE_H: tl.constexpr,
    STATES: tl.constexpr, PRECISION: tl.constexpr, SPINS: tl.constexpr,
):  # fmt: skip
    """Gradients of the totals, `d_gates [T, B, 3H]`, of the candidate's recurrent product, and of the states."""
    part = tl.program_id(0) % PROGRAMS
    rows = (tl.program_id(0) // PROGRAMS) * ROWS + tl.arange(0, ROWS)
    counter = counters + (tl.program_id(0) // PROGRAMS) * 2
    here, units = rows < B, part * U + tl.arange(0, U)
    inside, at = here[:, None] & (units < H)[None, :], rows[:, None] * H + units[None, :]
    columns = part * (2 * U) + tl.arange(0, 2 * U)
    in_gates = here[:, None] & (columns < 2 * H)[None, :]
    weight1 = load_weights(weight, 0, 2 * H, 1, 2 * H, units, units < H, M1, SPLIT)
    if M2 > 0:
        weight2 = load_weights(weight, M1, 2 * H, 1, 2 * H, units, units < H, M2, SPLIT)
    candidate1 = load_weights(candidate, 0, H, 1, H, units, units < H, K1, SPLIT)
    if K2 > 0:
        candidate2 = load_weights(candidate, K1, H, 1, H, units, units < H, K2, SPLIT)
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
        h = tl.load(hs + first * H + here_h, mask=inside, other=0.0).to(tl.float32)
        value = tl.load(values + first * H + here_h, mask=inside, other=0.0).to(tl.float32)
        at_two = near[:, None] * (2 * H) + columns[None, :]
        tile = tl.load(gates + first * (2 * H) + at_two, mask=in_gates, other=0.0).to(tl.float32)
        r, u = split_two(tile, ROWS, U)
        if AFTER:
            product = tl.load(from_h + first * H + here_h, mask=inside, other=0.0).to(tl.float32)
        keep = always * factors(table, scales, given, step, rows, units, inside, H, _H, 1, COUNT, KINDS, BITS)
        keep_out = always_out * factors(
            table, scales, given, step, rows, units, inside, H, _OUTPUT, 1, COUNT, KINDS, BITS
        )
        zone = always_zone * factors(table, scales, given, step, rows, units, inside, H, _ZONE_H, 1, COUNT, KINDS, BITS)
        if STATES:
            d_h += tl.load(d_all_h + first * H + here_h, mask=inside, other=0.0).to(tl.float32)
        d_new, d_h = hand_back(d_h, d_output, keep, keep_out, zone, active, ZONE_H)
        d_value, d_u, d_old = mix_back(d_new, u, h, value, ACTIVATION, GATE_ACTIVATION)
        d_h += d_old
        base = d_gates + first * (3 * H)
        at_value, at_gates = near[:, None] * (3 * H) + units[None, :], near[:, None] * (3 * H) + H + columns[None, :]
        tl.store(base + at_value, d_value.to(d_gates.dtype.element_ty), mask=inside)
        if AFTER:
            d_r, d_product = reset_back(d_value, product, r, GATE_ACTIVATION)
            tl.store(d_from_h + first * H + here_h, d_product.to(d_from_h.dtype.element_ty), mask=inside)
        else:
            arrive(counter, PROGRAMS)
            arrivals += PROGRAMS
            wait(counter, arrivals, PROGRAMS, SPINS)
            d_rh = tl.zeros((ROWS, U), tl.float32)
            operand = load_operand(d_gates + first * (3 * H), near * (3 * H), here, 0, H, K1, SPLIT)
            d_rh += multiply(operand, candidate1, SPLIT, PRECISION)
            if K2 > 0:
                operand = load_operand(d_gates + first * (3 * H), near * (3 * H), here, K1, H, K2, SPLIT)
                d_rh += multiply(operand, candidate2, SPLIT, PRECISION)
            d_r, d_old = reset_back(d_rh, h, r, GATE_ACTIVATION)
            d_h += d_old
        tl.store(base + at_gates, join_two(d_r, d_u, ROWS, U).to(d_gates.dtype.element_ty), mask=in_gates)
        arrive(counter, PROGRAMS)
        arrivals += PROGRAMS
        wait(counter, arrivals, PROGRAMS, SPINS)
        operand = load_operand(d_gates + first * (3 * H) + H, near * (3 * H), here, 0, 2 * H, M1, SPLIT)
        d_h += multiply(operand, weight1, SPLIT, PRECISION)
        if M2 > 0:
            operand = load_operand(d_gates + first * (3 * H) + H, near * (3 * H), here, M1, 2 * H, M2, SPLIT)
            d_h += multiply(operand, weight2, SPLIT, PRECISION)
        if AFTER:
            operand = load_operand(d_from_h + first * H, near * H, here, 0, H, K1, SPLIT)
            d_h += multiply(operand, candidate1, SPLIT, PRECISION)
            if K2 > 0:
                operand = load_operand(d_from_h + first * H, near * H, here, K1, H, K2, SPLIT)
                d_h += multiply(operand, candidate2, SPLIT, PRECISION)
        if RESETS:
            fresh = begins_anew(resets, first, near, here, active)
            if GIVEN_RESETS:
                sum_reset += tl.where(fresh, d_h, 0.0)
            d_h = tl.where(fresh, 0.0, d_h)
    tl.store(d_h0 + at, d_h.to(d_h0.dtype.element_ty), mask=inside)
    if GIVEN_RESETS:
        tl.store(d_reset_h + at, sum_reset.to(d_reset_h.dtype.element_ty), mask=inside)
