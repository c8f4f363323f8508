"""CRC-32C (Castagnoli) in NumPy, fast enough to run over every tensor that is read or written.

A checksum is the remainder of a polynomial over GF(2), and P below divides x^5685 + x^1362 + x^426 + 1. Squaring keeps
that so with all exponents doubled: P divides x^(64·5685) + x^(64·1362) + x^(64·426) + 1 as well. So a 64-bit word may
be moved 4323, 5259 and 5685 words further on, to all three places, without a change of the remainder. That is three
XORs of whole blocks, which run at the speed of the cache, until 5685 words are left. Those go through a table: what
each value of a byte contributes by its position.

Polynomials are reflected as usual for this checksum: bit 31 of a number is x^0, bit 0 is x^31.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

_POLYNOMIAL = 0x82F63B78  # x^32 mod P, reflected
_ONES = 0xFFFFFFFF
_ONE = 0x80000000  # x^0
_ORDER = (1 << 31) - 1  # x^_ORDER = 1 mod P, since P is x + 1 times a primitive polynomial of degree 31

# Distances in words that one word is moved to; the first is also the longest block without a word that feeds another.
_NEAR, _MIDDLE, _FAR = 4323, 5259, 5685
_BLOCKS = 4  # of _NEAR words in the working buffer: 180 KB, which caches hold
_ROW = 256  # bytes whose position has a table of its own
_FOLD_FROM = 1 << 17  # bytes from which moving words on pays

_MASK_DELTA = 0xA282EAD8  # LevelDB's masking: a checksum of data that holds checksums is a weak one

Words = npt.NDArray[np.uint32]


def crc32c(data: Any, value: int = 0) -> int:
    """The CRC-32C of `value`'s data followed by `data`, anything with a contiguous buffer."""
    raw = np.frombuffer(data, np.uint8)
    if raw.size == 0:
        return value
    if raw.size >= _FOLD_FROM:
        checksum = Checksum(value)
        checksum.update(raw)
        return checksum.value()
    return _residue(raw) ^ _times(value ^ _ONES, _power(8 * raw.size)) ^ _ONES


class Checksum:
    """The CRC-32C of data that comes in parts, and of `value`'s data before them."""

    def __init__(self, value: int = 0) -> None:
        self._before = value
        self._space: npt.NDArray[np.uint64] | None = None  # words on their way; none before a large part comes
        self._at, self._count = _FAR, 0
        self._rest = np.zeros(0, np.uint8)  # less than a word, behind all others

    def update(self, data: Any) -> None:
        """Add a part."""
        raw = np.frombuffer(data, np.uint8)
        if self._space is None:
            if raw.size < _FOLD_FROM:
                self._before = crc32c(raw, self._before)
                return
            self._space = np.zeros(_FAR + _BLOCKS * _NEAR, np.uint64)
        if self._rest.size:
            raw = np.concatenate([self._rest, raw])
        whole = raw.size // 8 * 8
        self._rest = raw[whole:].copy()
        self._fold(self._space, raw[:whole])

    def value(self) -> int:
        """The checksum of everything so far."""
        if self._space is None:
            return self._before
        last = self._space[self._at - _FAR : self._at]
        left = last.copy()
        left[:_NEAR] ^= last[_FAR - _NEAR :]
        left[:_MIDDLE] ^= last[_FAR - _MIDDLE :]
        # `left` stands _FAR words behind the end of the data: take that factor of x out again.
        remainder = _times(_residue(left.view(np.uint8)), _power(-64 * _FAR))
        value = remainder ^ _times(self._before ^ _ONES, _power(64 * self._count)) ^ _ONES
        return crc32c(self._rest, value)

    def _fold(self, space: npt.NDArray[np.uint64], raw: npt.NDArray[np.uint8]) -> None:
        """Move on all words of `raw`."""
        words = raw.view(np.uint64)
        aligned = words.flags.aligned
        self._count += words.size
        for start in range(0, words.size, _NEAR):
            chunk = words[start : start + _NEAR]
            count = chunk.size
            if self._at + count > space.size:
                space[:_FAR] = space[self._at - _FAR : self._at]
                self._at = _FAR
            at = self._at
            block = space[at : at + count]
            if aligned:
                np.bitwise_xor(chunk, space[at - _NEAR : at - _NEAR + count], out=block)
            else:  # copied as bytes first: NumPy is slow on words that are not aligned
                block.view(np.uint8)[:] = raw[8 * start : 8 * (start + count)]
                np.bitwise_xor(block, space[at - _NEAR : at - _NEAR + count], out=block)
            np.bitwise_xor(block, space[at - _MIDDLE : at - _MIDDLE + count], out=block)
            np.bitwise_xor(block, space[at - _FAR : at - _FAR + count], out=block)
            self._at += count


def crc32c_of(chunks: Iterable[Any], value: int = 0) -> int:
    """The CRC-32C of `value`'s data followed by several buffers, as if all were one."""
    checksum = Checksum(value)
    for chunk in chunks:
        checksum.update(chunk)
    return checksum.value()


def masked(value: int) -> int:
    """A checksum as files store it."""
    return (((value >> 15) | (value << 17)) + _MASK_DELTA) & _ONES


def _residue(raw: npt.NDArray[np.uint8]) -> int:
    """The remainder of `raw` times x^32."""
    rows = -(-raw.size // _ROW)
    if rows == 1:
        return int(np.bitwise_xor.reduce(_position_table()[_row_offsets()[_ROW - raw.size :] + raw]))
    padded = np.zeros(rows * _ROW, np.uint8)
    padded[rows * _ROW - raw.size :] = raw
    parts = np.bitwise_xor.reduce(_position_table()[_row_offsets() + padded.reshape(rows, _ROW)], axis=1)
    level = 0
    while parts.size > 1:
        if parts.size % 2:
            parts = np.concatenate([np.zeros(1, np.uint32), parts])
        parts = _times_all(parts[0::2], level) ^ parts[1::2]
        level += 1
    return int(parts[0])


@functools.cache
def _position_table() -> Words:
    """What a byte contributes: entry `256 · position + byte`, for the positions of a row."""
    table = np.zeros((_ROW, 256), np.uint32)
    last = first = _sums([_times(1 << (24 + bit), _power(32)) for bit in range(8)])
    for position in range(_ROW - 1, -1, -1):
        table[position] = last
        last = (last >> np.uint32(8)) ^ first[last & np.uint32(255)]
    return table.reshape(-1)


@functools.cache
def _row_offsets() -> npt.NDArray[np.int64]:
    return np.arange(0, _ROW * 256, 256)


def _times_all(values: Words, level: int) -> Words:
    """Each value times x^(bits of 2^level rows)."""
    table = _row_factor_table(level)
    parts = [table[byte][(values >> np.uint32(8 * byte)) & np.uint32(255)] for byte in range(4)]
    product: Words = parts[0] ^ parts[1] ^ parts[2] ^ parts[3]
    return product


@functools.cache
def _row_factor_table(level: int) -> Words:
    factor = _power(8 * _ROW << level)
    return np.stack([_sums([_times(1 << (8 * byte + bit), factor) for bit in range(8)]) for byte in range(4)])


def _sums(parts: list[int]) -> Words:
    """The XOR of the parts that each number's bits choose, for all numbers of that many bits."""
    table = np.zeros(1, np.uint32)
    for part in parts:
        table = np.concatenate([table, table ^ np.uint32(part)])
    return table


def _times(a: int, b: int) -> int:
    """The product of two polynomials mod P."""
    product = 0
    while a:
        if a & _ONE:
            product ^= b
        a = (a << 1) & _ONES
        b = (b >> 1) ^ (_POLYNOMIAL if b & 1 else 0)
    return product


@functools.lru_cache(maxsize=256)
def _power(exponent: int) -> int:
    """x^exponent mod P; negative exponents too."""
    exponent %= _ORDER
    product = _ONE
    for bit in range(exponent.bit_length()):
        if exponent >> bit & 1:
            product = _times(_squares()[bit], product)
    return product


@functools.cache
def _squares() -> list[int]:
    """x^1, x^2, x^4, ..."""
    squares = [_ONE >> 1]
    while len(squares) < 31:
        squares.append(_times(squares[-1], squares[-1]))
    return squares
