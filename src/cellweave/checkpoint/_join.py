"""Partitioned variables put together from their pieces."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from cellweave.checkpoint._place import Place
from cellweave.checkpoint._shapes import Shape, Slice, slice_shape
from cellweave.checkpoint._variables import Array


def join(
    shape: Shape, dtype: np.dtype[np.generic], slices: Sequence[Slice], read: Callable[[int], Array], place: Place
) -> Array:
    """The whole variable; `read(i)` gives the piece of `slices[i]`, which are resolved.

    Raises:
        CheckpointError: the pieces overlap or leave something out.
    """
    total = sum(math.prod(slice_shape(part)) for part in slices)
    if total != math.prod(shape):
        raise place.error(f"slices of {math.prod(shape)} elements in all", f"{total}")
    covers_rows = _covers_along_one_axis(shape, slices)
    whole = np.empty(shape, dtype)
    seen = None if covers_rows else np.zeros(shape, np.bool_)
    for number, part in enumerate(slices):
        where = tuple(slice(first, first + length) for first, length in part)
        if seen is not None:
            if seen[where].any():
                raise place.error("slices that do not overlap", f"one at {list(part)} that does")
            seen[where] = True
        whole[where] = read(number)
    return whole


def _covers_along_one_axis(shape: Shape, slices: Sequence[Slice]) -> bool:
    """Whether the slices are consecutive ranges of one axis, the usual case."""
    split = [axis for axis, dim in enumerate(shape) if any(part[axis] != (0, dim) for part in slices)]
    if len(split) > 1:
        return False
    if not split:
        return len(slices) == 1
    end = 0
    for first, length in sorted(part[split[0]] for part in slices):
        if first != end:
            return False
        end += length
    return end == shape[split[0]]
