"""Zeros that calls start from."""

from __future__ import annotations

import pytest
import torch

from cellweave.ops.common import _zeros, zeros_to_start
from cellweave.ops.common._zeros import are_zeros

LIKE = torch.ones(1)


def test_small_ones_are_kept() -> None:
    zeros = zeros_to_start(2, 3, LIKE)
    assert zeros is zeros_to_start(2, 3, LIKE)
    assert zeros.tolist() == [[0.0] * 3] * 2
    assert zeros_to_start(2, 3, LIKE.double()).dtype == torch.float64


def test_large_ones_are_not() -> None:
    assert zeros_to_start(1, 1 << 15, LIKE) is not zeros_to_start(1, 1 << 15, LIKE)
    assert not zeros_to_start(1, 1 << 15, LIKE).any()


def test_inference_mode_has_its_own() -> None:
    with torch.inference_mode():
        assert zeros_to_start(2, 5, LIKE).is_inference()
    assert not zeros_to_start(2, 5, LIKE).is_inference()


@pytest.mark.parametrize("value", [1.0, -1.0, float("nan")])
def test_what_holds_nothing_else(value: float) -> None:
    assert are_zeros(zeros_to_start(4, 2, LIKE))
    assert are_zeros(torch.zeros(3, 2))
    assert are_zeros(torch.zeros(0, 2))
    assert not are_zeros(torch.tensor([[0.0, value]]))


def test_no_address_outlives_its_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_zeros, "_MOST", 3)
    for width in range(1, 9):
        zeros_to_start(1, width, LIKE)
        assert set(_zeros._by_address) == {zeros.data_ptr() for zeros in _zeros._kept.values()}
    assert len(_zeros._kept) <= 3
