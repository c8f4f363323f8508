"""Tensors of byte strings in a V2 bundle: their lengths, a checksum of the lengths, their bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterable

import numpy as np

from cellweave.checkpoint._crc32c import crc32c, crc32c_of, masked
from cellweave.checkpoint._place import Place
from cellweave.checkpoint._shapes import Shape
from cellweave.checkpoint._variables import Array
from cellweave.checkpoint._wire import Buffer, read_varint, varint

_CHECKSUM_SIZE = 4
_MOST_SHORT = (1 << 32) - 1  # a longer string's length enters the checksum in 8 bytes


def read_strings(data: Buffer, count: int, shape: Shape, stored: int | None, place: Place) -> Array:
    """The strings of `data`, checked against the checksum of their entry unless that is None."""
    if count > len(data):  # a length takes a byte at least
        raise place.error(f"at most {len(data)} strings in {len(data)} bytes", f"{count}")
    lengths, at = [], 0
    for _ in range(count):
        length, at = read_varint(data, at, len(data), place)
        lengths.append(length)
    if count and sum(lengths) + _CHECKSUM_SIZE != len(data) - at:
        raise place.error(f"strings of {len(data) - at - _CHECKSUM_SIZE} bytes in all", f"{sum(lengths)}")
    if stored is not None and len(data):
        _verify(data, lengths, at, stored, place)
    at += _CHECKSUM_SIZE
    array = np.empty(count, object)
    for number, length in enumerate(lengths):
        array[number] = bytes(data[at : at + length])
        at += length
    return array.reshape(shape)


def _verify(data: Buffer, lengths: list[int], at: int, stored: int, place: Place) -> None:
    of_lengths = crc32c(_checksummed(lengths))
    in_data = bytes(data[at : at + _CHECKSUM_SIZE])
    if struct.pack("<I", masked(of_lengths)) != in_data:
        raise place.error(
            f"checksum {masked(of_lengths):#010x} of the lengths", f"{int.from_bytes(in_data, 'little'):#010x}", at
        )
    found = masked(crc32c(data[at:], of_lengths))
    if found != stored:
        raise place.error(f"checksum {stored:#010x}", f"{found:#010x}", advice="The file is damaged.")


def write_strings(values: Iterable[bytes]) -> tuple[list[bytes], int]:
    """What stands in the file, and its masked checksum."""
    values = list(values)
    lengths = [len(value) for value in values]
    of_lengths = crc32c(_checksummed(lengths))
    chunks = [b"".join(map(varint, lengths)), struct.pack("<I", masked(of_lengths)), b"".join(values)]
    return chunks, masked(crc32c_of(chunks[1:], of_lengths))


def _checksummed(lengths: list[int]) -> bytes:
    """The lengths as the checksum sees them."""
    return b"".join(struct.pack("<I" if length <= _MOST_SHORT else "<Q", length) for length in lengths)
