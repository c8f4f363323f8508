"""Snappy's block format, read only. Source: the format's description (format_description.txt of google/snappy)."""

from __future__ import annotations

from cellweave.checkpoint._limits import MAX_SNAPPY_EXPANSION
from cellweave.checkpoint._place import Place
from cellweave.checkpoint._wire import Buffer, read_varint

_LITERAL, _COPY_1, _COPY_2 = 0, 1, 2  # the other kind, 3, has four bytes of offset
_INLINE_LENGTHS = 60  # longer literals store their length in 1 to 4 bytes


def decompress(data: Buffer, place: Place) -> bytearray:
    """What a compressed block holds; memory grows with what was really decoded, not with what the block claims."""
    end = len(data)
    size, at = read_varint(data, 0, end, place)
    if size > MAX_SNAPPY_EXPANSION * end:
        raise place.error(f"at most {MAX_SNAPPY_EXPANSION} times {end} bytes in a Snappy block", f"{size}")
    out = bytearray()
    while at < end:
        tag = data[at]
        at += 1
        if tag & 3 == _LITERAL:
            length, at = _literal_length(data, tag, at, end, place)
            _check(length <= end - at and length <= size - len(out), place, at)
            out += data[at : at + length]
            at += length
        else:
            length, offset, at = _copy(data, tag, at, end, place)
            _check(0 < offset <= len(out) and length <= size - len(out), place, at)
            _repeat(out, offset, length)
    if len(out) != size:
        raise place.error(f"{size} bytes in a Snappy block", f"{len(out)}")
    return out


def _check(fine: bool, place: Place, at: int) -> None:
    if not fine:
        raise place.error("a Snappy block whose parts lie within it", "one part that does not", at)


def _literal_length(data: Buffer, tag: int, at: int, end: int, place: Place) -> tuple[int, int]:
    code = tag >> 2
    if code < _INLINE_LENGTHS:
        return code + 1, at
    size = code - _INLINE_LENGTHS + 1
    _check(size <= end - at, place, at)
    return int.from_bytes(data[at : at + size], "little") + 1, at + size


def _copy(data: Buffer, tag: int, at: int, end: int, place: Place) -> tuple[int, int, int]:
    kind = tag & 3
    size = (1, 2, 4)[kind - 1]
    _check(size <= end - at, place, at)
    offset = int.from_bytes(data[at : at + size], "little")
    if kind == _COPY_1:
        return (tag >> 2 & 7) + 4, (tag >> 5) << 8 | offset, at + size
    return (tag >> 2) + 1, offset, at + size


def _repeat(out: bytearray, offset: int, length: int) -> None:
    """Append `length` bytes from `offset` back on; where they overlap the end, the pattern repeats."""
    start = len(out) - offset
    if offset >= length:
        out += out[start : start + length]
    else:
        pattern = bytes(out[start:])
        out += (pattern * (length // offset + 1))[:length]
