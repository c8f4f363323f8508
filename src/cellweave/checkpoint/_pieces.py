"""What is to be written: variables and slices of them, each with a way to put its bytes into a file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import torch

from cellweave._errors import ArgumentError, DTypeError
from cellweave.checkpoint._crc32c import Checksum, masked
from cellweave.checkpoint._dtypes import BFLOAT16, BY_NAME, STRING, DType
from cellweave.checkpoint._join import covers
from cellweave.checkpoint._shapes import Shape, Slice, is_whole
from cellweave.checkpoint._strings import write_strings
from cellweave.checkpoint._variables import Array

#: Writes a tensor's bytes and gives their number and their masked checksum.
Store: TypeAlias = Callable[[BinaryIO], "tuple[int, int]"]

_BUFFER = 1 << 17  # elements of a tensor with gaps that are gathered at a time


@dataclass(frozen=True)
class Piece:
    """A variable, or one slice of it (`part`, as it will stand in the file), and which data file it goes to."""

    name: str
    part: Slice | None
    dtype: DType
    shape: Shape
    shard: int
    store: Store


@dataclass(frozen=True)
class Whole:
    """What the table says of a partitioned variable as a whole."""

    name: str
    dtype: DType
    shape: Shape
    slices: tuple[Slice, ...]


def layout(
    names: Iterable[str], fetch: Callable[[str], Any], slices: Mapping[str, Sequence[Slice]], shards: int
) -> Iterator[Piece | Whole]:
    """The pieces of the named values in sorted order, dealt to the data files in turn."""
    number = 0
    for name in sorted(names):
        dtype, array = as_stored(fetch(name), name)
        parts = _checked(name, array.shape, slices[name]) if name in slices else ()
        if not parts or is_whole(parts[0], array.shape):  # one slice that is everything counts as none
            yield Piece(name, None, dtype, array.shape, number % shards, store(dtype, array))
            number += 1
            continue
        yield Whole(name, dtype, array.shape, parts)
        for part in parts:
            piece = array[tuple(slice(first, first + length) for first, length in part)]
            yield Piece(name, part, dtype, piece.shape, number % shards, store(dtype, piece))
            number += 1


def as_stored(value: Any, name: str) -> tuple[DType, Array]:
    """A value's dtype in the file, and an array of its bits (of `bytes` for strings)."""
    if isinstance(value, torch.Tensor):
        tensor = value.detach().cpu()
        if tensor.dtype == torch.bfloat16:
            return BFLOAT16, tensor.view(torch.int16).numpy().view(np.uint16)
        return _numbers(tensor.resolve_conj().resolve_neg().numpy(), name)
    array = np.asarray(value, object) if isinstance(value, str | bytes) else np.asarray(value)
    if array.dtype.kind in "OUS":
        return STRING, _strings(array, name)
    if array.dtype.name == BFLOAT16.name:  # of a package that gives NumPy this dtype
        return BFLOAT16, array.view(np.uint16)
    return _numbers(array, name)


def _numbers(array: Array, name: str) -> tuple[DType, Array]:
    dtype = BY_NAME.get(array.dtype.name)
    if dtype is None or dtype.array is None or dtype.tensor is None:
        raise DTypeError(f"write_checkpoint: expected a dtype that TF1 has for {name!r}, got {array.dtype}.")
    return dtype, array.astype(dtype.array, copy=False)


def _strings(array: Array, name: str) -> Array:
    out = np.empty(array.size, object)
    for number, value in enumerate(array.reshape(-1)):
        if not isinstance(value, str | bytes):
            kind = type(value).__name__
            raise DTypeError(f"write_checkpoint: expected numbers, bytes or texts for {name!r}, got {kind}.")
        out[number] = value.encode() if isinstance(value, str) else bytes(value)
    return out.reshape(array.shape)


def _checked(name: str, shape: Shape, slices: Sequence[Slice]) -> tuple[Slice, ...]:
    parts = tuple(tuple((int(first), int(length)) for first, length in part) for part in slices)
    if not covers(shape, parts):
        raise ArgumentError(
            f"write_checkpoint: expected slices of {name!r} that hold each element of shape {list(shape)} once, "
            f"got {[list(part) for part in parts]}. even_slices makes such."
        )
    return parts


def store(dtype: DType, array: Array) -> Store:
    """The way to write an array's elements."""
    if dtype is STRING:

        def store_strings(file: BinaryIO) -> tuple[int, int]:
            chunks, checksum = write_strings(array.reshape(-1))
            file.writelines(chunks)
            return sum(map(len, chunks)), checksum

        return store_strings

    def store_numbers(file: BinaryIO) -> tuple[int, int]:
        return write_chunks(file, _contiguous(array))

    return store_numbers


def write_chunks(file: BinaryIO, chunks: Iterable[Any]) -> tuple[int, int]:
    """Write buffers one behind the other; the number of bytes, and their masked checksum."""
    size, checksum = 0, Checksum()
    for chunk in chunks:
        checksum.update(chunk)
        size += file.write(chunk)
    return size, masked(checksum.value())


def _contiguous(array: Array) -> Iterator[Any]:
    """The elements in row-major order as buffers, without a copy of all of them."""
    if not array.size:
        return
    if array.flags.c_contiguous:
        yield array.reshape(-1).view(np.uint8).data
        return
    flags = ["external_loop", "buffered"]
    for part in np.nditer(array, flags=flags, order="C", buffersize=_BUFFER):  # type: ignore[call-overload]
        yield np.ascontiguousarray(part).view(np.uint8).data


def even_slices(shape: Sequence[int], parts: Sequence[int]) -> tuple[Slice, ...]:
    """Divide a shape as TF1's `fixed_size_partitioner` does: the first parts of an axis are longer by one if need be.

    Args:
        shape: The shape of the variable.
        parts: The number of parts along each axis, from 1 to the axis's size.
    Returns:
        The slices in row-major order: a pair of start and length for each axis.
    Raises:
        ArgumentError: there is not one number for each axis, or one is out of range.
    Source: `tf.fixed_size_partitioner`, `_iter_slices` in TF1's variable_scope.py.
    """
    if len(parts) != len(shape) or not all(1 <= count <= dim for count, dim in zip(parts, shape, strict=True)):
        raise ArgumentError(f"even_slices: expected parts of 1 to {list(shape)}, got {list(parts)}.")
    out: list[Slice] = [()]
    for dim, count in zip(shape, parts, strict=True):
        lengths = [dim // count + (number < dim % count) for number in range(count)]
        out = [(*part, (sum(lengths[:number]), lengths[number])) for part in out for number in range(count)]
    return tuple(out)
