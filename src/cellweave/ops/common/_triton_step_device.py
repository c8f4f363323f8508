"""What the kernels of single steps share: how a step begins and ends for h, forward and backward.

A program owns a tile of `[B, width]` and waits for nobody: products are made between the launches. States lie in
buffers of their own, which each step overwrites; what backward needs lies by memory index, as the kernels of whole
sequences leave it. Where a cell normalizes, a tile has whole rows, and what is kept are totals before they are
normalized, from which backward makes the rest again.
"""

from __future__ import annotations

import triton
import triton.language as tl

from cellweave.ops.common._triton_device import (
    begins_anew,
    factors,
    hand_back,
    hand_on,
    reset_to,
    row_lengths,
    step_rows,
)

#: Places of masks, as `_triton_masks.PLACES` numbers them.
_H, _OUTPUT, _ZONE_H = tl.constexpr(1), tl.constexpr(3), tl.constexpr(4)


@triton.jit
def tile_of(B, WIDTH: tl.constexpr, ROWS: tl.constexpr, U: tl.constexpr):
    """A program's tile of `[B, WIDTH]`: rows and which of them there are, columns and which elements there are.

    Rows are counted in 64 bits, as everything is that is counted from them: a step may have 2^31 elements and more.
    """
    part, parts = tl.program_id(0), tl.cdiv(WIDTH, U)
    rows, columns = (part // parts).to(tl.int64) * ROWS + tl.arange(0, ROWS), (part % parts) * U + tl.arange(0, U)
    here = rows < B
    return rows, here, columns, here[:, None] & (columns < WIDTH)[None, :]


@triton.jit
def step_at(step, clock):
    """The number of a step: counted from the one that stands in `clock`, an int32 in memory, where there is one."""
    if clock is not None:
        step += tl.load(clock)
    return step


@triton.jit
def overwrite(at, value, inside):
    """Store what takes the place of what the program has read there.

    Where a tile is smaller than the program, several warps read each element, and hand on through shared memory what
    they make of it: they meet here, so that none reads what another has stored already.
    """
    tl.debug_barrier()
    tl.store(at, value.to(at.dtype.element_ty), mask=inside)


@triton.jit
def gate_columns(GATES: tl.constexpr, WIDTH: tl.constexpr, U: tl.constexpr):
    """Columns `GATES * unit + gate` of the tile's units."""
    return (tl.program_id(0) % tl.cdiv(WIDTH, U)) * (GATES * U) + tl.arange(0, GATES * U)


@triton.jit
def _normal_form(value, inside, WIDTH: tl.constexpr, epsilon):
    """Whole rows with mean 0 and variance 1, and what they were multiplied by for it."""
    centred = tl.where(inside, value - tl.sum(tl.where(inside, value, 0.0), axis=1)[:, None] / WIDTH, 0.0)
    factor = 1.0 / tl.sqrt(tl.sum(centred * centred, axis=1)[:, None] / WIDTH + epsilon)
    return centred * factor, factor


@triton.jit
def _row_of(norms, number, units, WIDTH: tl.constexpr):
    """A gamma or beta, `[1, units]`."""
    return tl.load(norms + number * WIDTH + units, mask=units < WIDTH, other=0.0).to(tl.float32)[None, :]


@triton.jit
def normalized(value, norms, PART: tl.constexpr, units, inside, WIDTH: tl.constexpr, epsilon, NORM: tl.constexpr):
    """Whole rows normalized, times gamma plus beta; as they are where nothing is normalized.

    Args:
        norms: Gammas and betas in turn, `[2 * parts, WIDTH]`. PART: Which of them.
    """
    if NORM:
        form, _ = _normal_form(value, inside, WIDTH, epsilon)
        value = form * _row_of(norms, 2 * PART, units, WIDTH) + _row_of(norms, 2 * PART + 1, units, WIDTH)
    return value


@triton.jit
def normalized_back(
    d, value, norms, d_norms, PART: tl.constexpr, B, rows, units, inside, WIDTH: tl.constexpr, epsilon,
    NORM: tl.constexpr,
):  # fmt: skip
    """The gradient of what `normalized` took, `value`, from that of what it gave.

    Args:
        d_norms: Float32 `[2 * parts, B, WIDTH]`, each row's share of the gradients of gammas and betas; added to.
    """
    if NORM:
        form, factor = _normal_form(value, inside, WIDTH, epsilon)
        d = tl.where(inside, d, 0.0)
        at = d_norms + (2 * PART * B + rows[:, None]) * WIDTH + units[None, :]
        tl.store(at, tl.load(at, mask=inside, other=0.0) + d * form, mask=inside)
        at += B.to(tl.int64) * WIDTH
        tl.store(at, tl.load(at, mask=inside, other=0.0) + d, mask=inside)
        d *= _row_of(norms, 2 * PART, units, WIDTH)
        mean, along = tl.sum(d, axis=1)[:, None] / WIDTH, tl.sum(d * form, axis=1)[:, None] / WIDTH
        d = factor * (d - mean - form * along)
    return d


@triton.jit
def step_factors(
    table, scales, given, step, rows, columns, inside, WIDTH,
    PLACE: tl.constexpr, COUNT: tl.constexpr, KINDS: tl.constexpr, BITS: tl.constexpr,
):  # fmt: skip
    """The product of all masks at a place at one step."""
    always = factors(table, scales, given, 0, rows, columns, inside, WIDTH, PLACE, 0, COUNT, KINDS, BITS)
    return always * factors(table, scales, given, step, rows, columns, inside, WIDTH, PLACE, 1, COUNT, KINDS, BITS)


@triton.jit
def enter_step(
    state, current, saved, reset, resets, step, T, B, length, rows, here, columns, inside, WIDTH: tl.constexpr,
    LENGTHS: tl.constexpr, RESETS: tl.constexpr, GIVEN_RESETS: tl.constexpr, REVERSE: tl.constexpr, SAVE: tl.constexpr,
):  # fmt: skip
    """Store a state for the step that comes: anew where that resets it. Step T, which is none, takes it as it is."""
    at = rows[:, None] * WIDTH + columns[None, :]
    first, near = step_rows(tl.minimum(step, T - 1), T, B, length, rows, LENGTHS, REVERSE)
    if RESETS:
        fresh = begins_anew(resets, first, near, here, (step < length)[:, None])
        state = reset_to(state, reset, at, inside, fresh, GIVEN_RESETS)
    if SAVE:
        there = first * WIDTH + near[:, None] * WIDTH + columns[None, :]
        tl.store(saved + there, state.to(saved.dtype.element_ty), mask=inside & (step < T))
    overwrite(current + at, state, inside)


@triton.jit
def leave_step(
    d_state, d_reset, resets, step, T, B, length, rows, here, columns, inside, WIDTH: tl.constexpr,
    LENGTHS: tl.constexpr, RESETS: tl.constexpr, GIVEN_RESETS: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    """The gradient of the state before a step's reset; what the reset cut off is added to the given state's."""
    if RESETS:
        first, near = step_rows(tl.minimum(step, T - 1), T, B, length, rows, LENGTHS, REVERSE)
        fresh = begins_anew(resets, first, near, here, (step < length)[:, None])
        if GIVEN_RESETS:
            at = d_reset + rows[:, None] * WIDTH + columns[None, :]
            gathered = tl.load(at, mask=inside, other=0.0)
            tl.store(at, gathered + tl.where(fresh, d_state, 0.0), mask=inside)
        d_state = tl.where(fresh, 0.0, d_state)
    return d_state


@triton.jit
def finish_step(
    new, h, hs, reset_h, resets, out, all_h, table, scales, given, step, T, B, length, rows, here, columns, inside,
    WIDTH: tl.constexpr, LENGTHS: tl.constexpr, RESETS: tl.constexpr, GIVEN_RESETS: tl.constexpr,
    REVERSE: tl.constexpr, COUNT: tl.constexpr, KINDS: tl.constexpr, BITS: tl.constexpr, ZONE_H: tl.constexpr,
    STATES: tl.constexpr, SAVE: tl.constexpr,
):  # fmt: skip
    """Store a step's output and h for the step that comes, from its new h and the old one in `h`."""
    old = tl.load(h + rows[:, None] * WIDTH + columns[None, :], mask=inside, other=0.0).to(tl.float32)
    keep = step_factors(table, scales, given, step, rows, columns, inside, WIDTH, _H, COUNT, KINDS, BITS)
    keep_out = step_factors(table, scales, given, step, rows, columns, inside, WIDTH, _OUTPUT, COUNT, KINDS, BITS)
    zone = step_factors(table, scales, given, step, rows, columns, inside, WIDTH, _ZONE_H, COUNT, KINDS, BITS)
    output, state = hand_on(new, old, keep, keep_out, zone, (step < length)[:, None], ZONE_H)
    first, near = step_rows(step, T, B, length, rows, LENGTHS, REVERSE)
    there = first * WIDTH + near[:, None] * WIDTH + columns[None, :]
    tl.store(out + there, output.to(out.dtype.element_ty), mask=inside)
    if STATES:
        tl.store(all_h + there, state.to(all_h.dtype.element_ty), mask=inside)
    enter_step(
        state, h, hs, reset_h, resets, step + 1, T, B, length, rows, here, columns, inside, WIDTH,
        LENGTHS, RESETS, GIVEN_RESETS, REVERSE, SAVE,
    )  # fmt: skip


@triton.jit
def unfinish_step(
    past, product, d_reset_h, resets, d_out, d_all_h, table, scales, given, step, T, B, length, rows, here, columns,
    inside, WIDTH: tl.constexpr, LENGTHS: tl.constexpr, RESETS: tl.constexpr, GIVEN_RESETS: tl.constexpr,
    REVERSE: tl.constexpr, COUNT: tl.constexpr, KINDS: tl.constexpr, BITS: tl.constexpr, ZONE_H: tl.constexpr,
    STATES: tl.constexpr,
):  # fmt: skip
    """Gradients of a step's new h and of the old one, without the way through the step.

    `past + product` is the gradient of h that the later step started from.
    """
    at = rows[:, None] * WIDTH + columns[None, :]
    d_h = tl.load(past + at, mask=inside, other=0.0) + tl.load(product + at, mask=inside, other=0.0).to(tl.float32)
    d_h = leave_step(
        d_h, d_reset_h, resets, step + 1, T, B, length, rows, here, columns, inside, WIDTH,
        LENGTHS, RESETS, GIVEN_RESETS, REVERSE,
    )  # fmt: skip
    first, near = step_rows(step, T, B, length, rows, LENGTHS, REVERSE)
    there = first * WIDTH + near[:, None] * WIDTH + columns[None, :]
    d_output = tl.load(d_out + there, mask=inside, other=0.0).to(tl.float32)
    if STATES:
        d_h += tl.load(d_all_h + there, mask=inside, other=0.0).to(tl.float32)
    keep = step_factors(table, scales, given, step, rows, columns, inside, WIDTH, _H, COUNT, KINDS, BITS)
    keep_out = step_factors(table, scales, given, step, rows, columns, inside, WIDTH, _OUTPUT, COUNT, KINDS, BITS)
    zone = step_factors(table, scales, given, step, rows, columns, inside, WIDTH, _ZONE_H, COUNT, KINDS, BITS)
    return hand_back(d_h, d_output, keep, keep_out, zone, (step < length)[:, None], ZONE_H)


@triton.jit(do_not_specialize=["T", "B"])
def first_state(
    start, current, saved, reset, lengths, resets, T, B, WIDTH: tl.constexpr, ROWS: tl.constexpr, U: tl.constexpr,
    LENGTHS: tl.constexpr, RESETS: tl.constexpr, GIVEN_RESETS: tl.constexpr, REVERSE: tl.constexpr, SAVE: tl.constexpr,
):  # fmt: skip
    """The state `[B, WIDTH]` that step 0 starts from, in `current`, and in `saved [T, B, WIDTH]` too."""
    rows, here, columns, inside = tile_of(B, WIDTH, ROWS, U)
    length = row_lengths(lengths, rows, here, T, LENGTHS)
    state = tl.load(start + rows[:, None] * WIDTH + columns[None, :], mask=inside, other=0.0).to(tl.float32)
    enter_step(
        state, current, saved, reset, resets, 0, T, B, length, rows, here, columns, inside, WIDTH,
        LENGTHS, RESETS, GIVEN_RESETS, REVERSE, SAVE,
    )  # fmt: skip


@triton.jit(do_not_specialize=["T", "B"])
def first_gradient(
    past, product, d_start, d_reset, lengths, resets, T, B,
    WIDTH: tl.constexpr, ROWS: tl.constexpr, U: tl.constexpr,
    LENGTHS: tl.constexpr, RESETS: tl.constexpr, GIVEN_RESETS: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    """The gradient of the state that step 0 started from, before its reset."""
    rows, here, columns, inside = tile_of(B, WIDTH, ROWS, U)
    length, at = row_lengths(lengths, rows, here, T, LENGTHS), rows[:, None] * WIDTH + columns[None, :]
    d_state = tl.load(past + at, mask=inside, other=0.0) + tl.load(product + at, mask=inside, other=0.0).to(tl.float32)
    d_state = leave_step(
        d_state, d_reset, resets, 0, T, B, length, rows, here, columns, inside, WIDTH,
        LENGTHS, RESETS, GIVEN_RESETS, REVERSE,
    )  # fmt: skip
    tl.store(d_start + at, d_state.to(d_start.dtype.element_ty), mask=inside)
