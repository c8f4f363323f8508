"""Bound masks: exact thresholds, places in streams, and the same bits as the stepwise functions."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cellweave._errors import ArgumentError
from cellweave.ops.common import BoundMask, Stream, apply_mask, drop_by_floor, drop_by_threshold, random_uniform
from cellweave.ops.common._masks import threshold
from cellweave.specs import MaskSpec
from helpers.tolerances import assert_same_bits

KEEPS = [1.0, 0.75, 0.7, float(torch.tensor(0.7)), 0.5, 0.1, 1e-6, 2.0**-30]
STREAM = (7, 8, 2**64 - 40)


def _dropped(by_floor: bool, noise: torch.Tensor, keep: float) -> torch.Tensor:
    drop: Any = drop_by_floor if by_floor else drop_by_threshold
    return drop(torch.ones_like(noise), noise, keep) == 0


@pytest.mark.parametrize("by_floor", [False, True])
@pytest.mark.parametrize("keep", [0.7, 0.9999999])
def test_threshold_over_all_mantissas(keep: float, by_floor: bool) -> None:
    noise = torch.arange(1 << 23, dtype=torch.float32) * 2.0**-23
    assert int(_dropped(by_floor, noise, keep).sum()) == threshold(keep, by_floor, torch.float32)


@pytest.mark.parametrize("by_floor", [False, True])
@pytest.mark.parametrize("keep", KEEPS)
@pytest.mark.parametrize("dtype, bits", [(torch.float32, 23), (torch.float64, 52), (torch.float16, 10)])
def test_threshold_at_its_edge(dtype: torch.dtype, bits: int, keep: float, by_floor: bool) -> None:
    edge = threshold(keep, by_floor, dtype)
    assert 0 <= edge <= 1 << bits
    for mantissa in range(max(0, edge - 3), min(1 << bits, edge + 3)):
        noise = torch.tensor([mantissa * 2.0**-bits], dtype=dtype)
        assert bool(_dropped(by_floor, noise, keep)) == (mantissa < edge)


def test_thresholds_need_a_dtype_with_draws() -> None:
    with pytest.raises(ArgumentError, match="expected float16, .* got int32"):
        threshold(0.5, True, torch.int32)


def test_the_two_rules_differ() -> None:
    """`floor(keep + u)` rounds the sum, `u >= 1 - keep` rounds the bound."""
    keep = 0.6118970848141451
    assert [threshold(keep, by_floor, torch.float32) for by_floor in (False, True)] == [3255644, 3255643]


@pytest.mark.parametrize("by_floor", [False, True])
@pytest.mark.parametrize("dtype, bits", [(torch.float32, 23), (torch.float64, 52), (torch.float16, 10)])
def test_nothing_is_kept_at_zero(dtype: torch.dtype, bits: int, by_floor: bool) -> None:
    assert threshold(0.0, by_floor, dtype) == 1 << bits


@pytest.mark.parametrize("by_floor", [False, True])
@pytest.mark.parametrize("place", ["zone_h", "zone_c"])
def test_zoneout_scales_nothing(place: Any, by_floor: bool) -> None:
    """A mask of the same stream keeps the same elements; an expected one all, by their share."""
    masks = [BoundMask(MaskSpec(kind, False, True), 0.7, by_floor, *STREAM) for kind in (place, "output")]
    like = torch.empty((), dtype=torch.float32)
    zone, plain = (mask.factors(5, 64, like) for mask in masks)
    assert torch.equal(zone, (plain != 0).float()) and set(zone.unique().tolist()) == {0.0, 1.0}
    assert masks[0].threshold(torch.float32) == masks[1].threshold(torch.float32) and masks[0].scale(torch.float32) == 1
    expected = BoundMask(MaskSpec(place, True, True), 0.7, by_floor, *STREAM, stride=99, expected=True)
    assert torch.equal(expected.new_share(expected.draws(3, 5, 2, like)), torch.full((3, 1, 2), 0.7))
    assert torch.equal(expected.factors(5, 2, like), torch.full((1, 2), 0.7))
    assert (expected.threshold(torch.float32), expected.scale(torch.float32)) == (0, 0.7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scale(dtype: torch.dtype) -> None:
    for by_floor in (False, True):
        mask = BoundMask(MaskSpec("h", False, True), 0.7, by_floor)
        kept = mask.apply(torch.ones(3, dtype=dtype), torch.full((3,), 0.99, dtype=dtype))
        assert torch.equal(kept, torch.full((3,), mask.scale(dtype), dtype=dtype))


@pytest.mark.parametrize("by_floor", [False, True])
def test_a_mask_of_every_step(by_floor: bool) -> None:
    x = torch.randn(5, 3, 7)
    mask = BoundMask(MaskSpec("input", True, True), 0.6, by_floor, *STREAM, stride=256 * 21)
    stream, drop = Stream(*STREAM), drop_by_floor if by_floor else drop_by_threshold
    steps: list[torch.Tensor] = []
    for t in range(5):
        steps.append(drop(x[t], stream.peek((3, 7), torch.float32, None)[0], 0.6))
        stream.advance(21)
    assert_same_bits("masked", apply_mask(x, mask), torch.stack(steps))
    assert (stream.seed2, stream.block) == (9, 256 * 21 * 5 - 40)  # past 2**64: the carry was met


@pytest.mark.parametrize("rows, per_row", [(1, False), (3, True)])
def test_one_mask_for_all_steps(rows: int, per_row: bool) -> None:
    x = torch.randn(5, 3, 7)
    mask = BoundMask(MaskSpec("output", False, per_row), 0.6, True, *STREAM, stride=99)
    noise = random_uniform((rows, 7), torch.float32, *STREAM)[0]
    assert_same_bits("masked", apply_mask(x, mask), torch.stack([drop_by_floor(x[t], noise, 0.6) for t in range(5)]))
    factors = mask.factors(3, 7, x)
    assert list(factors.shape) == [rows, 7]
    assert torch.equal(factors.unique(), torch.tensor([0.0, mask.scale(torch.float32)]))


def test_given_noise() -> None:
    x, noise = torch.randn(5, 3, 7, dtype=torch.float64), torch.rand(1, 7, dtype=torch.float64)
    mask = BoundMask(MaskSpec("c", False, False), 0.6, True, noise=noise)
    assert_same_bits("masked", apply_mask(x, mask), x / 0.6 * torch.floor(0.6 + noise))


def test_draws_with_a_stride_of_their_own() -> None:
    """Two masks that share a stream within a step: each moves on by what both took."""
    both = random_uniform((4,), torch.float32, 1, 2, 3, draws=3, stride=5000)
    for k in range(3):
        assert_same_bits(f"draw {k}", both[k], random_uniform((4,), torch.float32, 1, 2, 3 + 5000 * k)[0])
