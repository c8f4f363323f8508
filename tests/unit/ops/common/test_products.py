"""Large products: the same numbers from whichever library makes them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from cellweave.ops.common import _products
from cellweave.ops.common._products import multiply

LIMITS = {"torch": (math.inf, math.inf), "onednn": (0, 0), "onednn for rows": (0, math.inf)}


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    limits = _products._worth_onednn  # a test may put another in its place
    limits.cache_clear()
    yield
    limits.cache_clear()


def tensor(rng: np.random.Generator, *shape: int) -> torch.Tensor:
    return torch.from_numpy(rng.standard_normal(shape).astype(np.float32))


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("columns", [None, slice(2, 5)])
def test_values(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, limits: str, transposed: bool, add: bool, columns: Any
) -> None:
    monkeypatch.setattr(_products, "_worth_onednn", lambda: LIMITS[limits])
    a = tensor(rng, 9, 7).t() if transposed else tensor(rng, 7, 9)
    b, before = tensor(rng, 9, 11), tensor(rng, 7, 11 if columns is None else 3)
    out = before.clone()
    found = multiply(a, b, out, add=add, columns=columns)
    expected = a.double() @ b.double()[:, columns or slice(None)] + (before.double() if add else 0)
    assert found.data_ptr() == out.data_ptr()
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)
    if not add:
        torch.testing.assert_close(multiply(a, b).double(), a.double() @ b.double(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "is_intel, isa, rows, columns",
    [
        (True, "avx512", False, False),
        (False, "avx512", True, True),
        (False, "avx2", True, False),
        (False, "portable", False, False),
    ],
)
def test_who_multiplies(monkeypatch: pytest.MonkeyPatch, is_intel: bool, isa: str, rows: bool, columns: bool) -> None:
    library = SimpleNamespace(is_intel=is_intel, best_isa=isa)
    monkeypatch.setattr(_products, "native_library", lambda: library)
    by_rows, by_columns = _products._worth_onednn()
    assert (by_rows < math.inf) == rows and (by_columns < math.inf) == columns


def test_without_the_core_torch_multiplies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_products, "native_library", lambda: None)
    assert _products._worth_onednn() == (math.inf, math.inf)
