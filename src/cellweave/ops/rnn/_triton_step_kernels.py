"""The elementwise part of one step of the plain recurrent network as Triton kernels: what runs between two products."""

from __future__ import annotations

import triton
import triton.language as tl

from cellweave.ops.common._triton_device import activated, row_lengths, slope, step_rows
from cellweave.ops.common._triton_step_device import (
    finish_step,
    normalized,
    normalized_back,
    overwrite,
    step_at,
    tile_of,
    unfinish_step,
)


@triton.jit(do_not_specialize=["T", "B", "step"])
def rnn_fwd_step(
    x_gates, product, norms, reset_h, lengths, resets, table, scales, given, h, out, hs, gates, all_h, T, B, step,
    clock, epsilon, H: tl.constexpr, ROWS: tl.constexpr, U: tl.constexpr, NORM: tl.constexpr, ACTIVATION: tl.constexpr,
    LENGTHS: tl.constexpr, RESETS: tl.constexpr, GIVEN_RESETS: tl.constexpr, REVERSE: tl.constexpr,
    COUNT: tl.constexpr, KINDS: tl.constexpr, BITS: tl.constexpr, ZONE_H: tl.constexpr, SAVE: tl.constexpr,
    STATES: tl.constexpr,
):  # fmt: skip
    """A step from its product to h.

    Args:
        product: Of h and the recurrent weight, `[B, H]`. norms: Gamma and beta, `[2, H]`. h: State, `[B, H]`;
            overwritten. The rest as `rnn_fwd_persistent` has it; totals that are normalized are kept as such.
    """
    step = step_at(step, clock)
    rows, here, units, inside = tile_of(B, H, ROWS, U)
    length = row_lengths(lengths, rows, here, T, LENGTHS)
    first, near = step_rows(step, T, B, length, rows, LENGTHS, REVERSE)
    at, there = rows[:, None] * H + units[None, :], first * H + near[:, None] * H + units[None, :]
    total = tl.load(x_gates + there, mask=inside, other=0.0).to(tl.float32)
    total += tl.load(product + at, mask=inside, other=0.0).to(tl.float32)
    new_h = activated(normalized(total, norms, 0, units, inside, H, epsilon, NORM), ACTIVATION)
    if gates is not None:
        if not NORM:
            total = new_h
        tl.store(gates + there, total.to(gates.dtype.element_ty), mask=inside)
    finish_step(
        new_h, h, hs, reset_h, resets, out, all_h, table, scales, given, step, T, B, length, rows, here, units,
        inside, H, LENGTHS, RESETS, GIVEN_RESETS, REVERSE, COUNT, KINDS, BITS, ZONE_H, STATES, SAVE,
    )  # fmt: skip


@triton.jit(do_not_specialize=["T", "B", "step"])
def rnn_bwd_step(
    product, norms, lengths, resets, table, scales, given, gates, d_out, d_all_h, past_h, sum_reset_h, d_norms, d_gates,
    d_totals, T, B, step, clock, epsilon,
    H: tl.constexpr, ROWS: tl.constexpr, U: tl.constexpr, NORM: tl.constexpr, ACTIVATION: tl.constexpr,
    LENGTHS: tl.constexpr, RESETS: tl.constexpr, GIVEN_RESETS: tl.constexpr, REVERSE: tl.constexpr,
    COUNT: tl.constexpr, KINDS: tl.constexpr, BITS: tl.constexpr, ZONE_H: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    """Gradients of a step's totals: `d_totals [B, H]`, and by memory index `d_gates`.

    Args:
        product: Of the later step's totals' gradients and the recurrent weight, `[B, H]`. past_h: float32, what else
            reaches h; overwritten. sum_reset_h, d_norms: float32, of given states, and `[2, B, H]`; added to.
    """
    step = step_at(step, clock)
    rows, here, units, inside = tile_of(B, H, ROWS, U)
    length = row_lengths(lengths, rows, here, T, LENGTHS)
    d_new, d_old = unfinish_step(
        past_h, product, sum_reset_h, resets, d_out, d_all_h, table, scales, given, step, T, B, length, rows, here,
        units, inside, H, LENGTHS, RESETS, GIVEN_RESETS, REVERSE, COUNT, KINDS, BITS, ZONE_H, STATES,
    )  # fmt: skip
    first, near = step_rows(step, T, B, length, rows, LENGTHS, REVERSE)
    at, there = rows[:, None] * H + units[None, :], first * H + near[:, None] * H + units[None, :]
    total = tl.load(gates + there, mask=inside, other=0.0).to(tl.float32)
    value = total
    if NORM:
        value = activated(normalized(total, norms, 0, units, inside, H, epsilon, NORM), ACTIVATION)
    d_total = d_new * slope(value, ACTIVATION)
    d_total = normalized_back(d_total, total, norms, d_norms, 0, B, rows, units, inside, H, epsilon, NORM)
    overwrite(past_h + at, d_old, inside)
    tl.store(d_totals + at, d_total.to(d_totals.dtype.element_ty), mask=inside)
    overwrite(d_gates + there, d_total, inside)  # where values were computed again


@triton.jit(do_not_specialize=["B"])
def rnn_gates_again(gates, B, H: tl.constexpr, ROWS: tl.constexpr, U: tl.constexpr, ACTIVATION: tl.constexpr):
    """Totals `[B, H]` become values, in place; B are the rows of all steps."""
    rows, _, units, inside = tile_of(B, H, ROWS, U)
    at = gates + rows[:, None] * H + units[None, :]
    value = activated(tl.load(at, mask=inside, other=0.0).to(tl.float32), ACTIVATION)
    overwrite(at, value, inside)
