"""Random masks of a layer run, each with its place in its random stream."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch

from cellweave._errors import ArgumentError
from cellweave._types import dtype_name
from cellweave.ops.common._dropout import drop_by_floor, drop_by_threshold, kept_elements
from cellweave.ops.common._philox import random_uniform
from cellweave.specs import ZONES, MaskSpec

#: Bits of a uniform number: it is a whole multiple of `2**-bits`.
MANTISSA_BITS = {torch.float16: 10, torch.bfloat16: 7, torch.float32: 23, torch.float64: 52}


@dataclass(eq=False, slots=True)  # not frozen: some are made at every call, and freezing costs 2 us each
class BoundMask:
    """A mask that knows what it will draw: its keep probability and its place in its stream.

    Attributes:
        spec: Where it acts and how often it is drawn.
        keep: Probability of keeping an element, in (0, 1]; of zoneout: of its new value, in [0, 1].
        by_floor: True: `value / keep * floor(keep + u)`, TF1's variational and fed masks; False: `u >= 1 - keep`, a
            constant per-step mask. The two differ in rounding, and in which elements they keep.
        seed: Philox key, 64 bits.
        seed2, block: Halves of the counter of step 0's first block, `(seed2 << 64) + block`.
        stride: Blocks from one step's draw to the next; 0 where one draw serves all steps.
        noise: Uniform noise `[1 or B, N]` of the values' dtype, in place of a stream.
        expected: Zoneout without a draw, as in evaluation: `keep * new + (1 - keep) * old`.
        dtype: Draws are those of this dtype, in which the values were before; None: of the values' own.
    """

    spec: MaskSpec
    keep: float
    by_floor: bool
    seed: int = 0
    seed2: int = 0
    block: int = 0
    stride: int = 0
    noise: torch.Tensor | None = None
    expected: bool = False
    dtype: torch.dtype | None = None

    def threshold(self, dtype: torch.dtype) -> int:
        """The smallest mantissa that is kept: of 23 bits for float32, 52 for float64."""
        return 0 if self.expected else threshold(self.keep, self.by_floor, dtype)

    def scale(self, dtype: torch.dtype) -> float:
        """What a kept element is multiplied by, up to rounding: `1 / keep`, with `keep` as the dtype holds it.

        A zoneout multiplies by 1, an expected one everything by `keep`.
        """
        if self.spec.place in ZONES:
            return self.keep if self.expected else 1.0
        return _scale(self.keep, self.by_floor, dtype)

    def draws(self, steps: int, rows: int, width: int, like: torch.Tensor) -> torch.Tensor:
        """The uniform noise: `[steps, rows, width]` if drawn at every step, else `[1 or rows, width]`.

        Where nothing is drawn, because a mask is an expected one, zeros that broadcast to it.
        """
        dtype = self.dtype or like.dtype
        if self.expected:
            return like.new_zeros((steps, 1, width) if self.spec.per_step else (1, width), dtype=dtype)
        if self.noise is not None:
            return self.noise
        shape = (rows if self.spec.per_step or self.spec.per_row else 1, width)
        draws = steps if self.spec.per_step else 1
        noise = random_uniform(
            shape, dtype, self.seed, self.seed2, self.block,
            draws=draws, stride=self.stride if self.spec.per_step else 0, device=like.device,
        )  # fmt: skip
        return noise if self.spec.per_step else noise[0]

    def apply(self, value: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """The masked value for noise that broadcasts to its shape."""
        if noise.dtype != value.dtype:
            kept = kept_elements(noise, self.keep, by_floor=self.by_floor).to(value.dtype)
            return value * (kept * self.scale(noise.dtype))
        return drop_by_floor(value, noise, self.keep) if self.by_floor else drop_by_threshold(value, noise, self.keep)

    def new_share(self, noise: torch.Tensor) -> torch.Tensor:
        """What zoneout multiplies the new value by, for noise of any shape: 0, 1, or the expected share."""
        if self.expected:
            return torch.full_like(noise, self.keep)
        return kept_elements(noise, self.keep, by_floor=self.by_floor)

    def factors(self, rows: int, width: int, like: torch.Tensor) -> torch.Tensor:
        """What a mask that serves all steps multiplies by: 0 or `1 / keep`, of zoneout 0 or 1; `[1 or rows, width]`."""
        noise = self.draws(1, rows, width, like)
        if self.spec.place in ZONES:
            share = self.new_share(noise[0] if self.expected and self.spec.per_step else noise)
            return share.to(like.dtype).contiguous()
        return self.apply(torch.ones((), dtype=like.dtype, device=like.device), noise).contiguous()


def apply_mask(x: torch.Tensor, mask: BoundMask) -> torch.Tensor:
    """A sequence `[T, B, N]` times a mask, steps counted from 0.

    Bit for bit what `drop_by_threshold` and `drop_by_floor` give step by step.
    """
    steps, rows, width = x.shape
    return mask.apply(x, mask.draws(steps, rows, width, x))


@functools.lru_cache(maxsize=1024)
def threshold(keep: float, by_floor: bool, dtype: torch.dtype) -> int:
    """The smallest whole `m` for which noise `m * 2**-bits` is kept; `2**bits` where none is.

    Both rules are monotone in the noise, so the exact bound follows from the dtype's own arithmetic by bisection.

    Raises:
        ArgumentError: no floating dtype that has uniform draws.
    """
    if dtype not in MANTISSA_BITS:
        raise ArgumentError(f"threshold: expected float16, bfloat16, float32 or float64, got {dtype_name(dtype)}.")
    bits = MANTISSA_BITS[dtype]
    if keep == 0.0:  # zoneout's; the rules below divide by it
        return 1 << bits
    one = torch.ones((), dtype=dtype, device="cpu")
    drop = drop_by_floor if by_floor else drop_by_threshold
    low, high = 0, 1 << bits
    while low < high:
        middle = (low + high) // 2
        noise = torch.tensor(middle * 2.0**-bits, dtype=dtype, device="cpu")
        if bool(drop(one, noise, keep) != 0):
            high = middle
        else:
            low = middle + 1
    return low


@functools.lru_cache(maxsize=1024)
def _scale(keep: float, by_floor: bool, dtype: torch.dtype) -> float:
    return 1.0 / (float(torch.tensor(keep, dtype=dtype, device="cpu")) if by_floor else keep)
