"""The elementwise parts of one step of the gated recurrent unit as Triton kernels: what runs between two products.

With the reset after the product a step is one product, of h and all recurrent weights, and one kernel. With the reset
before it, it is two of each: `gru_fwd_reset` makes r * h, which the candidate's weight multiplies, and `gru_fwd_step`
the rest; backward the other way round. Products and their gradients have the candidate's H columns first, then
`2 * unit + gate` of r and u.
"""

from __future__ import annotations

import triton
import triton.language as tl

from cellweave.ops.common._triton_device import activated, join_two, row_lengths, split_two, step_rows
from cellweave.ops.common._triton_step_device import (
    finish_step,
    gate_columns,
    normalized,
    normalized_back,
    overwrite,
    step_at,
    tile_of,
    unfinish_step,
)
from cellweave.ops.gru._triton_cell import mix, mix_back, reset_back

#: Normalizations, as their weights are stacked.
_R, _U, _C, _FROM_H = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2), tl.constexpr(3)


@triton.jit
def _totals_of(
    x_gates, product, first, near, rows, columns, inside, H: tl.constexpr, ROWS: tl.constexpr, U: tl.constexpr
):
    """The totals of the gates r and u."""
    at = rows[:, None] * (3 * H) + H + columns[None, :]
    there = first * (3 * H) + near[:, None] * (3 * H) + H + columns[None, :]
    total = tl.load(x_gates + there, mask=inside, other=0.0).to(tl.float32)
    return split_two(total + tl.load(product + at, mask=inside, other=0.0).to(tl.float32), ROWS, U)


@triton.jit
def _gate(
    total, norms, PART: tl.constexpr, units, inside, H: tl.constexpr, epsilon, NORM: tl.constexpr,
    GATE_ACTIVATION: tl.constexpr,
):  # fmt: skip
    """An activated gate."""
    return activated(normalized(total, norms, PART, units, inside, H, epsilon, NORM), GATE_ACTIVATION)


@triton.jit
def _candidate_of(
    x_gates, product, bias, norms, gates, values, from_h, first, near, rows, units, columns, inside, in_gates, epsilon,
    H: tl.constexpr, ROWS: tl.constexpr, U: tl.constexpr, NORM: tl.constexpr, AFTER: tl.constexpr, BIAS: tl.constexpr,
    ACTIVATION: tl.constexpr, GATE_ACTIVATION: tl.constexpr,
):  # fmt: skip
    """The update gate and the candidate; and what backward needs of a step is stored where that is asked for."""
    total_r, total_u = _totals_of(x_gates, product, first, near, rows, columns, in_gates, H, ROWS, U)
    r = _gate(total_r, norms, _R, units, inside, H, epsilon, NORM, GATE_ACTIVATION)
    u = _gate(total_u, norms, _U, units, inside, H, epsilon, NORM, GATE_ACTIVATION)
    at_value = first * (3 * H) + near[:, None] * (3 * H) + units[None, :]
    there = first * H + near[:, None] * H + units[None, :]
    value = tl.load(x_gates + at_value, mask=inside, other=0.0).to(tl.float32)
    recurrent = tl.load(product + rows[:, None] * (3 * H) + units[None, :], mask=inside, other=0.0).to(tl.float32)
    if AFTER:
        if BIAS:
            recurrent += tl.load(bias + units, mask=units < H, other=0.0).to(tl.float32)[None, :]
        if from_h is not None:
            tl.store(from_h + there, recurrent.to(from_h.dtype.element_ty), mask=inside)
        recurrent = r * normalized(recurrent, norms, _FROM_H, units, inside, H, epsilon, NORM)
        total = value
        value = normalized(value, norms, _C, units, inside, H, epsilon, NORM) + recurrent
    else:
        total = value + recurrent
        value = normalized(total, norms, _C, units, inside, H, epsilon, NORM)
    value = activated(value, ACTIVATION)
    if gates is not None:
        if not NORM:
            total_r, total_u, total = r, u, value
        at_two = first * (2 * H) + near[:, None] * (2 * H) + columns[None, :]
        tl.store(gates + at_two, join_two(total_r, total_u, ROWS, U).to(gates.dtype.element_ty), mask=in_gates)
        tl.store(values + there, total.to(values.dtype.element_ty), mask=inside)
    return u, value


@triton.jit(do_not_specialize=["T", "B", "step"])
def gru_fwd_reset(
    x_gates, product, norms, lengths, h, rh, rhs, T, B, step, clock, epsilon,
    H: tl.constexpr, ROWS: tl.constexpr, U: tl.constexpr, NORM: tl.constexpr,
    GATE_ACTIVATION: tl.constexpr, LENGTHS: tl.constexpr, REVERSE: tl.constexpr, SAVE: tl.constexpr,
):  # fmt: skip
    """The operand r * h: `rh [B, H]`, and by memory index `rhs`."""
    step = step_at(step, clock)
    rows, here, units, inside = tile_of(B, H, ROWS, U)
    columns = gate_columns(2, H, U)
    in_gates = here[:, None] & (columns < 2 * H)[None, :]
    length, at = row_lengths(lengths, rows, here, T, LENGTHS), rows[:, None] * H + units[None, :]
    first, near = step_rows(step, T, B, length, rows, LENGTHS, REVERSE)
    total, _ = _totals_of(x_gates, product, first, near, rows, columns, in_gates, H, ROWS, U)
    r = _gate(total, norms, _R, units, inside, H, epsilon, NORM, GATE_ACTIVATION)
    gated = r * tl.load(h + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(rh + at, gated.to(rh.dtype.element_ty), mask=inside)
    if SAVE:
        there = first * H + near[:, None] * H + units[None, :]
        tl.store(rhs + there, gated.to(rhs.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["T", "B", "step"])
def gru_fwd_step(
    x_gates, product, bias, norms, reset_h, lengths, resets, table, scales, given, h, out, hs, gates, values, from_h,
    all_h, T, B, step, clock, epsilon,
    H: tl.constexpr, ROWS: tl.constexpr, U: tl.constexpr, NORM: tl.constexpr, AFTER: tl.constexpr, BIAS: tl.constexpr,
    ACTIVATION: tl.constexpr, GATE_ACTIVATION: tl.constexpr, LENGTHS: tl.constexpr, RESETS: tl.constexpr,
    GIVEN_RESETS: tl.constexpr, REVERSE: tl.constexpr, COUNT: tl.constexpr, KINDS: tl.constexpr, BITS: tl.constexpr,
    ZONE_H: tl.constexpr, SAVE: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    """A step from its products to h.

    Args:
        product: Of h, or for the candidate of r * h, and the recurrent weights, `[B, 3H]`. norms: Gamma and beta of r,
            u, c and, with the reset after the product, of the recurrent product, `[6 or 8, H]`. h: State, `[B, H]`;
            overwritten. The rest as `gru_fwd_persistent` has it; what is normalized is kept as totals.
    """
    step = step_at(step, clock)
    rows, here, units, inside = tile_of(B, H, ROWS, U)
    columns = gate_columns(2, H, U)
    in_gates = here[:, None] & (columns < 2 * H)[None, :]
    length, at = row_lengths(lengths, rows, here, T, LENGTHS), rows[:, None] * H + units[None, :]
    first, near = step_rows(step, T, B, length, rows, LENGTHS, REVERSE)
    u, value = _candidate_of(
        x_gates, product, bias, norms, gates, values, from_h, first, near, rows, units, columns, inside, in_gates,
        epsilon, H, ROWS, U, NORM, AFTER, BIAS, ACTIVATION, GATE_ACTIVATION,
    )  # fmt: skip
    new_h = mix(u, tl.load(h + at, mask=inside, other=0.0).to(tl.float32), value)
    finish_step(
        new_h, h, hs, reset_h, resets, out, all_h, table, scales, given, step, T, B, length, rows, here, units,
        inside, H, LENGTHS, RESETS, GIVEN_RESETS, REVERSE, COUNT, KINDS, BITS, ZONE_H, STATES, SAVE,
    )  # fmt: skip


@triton.jit(do_not_specialize=["T", "B", "step"])
def gru_bwd_step(
    product, norms, lengths, resets, table, scales, given, hs, gates, values, from_h, d_out, d_all_h, past_h,
    sum_reset_h, d_norms, d_gates, d_from_h, d_totals, T, B, step, clock, epsilon,
    H: tl.constexpr, ROWS: tl.constexpr, U: tl.constexpr, NORM: tl.constexpr,
    AFTER: tl.constexpr, ACTIVATION: tl.constexpr, GATE_ACTIVATION: tl.constexpr, LENGTHS: tl.constexpr,
    RESETS: tl.constexpr, GIVEN_RESETS: tl.constexpr, REVERSE: tl.constexpr, COUNT: tl.constexpr, KINDS: tl.constexpr,
    BITS: tl.constexpr, ZONE_H: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    """Gradients of a step's totals; with the reset before the product that of r is `gru_bwd_reset`'s.

    Args:
        product: Of the later step's gradients and the recurrent weights, `[B, H]`. past_h: float32, what else reaches
            h; overwritten. sum_reset_h, d_norms: float32, of given states, and `[6 or 8, B, H]`; added to.
        d_gates, d_from_h: By memory index, as `gru_bwd_exchange` has them. d_totals: `[B, 3H]`, what the recurrent
            weights multiply next.
    """
    step = step_at(step, clock)
    rows, here, units, inside = tile_of(B, H, ROWS, U)
    columns = gate_columns(2, H, U)
    in_gates = here[:, None] & (columns < 2 * H)[None, :]
    length, at = row_lengths(lengths, rows, here, T, LENGTHS), rows[:, None] * H + units[None, :]
    d_new, d_past = unfinish_step(
        past_h, product, sum_reset_h, resets, d_out, d_all_h, table, scales, given, step, T, B, length, rows, here,
        units, inside, H, LENGTHS, RESETS, GIVEN_RESETS, REVERSE, COUNT, KINDS, BITS, ZONE_H, STATES,
    )  # fmt: skip
    first, near = step_rows(step, T, B, length, rows, LENGTHS, REVERSE)
    there = first * H + near[:, None] * H + units[None, :]
    old = tl.load(hs + there, mask=inside, other=0.0).to(tl.float32)
    total = tl.load(values + there, mask=inside, other=0.0).to(tl.float32)
    at_two = first * (2 * H) + near[:, None] * (2 * H) + columns[None, :]
    total_r, total_u = split_two(tl.load(gates + at_two, mask=in_gates, other=0.0).to(tl.float32), ROWS, U)
    r, u, value = total_r, total_u, total
    if AFTER:
        total_h = tl.load(from_h + there, mask=inside, other=0.0).to(tl.float32)
        recurrent = normalized(total_h, norms, _FROM_H, units, inside, H, epsilon, NORM)
    if NORM:
        r = _gate(total_r, norms, _R, units, inside, H, epsilon, NORM, GATE_ACTIVATION)
        u = _gate(total_u, norms, _U, units, inside, H, epsilon, NORM, GATE_ACTIVATION)
        value = normalized(total, norms, _C, units, inside, H, epsilon, NORM)
        if AFTER:
            value += r * recurrent
        value = activated(value, ACTIVATION)
    d_value, d_u, d_old = mix_back(d_new, u, old, value, ACTIVATION, GATE_ACTIVATION)
    overwrite(past_h + at, d_past + d_old, inside)
    d_u = normalized_back(d_u, total_u, norms, d_norms, _U, B, rows, units, inside, H, epsilon, NORM)
    if AFTER:
        d_r, d_recurrent = reset_back(d_value, recurrent, r, GATE_ACTIVATION)
        d_r = normalized_back(d_r, total_r, norms, d_norms, _R, B, rows, units, inside, H, epsilon, NORM)
        d_recurrent = normalized_back(
            d_recurrent, total_h, norms, d_norms, _FROM_H, B, rows, units, inside, H, epsilon, NORM
        )
        d_value = normalized_back(d_value, total, norms, d_norms, _C, B, rows, units, inside, H, epsilon, NORM)
        tl.store(d_from_h + there, d_recurrent.to(d_from_h.dtype.element_ty), mask=inside)
    else:
        d_value = normalized_back(d_value, total, norms, d_norms, _C, B, rows, units, inside, H, epsilon, NORM)
        d_r, d_recurrent = tl.zeros_like(d_u), d_value
    here_value, here_gates = rows[:, None] * (3 * H) + units[None, :], rows[:, None] * (3 * H) + H + columns[None, :]
    at_value = first * (3 * H) + near[:, None] * (3 * H) + units[None, :]
    at_gates = first * (3 * H) + near[:, None] * (3 * H) + H + columns[None, :]
    tile = join_two(d_r, d_u, ROWS, U)
    tl.store(d_totals + here_value, d_recurrent.to(d_totals.dtype.element_ty), mask=inside)
    tl.store(d_totals + here_gates, tile.to(d_totals.dtype.element_ty), mask=in_gates)
    tl.store(d_gates + at_value, d_value.to(d_gates.dtype.element_ty), mask=inside)
    tl.store(d_gates + at_gates, tile.to(d_gates.dtype.element_ty), mask=in_gates)


@triton.jit(do_not_specialize=["T", "B", "step"])
def gru_bwd_reset(
    d_rh, norms, lengths, hs, gates, past_h, d_norms, d_gates, d_totals, T, B, step, clock, epsilon,
    H: tl.constexpr, ROWS: tl.constexpr, U: tl.constexpr, NORM: tl.constexpr,
    GATE_ACTIVATION: tl.constexpr, LENGTHS: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    """Gradient of r's total from that of r * h, `d_rh [B, H]`: a column for each unit of `d_totals` and `d_gates`."""
    step = step_at(step, clock)
    rows, here, units, inside = tile_of(B, H, ROWS, U)
    columns = gate_columns(2, H, U)
    in_gates = here[:, None] & (columns < 2 * H)[None, :]
    length, at = row_lengths(lengths, rows, here, T, LENGTHS), rows[:, None] * H + units[None, :]
    first, near = step_rows(step, T, B, length, rows, LENGTHS, REVERSE)
    old = tl.load(hs + first * H + near[:, None] * H + units[None, :], mask=inside, other=0.0).to(tl.float32)
    at_two = first * (2 * H) + near[:, None] * (2 * H) + columns[None, :]
    total, _ = split_two(tl.load(gates + at_two, mask=in_gates, other=0.0).to(tl.float32), ROWS, U)
    r = total
    if NORM:
        r = _gate(total, norms, _R, units, inside, H, epsilon, NORM, GATE_ACTIVATION)
    d_r, d_old = reset_back(tl.load(d_rh + at, mask=inside, other=0.0).to(tl.float32), old, r, GATE_ACTIVATION)
    d_r = normalized_back(d_r, total, norms, d_norms, _R, B, rows, units, inside, H, epsilon, NORM)
    overwrite(past_h + at, tl.load(past_h + at, mask=inside, other=0.0) + d_old, inside)
    here_r = rows[:, None] * (3 * H) + H + 2 * units[None, :]
    at_r = first * (3 * H) + near[:, None] * (3 * H) + H + 2 * units[None, :]
    tl.store(d_totals + here_r, d_r.to(d_totals.dtype.element_ty), mask=inside)
    tl.store(d_gates + at_r, d_r.to(d_gates.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["B"])
def gru_gates_again(
    x_gates, product, bias, norms, gates, values, from_h, B, epsilon,
    H: tl.constexpr, ROWS: tl.constexpr, U: tl.constexpr, NORM: tl.constexpr, AFTER: tl.constexpr, BIAS: tl.constexpr,
    ACTIVATION: tl.constexpr, GATE_ACTIVATION: tl.constexpr,
):  # fmt: skip
    """Gates, candidates and their recurrent products of all steps, as forward would have kept them; B are all rows."""
    rows, here, units, inside = tile_of(B, H, ROWS, U)
    columns = gate_columns(2, H, U)
    in_gates = here[:, None] & (columns < 2 * H)[None, :]
    _candidate_of(
        x_gates, product, bias, norms, gates, values, from_h, 0, rows, rows, units, columns, inside, in_gates, epsilon,
        H, ROWS, U, NORM, AFTER, BIAS, ACTIVATION, GATE_ACTIVATION,
    )  # fmt: skip
