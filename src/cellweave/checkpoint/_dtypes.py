"""TensorFlow's numbers of dtypes and what they are here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from cellweave.checkpoint._place import Place


@dataclass(frozen=True)
class DType:
    """A dtype of a stored tensor. `array` holds its bits in NumPy; None if this library does not read it."""

    number: int
    name: str
    array: np.dtype[np.generic] | None
    tensor: torch.dtype | None

    @property
    def size(self) -> int:
        """Bytes of an element; 0 for strings."""
        return 0 if self.array is None or self.name == "string" else self.array.itemsize


def _same(number: int, name: str) -> DType:
    return DType(number, name, np.dtype(name).newbyteorder("<"), getattr(torch, name))


# Source: `DataType` in TensorFlow's types.proto.
_ALL = (
    _same(1, "float32"), _same(2, "float64"), _same(3, "int32"), _same(4, "uint8"), _same(5, "int16"), _same(6, "int8"),
    DType(7, "string", np.dtype(object), None),
    _same(8, "complex64"), _same(9, "int64"), _same(10, "bool"),
    DType(11, "qint8", None, None), DType(12, "quint8", None, None), DType(13, "qint32", None, None),
    DType(14, "bfloat16", np.dtype("<u2"), torch.bfloat16),  # NumPy has none: the bits
    DType(15, "qint16", None, None), DType(16, "quint16", None, None),
    _same(17, "uint16"), _same(18, "complex128"), _same(19, "float16"),
    DType(20, "resource", None, None), DType(21, "variant", None, None),
    _same(22, "uint32"), _same(23, "uint64"),
)  # fmt: skip
_REFERENCES = 100  # a variable's own dtype in a graph: number + 100

BY_NUMBER = {dtype.number: dtype for dtype in _ALL}
BY_NAME = {dtype.name: dtype for dtype in _ALL}
STRING = BY_NAME["string"]
BFLOAT16 = BY_NAME["bfloat16"]


def dtype_of(number: int, place: Place) -> DType:
    """The dtype with this number."""
    if number not in BY_NUMBER:
        raise place.error("the number of a dtype that TF1 had", f"{number}")
    return BY_NUMBER[number]


def dtype_text(number: int) -> str:
    """A dtype's name for people and graphs, whatever its number; references count as what they refer to."""
    base = number - _REFERENCES if number > _REFERENCES else number
    return BY_NUMBER[base].name if base in BY_NUMBER else f"dtype {number}"


def readable(dtype: DType, place: Place) -> np.dtype[np.generic]:
    """The NumPy dtype that holds it."""
    if dtype.array is None:
        raise place.error("a dtype that can be read", dtype.name)
    return dtype.array
