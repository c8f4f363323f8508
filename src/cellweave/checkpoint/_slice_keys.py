"""Keys of stored slices: numbers and names in bytes that sort like the values they stand for (OrderedCode).

Key = 0, name, rank, then start and length of each axis. Source: `EncodeTensorNameSlice` in TensorFlow's
saved_tensor_slice_util.cc.
"""

from __future__ import annotations

from cellweave.checkpoint._shapes import Slice

#: Slice keys begin with this, names of whole variables do not: a number 0 has no bytes after its length.
SLICE_KEY = b"\x00"

_END = b"\x00\x01"


def slice_key(name: str, part: Slice) -> bytes:
    """The key of a slice of a variable, its lengths as they stand in the file (-1: the whole axis)."""
    key = _unsigned(0) + _name(name.encode()) + _unsigned(len(part))
    for first, length in part:
        key += _signed(first) + _signed(length)
    return key


def _unsigned(value: int) -> bytes:
    """The number of bytes, then the bytes, the most significant first."""
    body = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return bytes([len(body)]) + body


def _name(raw: bytes) -> bytes:
    """The text with 00 and ff escaped, and an end that sorts before any continuation."""
    return raw.replace(b"\xff", b"\xff\x00").replace(b"\x00", b"\x00\xff") + _END


def _signed(value: int) -> bytes:
    """Two's complement of n bytes for values of 7n - 1 bits, its first n bits inverted: they say the sign and n."""
    magnitude = ~value if value < 0 else value
    size = magnitude.bit_length() // 7 + 1
    header = (1 << size) - 1 << 7 * size
    return (value % (1 << 8 * size) ^ header).to_bytes(size, "big")
