"""The two arithmetics of dropping: TF 2.15's comparison and TF1's floor."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from cellweave.ops.common import drop_by_floor, drop_by_threshold

GRID = torch.arange(0, 2**23, 2**23 // 4096 - 1, dtype=torch.float64).float() * 2.0**-23
KEEPS = [float(np.float32(k)) for k in (0.1, 0.25, 0.3, 0.5, 0.6, 0.7, 0.9, 0.95, 1 / 3, 0.999)]


@pytest.mark.parametrize("keep", KEEPS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_keep_the_same_elements(keep: float, dtype: torch.dtype) -> None:
    noise, value = GRID.to(dtype), torch.full_like(GRID, 3.0, dtype=dtype)
    by_threshold, by_floor = drop_by_threshold(value, noise, keep), drop_by_floor(value, noise, keep)
    kept = noise.double().numpy() >= float(torch.tensor(1.0 - keep, dtype=dtype))
    assert np.array_equal((by_threshold != 0).numpy(), kept)
    assert np.array_equal((by_floor != 0).numpy(), kept)
    torch.testing.assert_close(by_threshold[kept], by_floor[kept], rtol=1e-6, atol=0)
    assert by_floor[kept][0].item() == pytest.approx(3.0 / keep, rel=1e-6)


def test_noise_on_the_edge_is_kept() -> None:
    noise = torch.tensor([0.5 - 2.0**-23, 0.5])
    for drop in (drop_by_threshold, drop_by_floor):
        assert drop(torch.ones(2), noise, 0.5).tolist() == [0.0, 2.0]


def test_keep_one_is_the_identity() -> None:
    noise = torch.tensor([0.0, 0.5, 1.0 - 2.0**-23])
    value = torch.tensor([1.0, -2.0, 3.0])
    assert torch.equal(drop_by_threshold(value, noise, 1.0), value)
    assert torch.equal(drop_by_floor(value, noise, 1.0), value)
    assert torch.equal(drop_by_floor(value, noise, torch.tensor(1.0)), value)


def test_keep_zero_by_floor_is_nan() -> None:
    assert drop_by_floor(torch.ones(2), torch.tensor([0.1, 0.9]), 0.0).isnan().all()


def test_dropped_specials() -> None:
    """TF 2.15 gives +0 where TF1 lets -0 and NaN through."""
    value, noise = torch.tensor([-1.0, math.nan, math.inf]), torch.zeros(3)
    assert [math.copysign(1.0, item) for item in drop_by_threshold(value, noise, 0.5).tolist()] == [1.0, 1.0, 1.0]
    assert drop_by_threshold(value, noise, 0.5).tolist() == [0.0, 0.0, 0.0]
    by_floor = drop_by_floor(value, noise, 0.5).tolist()
    assert math.copysign(1.0, by_floor[0]) == -1.0 and math.isnan(by_floor[1]) and math.isnan(by_floor[2])


@pytest.mark.parametrize("drop", [drop_by_threshold, drop_by_floor])
def test_gradient_is_mask_over_keep(drop: object) -> None:
    value = torch.randn(64, dtype=torch.float64, requires_grad=True)
    noise = torch.rand(64, dtype=torch.float64)
    drop(value, noise, 0.25).sum().backward()  # type: ignore[operator]
    assert torch.equal(value.grad != 0, noise >= 0.75)
    assert set(value.grad.tolist()) == {0.0, 4.0}


def test_a_tensor_keep_gets_a_gradient() -> None:
    value = torch.tensor([1.0, -2.0, 5.0], dtype=torch.float64)
    noise = torch.tensor([0.9, 0.8, 0.1], dtype=torch.float64)
    keep = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    drop_by_floor(value, noise, keep).sum().backward()
    assert keep.grad.item() == pytest.approx(-(1.0 - 2.0) / 0.25)


def test_a_tensor_keep_takes_the_values_dtype() -> None:
    keep = torch.tensor(0.6, dtype=torch.float64, requires_grad=True)
    out = drop_by_floor(torch.ones(4), torch.full((4,), 0.9), keep)
    assert out.dtype == torch.float32
    out.sum().backward()
    assert keep.grad.dtype == torch.float64


def test_a_keep_written_anew_before_backward_changes_no_gradient() -> None:
    keep, value = torch.tensor(0.5), torch.ones(3, requires_grad=True)
    out = drop_by_floor(value, torch.full((3,), 0.9), keep)
    keep.fill_(0.25)
    out.sum().backward()
    assert value.grad.tolist() == [2.0, 2.0, 2.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_compares_in_its_own_dtype(dtype: torch.dtype) -> None:
    """0.7's complement is rounded to the noise's dtype before the comparison, as TF 2.15 does."""
    edge = torch.tensor(1.0 - float(np.float32(0.7)), dtype=dtype)
    below = torch.nextafter(edge.double(), torch.tensor(0.0, dtype=torch.float64)).to(dtype)
    below = below if below < edge else edge - torch.finfo(dtype).eps / 4
    out = drop_by_threshold(torch.ones(2, dtype=dtype), torch.stack([edge, below.to(dtype)]), float(np.float32(0.7)))
    assert out[0] > 0 and out[1] == 0 and out.dtype == dtype
