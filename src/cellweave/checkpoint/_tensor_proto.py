"""TensorProto: a tensor inside a message, as V1 files and graphs hold it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from cellweave.checkpoint._dtypes import BFLOAT16, STRING, DType, dtype_of, readable
from cellweave.checkpoint._limits import MAX_FILLED_BYTES
from cellweave.checkpoint._place import Place
from cellweave.checkpoint._shapes import Shape, read_shape
from cellweave.checkpoint._variables import Array, as_array, frozen
from cellweave.checkpoint._wire import FIXED32, FIXED64, LENGTH, VARINT, Buffer, Field, expect, fields

_DTYPE, _SHAPE, _CONTENT = 1, 2, 4

# The field with a dtype's values, and how one value stands there. Source: `tensor.proto`.
_HALF, _FLOAT, _DOUBLE, _INT, _STRING, _SCOMPLEX, _INT64, _BOOL = 13, 5, 6, 7, 8, 9, 10, 11
_DCOMPLEX, _UINT32, _UINT64 = 12, 16, 17
_VALUE_FIELDS = {
    "float32": _FLOAT, "float64": _DOUBLE, "int32": _INT, "uint8": _INT, "int16": _INT, "int8": _INT, "uint16": _INT,
    "string": _STRING, "complex64": _SCOMPLEX, "int64": _INT64, "bool": _BOOL, "complex128": _DCOMPLEX,
    "float16": _HALF, "bfloat16": _HALF, "uint32": _UINT32, "uint64": _UINT64,
}  # fmt: skip
_FIXED = {
    _FLOAT: (FIXED32, "<f4"), _DOUBLE: (FIXED64, "<f8"), _SCOMPLEX: (FIXED32, "<c8"), _DCOMPLEX: (FIXED64, "<c16"),
}  # fmt: skip
_VARINT_BYTES = 10
_STEP = 1 << 16  # bytes of varints decoded at a time: their numbers take 8 times as much


def read_header(data: Buffer, start: int, end: int, place: Place) -> tuple[DType, Shape]:
    """The dtype and the shape that a TensorProto states."""
    number = 0
    shape: Shape = ()
    for field in fields(data, start, end, place):
        if field.number == _DTYPE:
            number = expect(field, VARINT, place).value
        elif field.number == _SHAPE:
            shape = read_shape(data, expect(field, LENGTH, place).start, field.end, place)
    return dtype_of(number, place), shape


def read_tensor(data: Buffer, start: int, end: int, dtype: DType, shape: Shape, place: Place) -> Array:
    """The values of a TensorProto of known dtype and shape, read-only.

    A graph's constant may state fewer values than it has elements: the last one stands for the rest. One value for all
    is returned as a view of that value, so that no size in a file costs memory by itself.
    """
    layout = readable(dtype, place)
    content = None
    for field in fields(data, start, end, place):
        if field.number == _CONTENT and expect(field, LENGTH, place).value and dtype is not STRING:
            content = field
    if content is None:
        return _filled(_values(data, start, end, dtype, place), layout, shape, place)
    size = math.prod(shape) * layout.itemsize
    if content.value != size:
        raise place.error(f"{size} bytes", f"{content.value}", content.start)
    raw = np.frombuffer(data, np.uint8)[content.start : content.end]
    if dtype.name == "bool" and raw.max(initial=0) > 1:
        raise place.error("bools of 0 or 1", f"{raw.max()}", content.start)
    return frozen(as_array(raw, layout, shape).view())


def _filled(values: Array, dtype: np.dtype[Any], shape: Shape, place: Place) -> Array:
    count = math.prod(shape)
    if values.size == count:
        return frozen(values.reshape(shape))
    if values.size > count:
        raise place.error(f"at most {count} values", f"{values.size}")
    if values.size <= 1:
        value = values.reshape(()) if values.size else _nothing(dtype)
        return np.broadcast_to(value, shape)
    if count * dtype.itemsize > MAX_FILLED_BYTES:
        raise place.error(
            f"{count} values, or at most {MAX_FILLED_BYTES} bytes of repeated ones", f"{values.size} values"
        )
    return frozen(np.concatenate([values, np.full(count - values.size, values[-1], values.dtype)]).reshape(shape))


def _nothing(dtype: np.dtype[Any]) -> Array:
    """What an element without a value is: zero, or the empty string."""
    if dtype == np.dtype(object):
        empty = np.empty((), object)
        empty[()] = b""
        return empty
    return np.zeros((), dtype)


def _values(data: Buffer, start: int, end: int, dtype: DType, place: Place) -> Array:
    """The values as they are listed, packed into one field or one field each."""
    number = _VALUE_FIELDS[dtype.name]
    listed = (field for field in fields(data, start, end, place) if field.number == number)
    if number == _STRING:
        strings = [bytes(data[expect(field, LENGTH, place).start : field.end]) for field in listed]
        array = np.empty(len(strings), object)
        array[:] = strings
        return array
    if number in _FIXED:
        return _fixed_values(data, listed, *_FIXED[number], place)
    parts, single = [], bytearray()
    for field in listed:
        if field.kind == VARINT:
            single += field.value.to_bytes(8, "little")
        else:
            parts.append(_varints(np.frombuffer(data, np.uint8)[expect(field, LENGTH, place).start : field.end], place))
    numbers = np.concatenate([*parts, np.frombuffer(single, "<u8")])
    return _narrowed(numbers, dtype, readable(dtype, place), place)


def _fixed_values(data: Buffer, listed: Iterator[Field], kind: int, layout: str, place: Place) -> Array:
    parts, single = [], bytearray()
    for field in listed:
        if field.kind == kind:
            single += data[field.start : field.end]
        else:
            parts.append(np.frombuffer(data, np.uint8)[expect(field, LENGTH, place).start : field.end])
    raw = parts[0] if len(parts) == 1 and not single else np.concatenate([*parts, np.frombuffer(single, np.uint8)])
    dtype = np.dtype(layout)
    if raw.size % dtype.itemsize:
        raise place.error(f"a multiple of {dtype.itemsize} bytes of {dtype.name}", f"{raw.size}")
    return as_array(raw, dtype, (raw.size // dtype.itemsize,))


def _narrowed(numbers: Array, dtype: DType, array: np.dtype[Any], place: Place) -> Array:
    """Numbers of 64 bits as the dtype they are written for, if they fit."""
    if dtype.name == "float16" or dtype is BFLOAT16:
        wide, check = numbers.astype(np.uint16), _unsigned
    elif np.issubdtype(array, np.signedinteger):
        wide, check = numbers.view(np.int64).astype(array), _signed
    else:
        wide, check = numbers.astype(array), _unsigned
    if not np.array_equal(check(wide), numbers):
        raise place.error(f"values of {dtype.name}", "larger ones")
    result: Array = wide.view(array) if dtype.name == "float16" else wide
    return result


def _unsigned(values: Array) -> Array:
    return values.astype(np.uint64)


def _signed(values: Array) -> Array:
    return values.astype(np.int64).view(np.uint64)


def _varints(raw: Array, place: Place) -> Array:
    """Varints one behind the other, each modulo 2^64."""
    if raw.size and raw[-1] >= 0x80:
        raise place.error("numbers that end", "one that does not")
    last = raw < 0x80
    out = np.empty(int(np.count_nonzero(last)), np.uint64)
    done = start = 0
    while start < raw.size:
        stop = min(start + _STEP, raw.size)
        ends = np.flatnonzero(last[start:stop])
        if not ends.size:
            raise place.error(f"numbers of at most {_VARINT_BYTES} bytes", "longer ones")
        stop = start + int(ends[-1]) + 1
        starts = np.concatenate([[0], ends[:-1] + 1])
        lengths = ends - starts + 1
        if lengths.max() > _VARINT_BYTES:
            raise place.error(f"numbers of at most {_VARINT_BYTES} bytes", f"one of {lengths.max()}")
        within = np.arange(stop - start) - np.repeat(starts, lengths)
        parts = (raw[start:stop] & np.uint8(0x7F)).astype(np.uint64) << (7 * within).astype(np.uint64)
        out[done : done + ends.size] = np.add.reduceat(parts, starts)
        done += ends.size
        start = stop
    return out
