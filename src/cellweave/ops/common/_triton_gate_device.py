"""Kernels around products in which each gate multiplies an h of its own: h times the masks of each gate, and back."""

from __future__ import annotations

import triton
import triton.language as tl

from cellweave.ops.common._triton_device import row_lengths
from cellweave.ops.common._triton_step_device import step_at, step_factors, tile_of

#: Place of masks, as `_triton_masks.PLACES` numbers it.
_GATE_H = tl.constexpr(6)


@triton.jit
def _factors_of(
    gate, table, scales, given, step, rows, columns, inside, WIDTH: tl.constexpr, GATES: tl.constexpr,
    COUNT: tl.constexpr, KINDS: tl.constexpr, BITS: tl.constexpr,
):  # fmt: skip
    """The product of a gate's own masks on h at a step: its numbers stand behind those of the gates before it."""
    places = gate * WIDTH + columns
    return step_factors(table, scales, given, step, rows, places, inside, GATES * WIDTH, _GATE_H, COUNT, KINDS, BITS)


@triton.jit(do_not_specialize=["B", "step"])
def gate_operands(
    value, operands, table, scales, given, B, step, clock, WIDTH: tl.constexpr, ROWS: tl.constexpr, U: tl.constexpr,
    GATES: tl.constexpr, FIRST: tl.constexpr, LAST: tl.constexpr, COUNT: tl.constexpr, KINDS: tl.constexpr,
    BITS: tl.constexpr,
):  # fmt: skip
    """What the gates from FIRST up to LAST multiply at a step, `operands [LAST - FIRST, B, WIDTH]`.

    Args:
        value: `[B, WIDTH]`.
    """
    step = step_at(step, clock)
    rows, _, columns, inside = tile_of(B, WIDTH, ROWS, U)
    at = rows[:, None] * WIDTH + columns[None, :]
    found = tl.load(value + at, mask=inside, other=0.0).to(tl.float32)
    for gate in tl.static_range(FIRST, LAST):
        keep = _factors_of(gate, table, scales, given, step, rows, columns, inside, WIDTH, GATES, COUNT, KINDS, BITS)
        there = operands + (gate - FIRST) * B.to(tl.int64) * WIDTH + at
        tl.store(there, (found * keep).to(operands.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["B", "step"])
def gate_gradients(
    operands, value, table, scales, given, B, step, clock, WIDTH: tl.constexpr, ROWS: tl.constexpr, U: tl.constexpr,
    GATES: tl.constexpr, FIRST: tl.constexpr, LAST: tl.constexpr, COUNT: tl.constexpr, KINDS: tl.constexpr,
    BITS: tl.constexpr,
):  # fmt: skip
    """The gradient of `value` in `gate_operands` from those of the operands."""
    step = step_at(step, clock)
    rows, _, columns, inside = tile_of(B, WIDTH, ROWS, U)
    at = rows[:, None] * WIDTH + columns[None, :]
    found = tl.zeros((ROWS, U), tl.float32)
    for gate in tl.static_range(FIRST, LAST):
        keep = _factors_of(gate, table, scales, given, step, rows, columns, inside, WIDTH, GATES, COUNT, KINDS, BITS)
        there = operands + (gate - FIRST) * B.to(tl.int64) * WIDTH + at
        found += keep * tl.load(there, mask=inside, other=0.0).to(tl.float32)
    tl.store(value + at, found.to(value.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["B", "T", "ALL", "gate"])
def operands_of_gate(
    values, operands, lengths, table, scales, given, B, T, ALL, gate, WIDTH: tl.constexpr, ROWS: tl.constexpr,
    U: tl.constexpr, GATES: tl.constexpr, LENGTHS: tl.constexpr, REVERSE: tl.constexpr, COUNT: tl.constexpr,
    KINDS: tl.constexpr, BITS: tl.constexpr,
):  # fmt: skip
    """What one gate multiplies at all steps, `[T, B, WIDTH]` by memory index; ALL is T * B."""
    everywhere, here, columns, inside = tile_of(ALL, WIDTH, ROWS, U)
    memory, rows = everywhere // B, everywhere % B
    step = memory
    if REVERSE:
        length = row_lengths(lengths, rows, here, T, LENGTHS)
        step = tl.where(memory < length, length - 1 - memory, memory)
    keep = _factors_of(
        gate, table, scales, given, step[:, None], rows, columns, inside, WIDTH, GATES, COUNT, KINDS, BITS
    )
    at = everywhere[:, None] * WIDTH + columns[None, :]
    found = keep * tl.load(values + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(operands + at, found.to(operands.dtype.element_ty), mask=inside)
