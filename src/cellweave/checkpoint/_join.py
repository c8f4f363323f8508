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
    if not covers(shape, slices):
        raise place.error(f"slices that hold each element of shape {list(shape)} once", "others")
    whole = np.empty(shape, dtype)
    for number, part in enumerate(slices):
        whole[_index(part)] = read(number)
    return whole


def covers(shape: Shape, slices: Sequence[Slice]) -> bool:
    """Whether the slices lie within the shape and hold each of its elements once. Memory: a byte for each element."""
    for part in slices:
        if len(part) != len(shape) or any(
            first < 0 or length < 0 or first + length > dim for (first, length), dim in zip(part, shape, strict=True)
        ):
            return False
    # With as many elements as there are, slices that do not overlap leave none out.
    if sum(math.prod(slice_shape(part)) for part in slices) != math.prod(shape):
        return False
    if _covers_along_one_axis(shape, slices):
        return True
    seen = np.zeros(shape, np.bool_)
    for part in slices:
        if seen[_index(part)].any():
            return False
        seen[_index(part)] = True
    return True


def _index(part: Slice) -> tuple[slice, ...]:
    return tuple(slice(first, first + length) for first, length in part)


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
