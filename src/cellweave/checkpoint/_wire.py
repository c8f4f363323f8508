"""Protobuf's wire format: fields of a message, and the few messages that a checkpoint writes."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from cellweave.checkpoint._place import Place

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10  # 64 bits, seven in a byte
_SIGN, _WRAP = 1 << 63, 1 << 64
_MAX_FIELD = (1 << 29) - 1

Buffer = Any  # bytes, bytearray or a memoryview of bytes


class Field(NamedTuple):
    """One field: a number, or for `LENGTH` the span of bytes `start:end`."""

    number: int
    kind: int
    value: int
    start: int
    end: int


def read_varint(data: Buffer, at: int, end: int, place: Place) -> tuple[int, int]:
    """An unsigned number of up to 64 bits, and the position behind it."""
    value = shift = 0
    last = min(end, at + _MAX_VARINT_BYTES)
    start = at
    while at < last:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >= _WRAP:
                break
            return value, at
        shift += 7
    raise place.error("a number of at most 64 bits", "one that does not end or is larger", start)


def fields(data: Buffer, start: int, end: int, place: Place) -> Iterator[Field]:
    """The fields of the message that `data[start:end]` holds, in order; each lies within the message."""
    at = start
    while at < end:
        here = at
        tag, at = read_varint(data, at, end, place)
        number, kind = tag >> 3, tag & 7
        if not 0 < number <= _MAX_FIELD:
            raise place.error("a field of a message", f"field number {number}", here)
        if kind == VARINT:
            value, at = read_varint(data, at, end, place)
            yield Field(number, kind, value, at, at)
        elif kind == LENGTH:
            size, at = read_varint(data, at, end, place)
            if size > end - at:
                raise place.error(f"at most {end - at} bytes in field {number}", f"a length of {size}", here)
            at += size
            yield Field(number, kind, size, at - size, at)
        elif kind in (FIXED32, FIXED64):
            size = 4 if kind == FIXED32 else 8
            if size > end - at:
                raise place.error(f"{size} bytes in field {number}", f"{end - at}", here)
            at += size
            yield Field(number, kind, int.from_bytes(data[at - size : at], "little"), at - size, at)
        else:
            raise place.error("a field of a known kind", f"kind {kind} of field {number}", here)


def expect(field: Field, kind: int, place: Place) -> Field:
    """The field, if it has this kind."""
    if field.kind != kind:
        raise place.error(f"kind {kind} of field {field.number}", f"kind {field.kind}", field.start)
    return field


def signed(value: int) -> int:
    """A varint as int64."""
    return value - _WRAP if value >= _SIGN else value


def text(data: Buffer, field: Field, place: Place) -> str:
    """A field's content as UTF-8."""
    expect(field, LENGTH, place)
    return decode(bytes(data[field.start : field.end]), place)


def decode(raw: bytes, place: Place) -> str:
    """A name in UTF-8."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise place.error("a name in UTF-8", f"{raw[:80]!r}") from error


def varint(value: int) -> bytes:
    """The bytes of an unsigned number, or of a negative one as 64 bits."""
    value %= _WRAP
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number_field(number: int, value: int) -> bytes:
    """A field with a number; nothing for 0, as in proto3."""
    return varint(number << 3 | VARINT) + varint(value) if value else b""


def fixed32_field(number: int, value: int) -> bytes:
    """A field of 32 bits; nothing for 0, as in proto3."""
    return varint(number << 3 | FIXED32) + struct.pack("<I", value) if value else b""


def message_field(number: int, content: bytes) -> bytes:
    """A field with a message or a text; present even if empty."""
    return varint(number << 3 | LENGTH) + varint(len(content)) + content
