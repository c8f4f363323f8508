"""Shapes, and the slices of partitioned variables, as messages."""

from __future__ import annotations

import math
from typing import TypeAlias

from cellweave.checkpoint._limits import MAX_RANK
from cellweave.checkpoint._place import Place
from cellweave.checkpoint._wire import LENGTH, VARINT, Buffer, expect, fields, message_field, number_field, signed

Shape: TypeAlias = tuple[int, ...]
#: Start and length along each axis.
Slice: TypeAlias = tuple[tuple[int, int], ...]

WHOLE = -1  # a length in a file: all of the axis
_MOST = (1 << 63) - 1  # TensorFlow counts elements in int64


def read_shape(data: Buffer, start: int, end: int, place: Place) -> Shape:
    """A TensorShapeProto with all sizes known: `dim` 2 with `size` 1, `unknown_rank` 3."""
    dims: list[int] = []
    for field in fields(data, start, end, place):
        if field.number == 2:
            expect(field, LENGTH, place)
            dims.append(read_size(data, field.start, field.end, place))
            if len(dims) > MAX_RANK:
                raise place.error(f"at most {MAX_RANK} axes", "more", field.start)
        elif field.number == 3 and field.value:
            raise place.error("a shape", "one of unknown rank", field.start)
    if any(dim < 0 for dim in dims):
        raise place.error("a shape of known sizes", f"{dims}", start)
    if math.prod(dims) > _MOST:
        raise place.error("fewer than 2^63 elements", f"shape {dims}", start)
    return tuple(dims)


def read_size(data: Buffer, start: int, end: int, place: Place) -> int:
    """The `size` 1 of an axis, -1 where it is unknown."""
    size = 0
    for field in fields(data, start, end, place):
        if field.number == 1:
            size = signed(expect(field, VARINT, place).value)
    return size


def shape_message(shape: Shape) -> bytes:
    """A TensorShapeProto."""
    return b"".join(message_field(2, number_field(1, dim)) for dim in shape)


def read_slice(data: Buffer, start: int, end: int, place: Place) -> Slice:
    """A TensorSliceProto: `extent` 1 with `start` 1 and `length` 2; a missing length means the whole axis."""
    extents: list[tuple[int, int]] = []
    for field in fields(data, start, end, place):
        if field.number != 1:
            continue
        first, length = 0, WHOLE
        for part in fields(data, field.start, expect(field, LENGTH, place).end, place):
            if part.number == 1:
                first = signed(expect(part, VARINT, place).value)
            elif part.number == 2:
                length = signed(expect(part, VARINT, place).value)
        extents.append((first, length))
        if len(extents) > MAX_RANK:
            raise place.error(f"at most {MAX_RANK} axes", "more", field.start)
    return tuple(extents)


def slice_message(part: Slice) -> bytes:
    """A TensorSliceProto. A length stands in a oneof, so it is written even if 0."""
    out = b""
    for first, length in part:
        extent = number_field(1, first)
        if length != WHOLE:
            extent += number_field(2, length) or b"\x10\x00"
        out += message_field(1, extent)
    return out


def resolve_slice(part: Slice, shape: Shape, place: Place) -> Slice:
    """The slice with each length as a number, if it lies within the shape."""
    if len(part) != len(shape):
        raise place.error(f"a slice of {len(shape)} axes of shape {list(shape)}", f"{len(part)} axes")
    resolved = []
    for (first, length), dim in zip(part, shape, strict=True):
        if length == WHOLE and first == 0:
            length = dim
        if first < 0 or length < 0 or first > dim or length > dim - first:
            raise place.error(f"a slice within shape {list(shape)}", f"{_text(part)}")
        resolved.append((first, length))
    return tuple(resolved)


def slice_shape(part: Slice) -> Shape:
    """The shape of what a resolved slice holds."""
    return tuple(length for _, length in part)


def is_whole(part: Slice, shape: Shape) -> bool:
    """Whether a resolved slice is all of the shape."""
    return slice_shape(part) == shape


def _text(part: Slice) -> str:
    return ", ".join(f"{first}:{'end' if length == WHOLE else first + length}" for first, length in part)
