"""What the operators of `torch.library` take: tensors in lists, masks as numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from cellweave.ops.common._masks import MANTISSA_BITS, BoundMask
from cellweave.specs import RunSpec

_MASK64 = (1 << 64) - 1


def masks_of_streams(
    run: RunSpec,
    streams: torch.Tensor | None,
    keeps: torch.Tensor | None,
    noise: Iterable[torch.Tensor] | None,
    bits: int = 0,
) -> list[BoundMask]:
    """The masks of a run.

    Args:
        streams: int64 `[masks, 6]`: seed, seed2, block, stride, rule (1: by floor; 2, 3: not drawn), whether its noise
            is given. None: no masks act.
        keeps: float64 `[masks]`. noise: What was given, in order. bits: As `draw_bits` gives them.
    """
    if streams is None or keeps is None:
        return []
    given, masks = iter(noise or ()), []
    dtype = next((dtype for dtype, own in MANTISSA_BITS.items() if own == bits), None)
    rows = zip(run.masks, streams.tolist(), keeps.tolist(), strict=True)
    for spec, (seed, seed2, block, stride, rule, has_noise), keep in rows:
        counter = (seed & _MASK64, seed2 & _MASK64, block & _MASK64)
        own = next(given) if has_noise else None
        masks.append(BoundMask(spec, keep, bool(rule & 1), *counter, stride, own, bool(rule & 2), dtype))
    return masks


def draw_bits(dtype: torch.dtype | None) -> int:
    """Masks' own dtype (`BoundMask.dtype`) as a number: the bits of its draws; 0 for None."""
    return 0 if dtype is None else MANTISSA_BITS[dtype]


#: Of each argument that may be a list of tensors, how many there are; None for one tensor, or none.
Sizes = list[int | None]


def flat_tensors(values: Sequence[Any]) -> tuple[list[torch.Tensor | None], Sizes]:
    """Tensors and lists of tensors one after another, as autograd keeps them."""
    sizes: Sizes = [len(value) if isinstance(value, list | tuple) else None for value in values]
    return [tensor for value in values for tensor in (value if isinstance(value, list | tuple) else [value])], sizes


def nested_tensors(flat: Sequence[torch.Tensor | None], sizes: Sizes) -> list[Any]:
    """The same in lists again; `flat` may go on behind them."""
    found = iter(flat)
    return [next(found) if size is None else [next(found) for _ in range(size)] for size in sizes]
