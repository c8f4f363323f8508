"""The library's random numbers against the Philox oracle, bit for bit."""

from __future__ import annotations

import pytest
import torch

from cellweave.ops.common import philox_words, random_uniform
from helpers.tolerances import as_array, assert_same_bits
from oracles.philox import BLOCKS_PER_ELEMENT, block_words, op_seeds, uniform

DTYPES = ("float16", "bfloat16", "float32", "float64")
SHAPES = [(), (0,), (1,), (2,), (3,), (4,), (5,), (2, 3), (3, 0, 2), (1, 7), (7, 5, 3), (33, 17)]
SEEDS = [(None, 0), (None, 7), (42, 7), (0, 0), (-3, 987654321), (2**31 + 5, 2**31), (2**40, -(2**40))]
CARRIES = [0, 1, 2**32 - 2, 2**32 - 1, 2**32, 2**40 + 3, 2**63 - 2, 2**63, 2**64 - 600]


def _check(shape: tuple[int, ...], dtype: str, pair: tuple[int, int], block: int) -> None:
    expected = uniform(shape, dtype, *pair, block)
    got = random_uniform(shape, getattr(torch, dtype), *pair, block)
    assert got.dtype == getattr(torch, dtype)
    assert_same_bits(f"{dtype}{list(shape)} seeds {pair} block {block}", as_array(got)[0], expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_shapes_and_seeds(dtype: str) -> None:
    for shape in SHAPES:
        for seeds in SEEDS:
            _check(shape, dtype, op_seeds(*seeds), 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("block", CARRIES)
def test_block_numbers_carry(block: int, dtype: str) -> None:
    _check((33, 17), dtype, (87654321, 7), block)
    _check((3,), dtype, (2**64 - 1, 2**64 - 1), block)


@pytest.mark.parametrize("dtype", DTYPES)
def test_block_numbers_carry_into_the_upper_counter(dtype: str) -> None:
    """The counter has 128 bits: past block 2**64 - 1 the upper words, which hold seed2, go up by one."""
    _check((33, 17), dtype, (87654321, 7), 2**64 - 5)
    _check((9,), dtype, (1, 2**64 - 1), 2**64 - 1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_draws_follow_each_other(dtype: str) -> None:
    shape, pair, start = (3, 5), op_seeds(5, 6), 2**32 - BLOCKS_PER_ELEMENT * 15
    drawn = as_array(random_uniform(shape, getattr(torch, dtype), *pair, start, draws=4))
    for k in range(4):
        assert_same_bits(f"draw {k}", drawn[k], uniform(shape, dtype, *pair, start + BLOCKS_PER_ELEMENT * 15 * k))


def test_words() -> None:
    blocks = torch.tensor([0, 1, 2**32 - 1, 2**32, 2**62])
    words = torch.stack(philox_words(2**64 - 3, 2**63 + 9, blocks), dim=1).tolist()
    assert [tuple(row) for row in words] == [block_words(2**64 - 3, 2**63 + 9, b) for b in blocks.tolist()]
