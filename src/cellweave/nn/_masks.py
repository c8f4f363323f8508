"""Random masks of a module's runs: one seed of torch's generator for each, the rest from the seed."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cellweave.nn._plans import Place
from cellweave.ops.common import BoundMask

#: Blocks of the seed's stream from one step's draw to the next: more than a step of any size takes.
STRIDE = 1 << 32
_MASK64 = (1 << 64) - 1
_LOWEST, _HIGHEST = -(1 << 63), (1 << 63) - 1


def draw_seeds(count: int) -> torch.Tensor:
    """64-bit seeds, int64 `[count]`, from torch's default generator on the CPU whatever the device of the module."""
    return torch.randint(_LOWEST, _HIGHEST, (count,), dtype=torch.int64, device="cpu")


def bound_masks(place: Place, seeds: Sequence[int], step: int = 0) -> tuple[BoundMask, ...]:
    """The masks of one place with the first of these seeds.

    Args:
        step: How many steps of the sequence come before the run's first.
    """
    if not place.keeps:
        return ()
    if place.expected:
        pairs = zip(place.spec.masks, place.keeps, strict=True)
        return tuple(BoundMask(spec, keep, False, expected=True) for spec, keep in pairs)
    masks = zip(place.spec.masks, place.keeps, seeds, strict=False)
    return tuple(
        BoundMask(spec, keep, False, seed & _MASK64, block=step * STRIDE if spec.per_step else 0, stride=STRIDE)
        for spec, keep, seed in masks
    )
