"""What a checkpoint says of a variable before its data is read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cellweave.checkpoint._dtypes import BY_NAME
from cellweave.checkpoint._shapes import Shape, Slice

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class VariableInfo:
    """A variable of a checkpoint.

    Args:
        name: The key in the file, as it stands there.
        dtype: TensorFlow's name of the dtype: "float32", "bfloat16", "string", ...
        shape: The shape of the whole variable.
        slices: The pieces in which a partitioned variable is stored, in the file's order: start and length along each
            axis. Empty for a variable that is stored whole.
    """

    name: str
    dtype: str
    shape: Shape
    slices: tuple[Slice, ...] = ()

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int | None:
        """Bytes of the data; None for strings and for dtypes that are not read."""
        dtype = BY_NAME.get(self.dtype)
        return self.size * dtype.size if dtype is not None and dtype.size else None


class Source(Protocol):
    """One of the formats: where the variables of a `Checkpoint` come from."""

    format: str

    def names(self) -> list[str]:
        """All names, in any order."""

    def info(self, name: str) -> VariableInfo:
        """What is known of a variable before its data is read."""

    def read(self, name: str) -> Array:
        """A variable's data, read-only; bfloat16 as its bits in uint16."""

    def close(self) -> None:
        """Release the files."""


def frozen(array: Array) -> Array:
    """The array, read-only."""
    array.flags.writeable = False
    return array


def as_array(raw: npt.NDArray[np.uint8], dtype: np.dtype[Any], shape: Shape) -> Array:
    """Bytes as an array; a copy if they do not lie where the dtype needs them."""
    array = raw.view(dtype).reshape(shape)
    return array if array.flags.aligned else array.copy()
