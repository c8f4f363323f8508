"""Philox4x32-10 random numbers, bit for bit as TensorFlow draws them, in plain torch on any device.

Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"; counter layout and conversions as in
TensorFlow's `random_uniform`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cellweave._errors import ArgumentError
from cellweave._types import dtype_name

#: One execution that draws N elements moves its stream forward by this many blocks per element.
BLOCKS_PER_ELEMENT = 256

_MASK32 = 0xFFFFFFFF
_MASK64 = 0xFFFFFFFFFFFFFFFF
_MULTIPLIER_0 = 0xD2511F53
_MULTIPLIER_1 = 0xCD9E8D57
_WEYL_0 = 0x9E3779B9
_WEYL_1 = 0xBB67AE85
_ROUNDS = 10
#: Words a draw of one dtype takes, its mantissa bits and the scale of its last bit.
_MANTISSA = {torch.float16: 10, torch.bfloat16: 7, torch.float32: 23}


def _product(multiplier: int, words: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    wide = words * multiplier  # wraps past 2**63, which leaves both 32-bit halves right
    return (wide >> 32) & _MASK32, wide & _MASK32


def philox_words(
    seed: int, upper: torch.Tensor | int, lower: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The four 32-bit words of each block.

    Args:
        seed: 64-bit key.
        upper, lower: High and low 64 bits of each block's counter, as two's complement bit patterns in int64 tensors
            of one shape; `upper` may be one number for all.
    Returns:
        Four int64 tensors of that shape, each in 0..2**32-1.
    """
    if isinstance(upper, int):
        upper = torch.full_like(lower, _as_int64(upper))
    c0, c1 = lower & _MASK32, (lower >> 32) & _MASK32
    c2, c3 = upper & _MASK32, (upper >> 32) & _MASK32
    k0, k1 = seed & _MASK32, (seed >> 32) & _MASK32
    for _ in range(_ROUNDS):
        hi0, lo0 = _product(_MULTIPLIER_0, c0)
        hi1, lo1 = _product(_MULTIPLIER_1, c2)
        c0, c1, c2, c3 = hi1 ^ c1 ^ k0, lo1, hi0 ^ c3 ^ k1, lo0
        k0, k1 = (k0 + _WEYL_0) & _MASK32, (k1 + _WEYL_1) & _MASK32
    return c0, c1, c2, c3


def _counters(start: int, offsets: torch.Tensor) -> tuple[torch.Tensor | int, torch.Tensor]:
    """High and low halves of `start + offsets`, 128 bits wide."""
    upper, first = (start >> 64) & _MASK64, start & _MASK64
    lower = offsets + _as_int64(first)  # wraps where the unsigned sum passes 2**64
    room = (1 << 64) - first  # offsets from here on carry
    if room > (1 << 63) - 1:
        return upper, lower
    carried = offsets >= room
    return torch.where(carried, _as_int64(upper + 1), torch.full_like(offsets, _as_int64(upper))), lower


def _as_int64(value: int) -> int:
    value &= _MASK64
    return value - (1 << 64) if value >> 63 else value


def random_uniform(
    shape: Sequence[int],
    dtype: torch.dtype,
    seed: int,
    seed2: int,
    block: int,
    *,
    draws: int = 1,
    stride: int | None = None,
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """Uniform numbers in [0, 1): what an op with these seeds draws in its next `draws` executions.

    Args:
        shape: Shape of one draw.
        dtype: float16, bfloat16, float32 or float64.
        seed, seed2: The op's seed pair, 64 bits each.
        block: Block number that the first draw starts at; `seed2` is the high half of the counter that blocks count
            in, so numbers past 2**64 carry into it.
        draws: How many executions to draw at once.
        stride: Blocks from one draw's start to the next one's; default: `256 * N`, as TensorFlow moves on.
        device: Where the result lies.
    Returns:
        `[draws, *shape]`, of `dtype`.
    Raises:
        ArgumentError: the dtype has no uniform draw.
    """
    count = 1
    for size in shape:
        count *= size
    per_block = 2 if dtype == torch.float64 else 4
    in_draw = torch.arange((count + per_block - 1) // per_block, device=device)
    starts = torch.arange(draws, device=device) * (BLOCKS_PER_ELEMENT * count if stride is None else stride)
    words = philox_words(seed, *_counters((seed2 << 64) + block, starts[:, None] + in_draw[None, :]))
    if dtype == torch.float64:
        pairs = [((words[i] & 0xFFFFF) << 32) + words[i + 1] for i in (0, 2)]
        values = torch.stack(pairs, dim=-1).to(torch.float64) * 2.0**-52
    elif dtype in _MANTISSA:
        bits = _MANTISSA[dtype]
        values = (torch.stack(words, dim=-1) & ((1 << bits) - 1)).to(dtype) * 2.0**-bits
    else:
        raise ArgumentError(f"random_uniform: expected float16, bfloat16, float32 or float64, got {dtype_name(dtype)}.")
    return values.reshape(draws, -1)[:, :count].reshape(draws, *shape)
