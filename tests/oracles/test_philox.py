"""The Philox oracle against the known answers published with Random123, and its TensorFlow layer."""

from __future__ import annotations

import numpy as np
import pytest

from oracles.philox import block_words, mask_seed, op_seeds, philox4x32, uniform

ONES = 0xFFFFFFFF
#: Random123's kat_vectors, philox4x32: rounds, counter, key, words.
KNOWN_ANSWERS = [
    (7, (0, 0, 0, 0), (0, 0), (0x5F6FB709, 0x0D893F64, 0x4F121F81, 0x4F730A48)),
    (10, (0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    (10, (ONES, ONES, ONES, ONES), (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        10,
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("rounds", "counter", "key", "words"), KNOWN_ANSWERS)
def test_known_answers(rounds: int, counter: tuple, key: tuple, words: tuple) -> None:
    assert philox4x32(counter, key, rounds) == words


def test_block_number_carries_upward() -> None:
    assert block_words(3, 5, 2**32) == philox4x32((0, 1, 5, 0), (3, 0))
    assert block_words(3, 5, 2**64 - 1) == philox4x32((ONES, ONES, 5, 0), (3, 0))
    assert block_words(3, 5, 2**64) == philox4x32((0, 0, 6, 0), (3, 0))


@pytest.mark.parametrize(("dtype", "bits"), [("float16", 10), ("bfloat16", 7), ("float32", 23), ("float64", 52)])
def test_grid_of_each_dtype(dtype: str, bits: int) -> None:
    steps = uniform((4001,), dtype, 7, 11).astype(np.float64) * 2.0**bits
    assert (steps == np.floor(steps)).all() and steps.min() >= 0 and steps.max() < 2**bits
    assert abs(steps.mean() / 2**bits - 0.5) < 0.03


def test_prefix_of_a_longer_draw() -> None:
    assert (uniform((5,), "float32", 1, 2) == uniform((2, 4), "float32", 1, 2).reshape(-1)[:5]).all()


def test_op_seeds() -> None:
    assert op_seeds(None, 7) == (87654321, 7)
    assert op_seeds(-3, 2**31) == (2**31 - 4, 1)
    assert op_seeds(0, 0) == (0, 2**31 - 1)


def test_mask_seeds() -> None:
    known = {("input", 0): 1189992502, ("state", 0): 201927314, ("state", 1): 180686734, ("output", 0): 405474468}
    assert {site: mask_seed(11, *site) for site in known} == known
