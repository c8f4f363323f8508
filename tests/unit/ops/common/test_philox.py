"""`random_uniform` as an op: any sizes, seeds and block numbers; devices, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import cellweave as cw
from cellweave.ops.common import BLOCKS_PER_ELEMENT, philox_words, random_uniform
from helpers.tolerances import as_array, assert_same_bits
from oracles.philox import block_words, uniform

DTYPES = ["float16", "bfloat16", "float32", "float64"]
WORD64 = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, 1, 2**32 - 1, 2**32, 2**63, 2**64 - 1]))
#: Far enough below 2**64 that no draw of these tests passes it.
BLOCK = st.one_of(st.integers(0, 2**64 - 2**20), st.sampled_from([0, 2**32 - 3, 2**32, 2**63 - 3, 2**64 - 2**20]))


@settings(derandomize=True, max_examples=150, deadline=None, database=None)
@given(
    shape=st.lists(st.integers(0, 5), max_size=3),
    dtype=st.sampled_from(DTYPES),
    seed=WORD64,
    seed2=WORD64,
    block=BLOCK,
    draws=st.integers(1, 3),
)
def test_any_op_has_the_oracles_bits(
    shape: list[int], dtype: str, seed: int, seed2: int, block: int, draws: int
) -> None:
    got = random_uniform(shape, getattr(torch, dtype), seed, seed2, block, draws=draws)
    assert list(got.shape) == [draws, *shape]
    count = int(np.prod(shape, dtype=np.int64))
    for k in range(draws):
        start = block + k * BLOCKS_PER_ELEMENT * count
        assert_same_bits(f"draw {k}", as_array(got)[k], uniform(shape, dtype, seed, seed2, start))


@settings(derandomize=True, max_examples=60, deadline=None, database=None)
@given(seed=WORD64, seed2=WORD64, block=st.integers(0, 2**63 - 1))
def test_any_block_has_the_oracles_words(seed: int, seed2: int, block: int) -> None:
    words = philox_words(seed, seed2, torch.tensor([[block]]))
    assert tuple(word.item() for word in words) == block_words(seed, seed2, block)
    assert all(word.shape == (1, 1) for word in words)


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_elements(dtype: str) -> None:
    got = random_uniform((3, 0, 2), getattr(torch, dtype), 1, 2, 0, draws=4)
    assert got.shape == (4, 3, 0, 2) and got.dtype == getattr(torch, dtype)


def test_a_scalar() -> None:
    got = random_uniform((), torch.float32, 1, 2, 0)
    assert_same_bits("scalar", got[0], uniform((), "float32", 1, 2))


def test_draws_at_once_are_draws_one_by_one() -> None:
    together = random_uniform((2, 3), torch.float64, 9, 8, 5, draws=7)
    one_by_one = [random_uniform((2, 3), torch.float64, 9, 8, 5 + k * BLOCKS_PER_ELEMENT * 6)[0] for k in range(7)]
    assert torch.equal(together, torch.stack(one_by_one))


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_are_in_the_unit_interval(dtype: str) -> None:
    values = random_uniform((4000,), getattr(torch, dtype), 3, 4, 0).double()
    assert values.min() >= 0 and values.max() < 1
    assert values.mean().item() == pytest.approx(0.5, abs=0.02)


def test_nothing_of_torch_is_drawn() -> None:
    before = torch.get_rng_state()
    random_uniform((5,), torch.float32, 1, 2, 3)
    assert torch.equal(torch.get_rng_state(), before)


def test_device() -> None:
    assert random_uniform((2,), torch.float32, 1, 2, 3, device="meta").device.type == "meta"


@pytest.mark.parametrize("dtype", [torch.int32, torch.complex64, torch.bool])
def test_other_dtypes_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(cw.ArgumentError, match=r"random_uniform: expected float16.*got "):
        random_uniform((2,), dtype, 1, 2, 3)
