from __future__ import annotations

import numpy as np
import pytest

from cellweave.checkpoint._crc32c import Checksum, crc32c, crc32c_of, masked

FOLD = 1 << 17


def bytewise(data: bytes) -> int:
    """The definition: one bit at a time."""
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ table[(value ^ byte) & 255]
    return value ^ 0xFFFFFFFF


@pytest.mark.parametrize(
    "data, value",
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),  # these four: RFC 3720, B.4
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_published_values(data: bytes, value: int) -> None:
    assert crc32c(data) == value


@pytest.mark.parametrize(
    "size", [1, 7, 8, 255, 256, 257, 511, 513, 4097, FOLD - 1, FOLD, FOLD + 1, FOLD + 7, 8 * (5685 + 4 * 4323) + 5]
)
def test_every_way_gives_the_definition(size: int, rng: np.random.Generator) -> None:
    data = rng.bytes(size)
    assert crc32c(data) == bytewise(data)


@pytest.mark.parametrize("size, cut", [(10, 0), (10, 10), (1000, 3), (FOLD + 99, 50), (2 * FOLD + 99, FOLD + 1)])
def test_data_in_parts(size: int, cut: int, rng: np.random.Generator) -> None:
    data = rng.bytes(size)
    assert crc32c(data[cut:], crc32c(data[:cut])) == crc32c(data)
    assert crc32c_of([data[:cut], b"", data[cut:]]) == crc32c(data)


@pytest.mark.parametrize("sizes", [(FOLD + 3, 5, FOLD, 1), (9, FOLD + 1, 0, 7, 8), (FOLD, FOLD, FOLD + 2), (1, 2, 3)])
def test_checksum_of_parts(sizes: tuple[int, ...], rng: np.random.Generator) -> None:
    parts = [rng.bytes(size) for size in sizes]
    checksum = Checksum(crc32c(b"before"))
    for part in parts:
        checksum.update(part)
    assert checksum.value() == crc32c(b"".join([b"before", *parts])) == bytewise(b"".join([b"before", *parts]))


def test_unaligned_data(rng: np.random.Generator) -> None:
    data = rng.bytes(FOLD + 100)
    view = memoryview(data)
    for start in range(1, 9):
        assert crc32c(view[start:]) == crc32c(bytes(view[start:]))


def test_one_bit_counts_anywhere(rng: np.random.Generator) -> None:
    data = bytearray(rng.bytes(FOLD + 40_000))
    before = crc32c(data)
    for at in (0, 8, 4323 * 8, FOLD, len(data) - 1):
        data[at] ^= 16
        assert crc32c(data) != before
        data[at] ^= 16
    assert crc32c(data) == before


def test_masking() -> None:
    """The mask rotates by 15 bits and adds LevelDB's constant."""
    assert masked(0) == 0xA282EAD8
    assert masked(0x8000) == 0xA282EAD9
    assert masked(0xFFFFFFFF) == 0xA282EAD7
