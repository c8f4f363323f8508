"""Device functions that the Triton kernels of all recurrences share: activations, masks, products, meeting points.

Nothing here runs by itself: kernels call these functions, and Triton compiles them together.
"""

from __future__ import annotations

import triton
import triton.language as tl

#: The self-normalizing unit's factor, and that times its other constant. Source: Klambauer et al. 2017.
_SELU_SCALE = tl.constexpr(1.0507009873554805)
_SELU_LIMIT = tl.constexpr(1.7580993408473766)


@triton.jit
def squash(x):
    """The logistic function, from `exp`."""
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def hyperbolic_tangent(x):
    """From `exp` of a number that is never positive, so that nothing overflows."""
    small = tl.exp(-2.0 * tl.abs(x))
    size = (1.0 - small) / (1.0 + small)
    return tl.where(x < 0, -size, size)


@triton.jit
def at_least(x, bound):
    """The larger of both. NaN stays NaN, for which a GPU's plain maximum gives the other number."""
    return tl.maximum(x, bound, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def at_most(x, bound):
    """The smaller of both; NaN stays NaN."""
    return tl.minimum(x, bound, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def activated(x, KIND: tl.constexpr):
    """An activation by its number in `_triton_backend.ACTIVATIONS`."""
    if KIND == 0:
        return x
    elif KIND == 1:
        return hyperbolic_tangent(x)
    elif KIND == 2:
        return squash(x)
    elif KIND == 3:
        return at_least(x, 0.0)
    elif KIND == 4:
        return at_most(at_least(x, 0.0), 6.0)
    elif KIND == 5:
        return at_most(at_least(0.2 * x + 0.5, 0.0), 1.0)
    elif KIND == 6:
        return x / (1.0 + tl.abs(x))
    elif KIND == 7:
        return at_least(x, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(x)))
    elif KIND == 8:
        return tl.where(x > 0, x, tl.exp(at_most(x, 0.0)) - 1.0)
    elif KIND == 9:
        return tl.exp(x)
    elif KIND == 10:
        return tl.where(x > 0, x, 0.2 * x)
    else:
        return tl.where(x > 0, _SELU_SCALE * x, _SELU_LIMIT * (tl.exp(at_most(x, 0.0)) - 1.0))


@triton.jit
def slope(y, KIND: tl.constexpr):
    """The derivative of an activation where its value is `y`."""
    if KIND == 0:
        return tl.full(y.shape, 1.0, tl.float32)
    elif KIND == 1:
        return 1.0 - y * y
    elif KIND == 2:
        return y * (1.0 - y)
    elif KIND == 3:
        return tl.where(y > 0, 1.0, 0.0)
    elif KIND == 4:
        return tl.where((y > 0) & (y < 6.0), 1.0, 0.0)
    elif KIND == 5:
        return tl.where((y > 0) & (y < 1.0), 0.2, 0.0)
    elif KIND == 6:
        return (1.0 - tl.abs(y)) * (1.0 - tl.abs(y))
    elif KIND == 7:
        return 1.0 - tl.exp(-y)
    elif KIND == 8:
        return tl.where(y > 0, 1.0, y + 1.0)
    elif KIND == 9:
        return y
    elif KIND == 10:
        return tl.where(y > 0, 1.0, 0.2)
    else:
        return tl.where(y < 0, y + _SELU_LIMIT, _SELU_SCALE)


@triton.jit
def words(table, mask, step, flat):
    """The random word of each element: word `flat % 4` of block `start + step * stride + flat // 4`.

    A row of the table holds seed, high and low half of the 128-bit start, stride, threshold, and where given factors
    begin. Counters are added in 64 bits and then cut: Triton's Philox takes another variant for 64-bit counters.
    """
    row = table + mask * 6
    seed = tl.load(row).to(tl.uint64)
    upper = tl.load(row + 1).to(tl.uint64)
    lower = tl.load(row + 2).to(tl.uint64)
    offset = tl.load(row + 3) * step + (flat >> 2)
    low = lower + offset.to(tl.uint64)
    high = upper + (low < lower).to(tl.uint64)
    a, b, c, d = tl.philox(
        seed, low.to(tl.uint32), (low >> 32).to(tl.uint32), high.to(tl.uint32), (high >> 32).to(tl.uint32)
    )
    word = flat & 3
    return tl.where(word == 0, a, tl.where(word == 1, b, tl.where(word == 2, c, d)))


@triton.jit
def mask_factor(
    table, scales, given, mask, step, rows, units, inside, WIDTH, BITS: tl.constexpr, KIND: tl.constexpr
):  # fmt: skip
    """What one mask multiplies a tile by: 0 or its scale; given factors; or what a mask is worth on average."""
    scale = tl.load(scales + mask)
    if KIND & 16:
        flat = rows[:, None].to(tl.int64) * WIDTH + units[None, :]
    else:
        flat = tl.zeros_like(rows)[:, None].to(tl.int64) + units[None, :]
    if KIND & 64:
        found = tl.full(inside.shape, 1.0, tl.float32) * scale
    elif KIND & 32:
        found = tl.load(given + tl.load(table + mask * 6 + 5) + flat, mask=inside, other=0.0)
    else:
        kept = (words(table, mask, step, flat) & ((1 << BITS) - 1)).to(tl.int64) >= tl.load(table + mask * 6 + 4)
        found = tl.where(kept, scale, 0.0)
    return found


@triton.jit
def factors(
    table, scales, given, step, rows, units, inside, WIDTH,
    PLACE: tl.constexpr, STEPWISE: tl.constexpr, COUNT: tl.constexpr, KINDS: tl.constexpr, BITS: tl.constexpr,
):  # fmt: skip
    """The product of all masks at a place: those drawn at every step, or those that serve all steps.

    KINDS holds 7 bits for each mask: its place (3), drawn at every step, a row for each batch row, given, averaged.
    """
    found = tl.full(inside.shape, 1.0, tl.float32)
    for mask in tl.static_range(COUNT):
        if ((KINDS >> (7 * mask)) & 15) == PLACE + 8 * STEPWISE:
            found *= mask_factor(
                table, scales, given, mask, step, rows, units, inside, WIDTH, BITS, (KINDS >> (7 * mask)) & 127
            )
    return found


@triton.jit
def step_rows(step, T, B, length, rows, LENGTHS: tl.constexpr, REVERSE: tl.constexpr):
    """Where a step lies in a buffer `[T, B, ...]`: the row that its rows count from, and the rows.

    Read backwards, a row's steps count from its own end; past it they lie as they are. Everywhere else the rows of all
    steps are the same: small numbers, for which no registers are spent anew.
    """
    if LENGTHS and REVERSE:
        first = tl.full((), 0, tl.int64)
        near = tl.where(step < length, length - 1 - step, step).to(tl.int64) * B + rows
    elif REVERSE:
        first, near = (tl.full((), 0, tl.int64) + (T - 1 - step)) * B, rows
    else:
        first, near = (tl.full((), 0, tl.int64) + step) * B, rows
    return first, near


@triton.jit
def row_lengths(lengths, rows, here, T, LENGTHS: tl.constexpr):
    """Steps of each row; all T where rows have no lengths of their own."""
    if LENGTHS:
        found = tl.load(lengths + rows, mask=here, other=0)
    else:
        found = tl.zeros_like(rows) + T
    return found


@triton.jit
def begins_anew(resets, first, near, here, active):
    """Which rows `[ROWS, 1]` are reset before a step that belongs to them."""
    return active & (tl.load(resets + first + near, mask=here, other=0) != 0)[:, None]


@triton.jit
def reset_to(state, given, at, inside, fresh, GIVEN: tl.constexpr):
    """A state with those rows replaced: by given ones, else by zeros."""
    if GIVEN:
        found = tl.where(fresh, tl.load(given + at, mask=inside, other=0.0).to(tl.float32), state)
    else:
        found = tl.where(fresh, 0.0, state)
    return found


@triton.jit
def load_weights(
    base, first, size, stride_k, stride_n, columns, columns_inside, PIECE: tl.constexpr, SPLIT: tl.constexpr
):  # fmt: skip
    """Rows `first .. first + PIECE - 1` of a weight, zero beyond `size`; in SPLIT parts if more than one."""
    if SPLIT == 1:
        k = first + tl.arange(0, PIECE)
        at = base + k[:, None] * stride_k + columns[None, :] * stride_n
        return tl.load(at, mask=(k < size)[:, None] & columns_inside[None, :], other=0.0)
    else:
        part = tl.arange(0, SPLIT)[:, None, None] * (PIECE // SPLIT)
        k = first + part + tl.arange(0, PIECE // SPLIT)[None, :, None]
        at = base + k * stride_k + columns[None, None, :] * stride_n
        return tl.load(at, mask=(k < size) & columns_inside[None, None, :], other=0.0)


@triton.jit
def load_operand(base, offsets, rows_inside, first, size, PIECE: tl.constexpr, SPLIT: tl.constexpr):
    """The same columns of rows that other programs wrote: past the first cache, which does not see their writes."""
    if SPLIT == 1:
        k = first + tl.arange(0, PIECE)
        at = base + offsets[:, None] + k[None, :]
        return tl.load(at, mask=rows_inside[:, None] & (k < size)[None, :], other=0.0, cache_modifier=".cg")
    else:
        part = tl.arange(0, SPLIT)[:, None, None] * (PIECE // SPLIT)
        k = first + part + tl.arange(0, PIECE // SPLIT)[None, None, :]
        at = base + offsets[None, :, None] + k
        return tl.load(at, mask=rows_inside[None, :, None] & (k < size), other=0.0, cache_modifier=".cg")


@triton.jit
def multiply(operand, weights, SPLIT: tl.constexpr, PRECISION: tl.constexpr):
    """Their product, float32; the parts are summed in a fixed order."""
    if SPLIT == 1:
        return tl.dot(operand, weights, input_precision=PRECISION)
    else:
        return tl.sum(tl.dot(operand, weights, input_precision=PRECISION), axis=0)


@triton.jit
def split_four(tile, ROWS: tl.constexpr, UNITS: tl.constexpr):
    """Columns `4 * unit + gate` as one tile for each gate."""
    even, odd = tl.split(tl.reshape(tile, (ROWS, UNITS, 2, 2)))
    first, third = tl.split(even)
    second, fourth = tl.split(odd)
    return first, second, third, fourth


@triton.jit
def join_four(first, second, third, fourth, ROWS: tl.constexpr, UNITS: tl.constexpr):
    """What `split_four` takes apart."""
    return tl.reshape(tl.join(tl.join(first, third), tl.join(second, fourth)), (ROWS, 4 * UNITS))


@triton.jit
def split_two(tile, ROWS: tl.constexpr, UNITS: tl.constexpr):
    """Columns `2 * unit + gate` as one tile for each gate."""
    return tl.split(tl.reshape(tile, (ROWS, UNITS, 2)))


@triton.jit
def join_two(first, second, ROWS: tl.constexpr, UNITS: tl.constexpr):
    """What `split_two` takes apart."""
    return tl.reshape(tl.join(first, second), (ROWS, 2 * UNITS))


@triton.jit
def arrive(counter, PROGRAMS: tl.constexpr):
    """Tell the group that this program has written what the others wait for."""
    tl.debug_barrier()
    if PROGRAMS > 1:
        tl.atomic_add(counter, 1, sem="release", scope="gpu")


@triton.jit
def wait(counter, arrivals, PROGRAMS: tl.constexpr, SPINS: tl.constexpr):
    """Wait until so many arrivals were counted; at most SPINS looks, if that is not 0, and then a note of failure."""
    if PROGRAMS > 1:
        seen = tl.atomic_add(counter, 0, sem="acquire", scope="gpu")
        if SPINS == 0:
            while seen < arrivals:
                seen = tl.atomic_add(counter, 0, sem="acquire", scope="gpu")
        else:
            looks = 1
            while (seen < arrivals) & (looks < SPINS):
                seen = tl.atomic_add(counter, 0, sem="acquire", scope="gpu")
                looks += 1
            tl.store(counter + 1, 1, mask=seen < arrivals)
        tl.debug_barrier()


@triton.jit
def hand_on(new, old, keep, keep_out, zone, active, ZONE: tl.constexpr):
    """The output of a step and the state that it hands on, from the new and the old h."""
    if ZONE:
        new = zone * new + (1.0 - zone) * old
    return tl.where(active, new * keep_out, 0.0), tl.where(active, new * keep, old)


@triton.jit
def hand_back(d_state, d_output, keep, keep_out, zone, active, ZONE: tl.constexpr):
    """Gradients of the new h and of the old one, without the way through the step."""
    d_old = tl.where(active, 0.0, d_state)
    d_new = tl.where(active, d_state * keep + d_output * keep_out, 0.0)
    if ZONE:
        d_old += (1.0 - zone) * d_new
        d_new *= zone
    return d_new, d_old
