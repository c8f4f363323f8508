"""Unrolls step by step and woven: the same bits as single steps, or the same up to the rounding of sums."""

from __future__ import annotations

from typing import Any

import pytest

from helpers import nest
from helpers.tolerances import assert_close, assert_same_bits

#: A woven run against single steps, relative to max(1, max|expected|): sums in another order, over a few steps.
ROUNDING = {"float32": 2e-6, "float64": 4e-15}

#: Runs a test with `backend` as `use_backend` takes it.
both_ways = pytest.mark.parametrize("backend", ["reference", None], ids=["stepwise", "woven"])


def assert_same_run(backend: str | None, got: Any, expected: Any) -> None:
    """Fail unless all tensors agree: to the bit step by step, up to rounding on any other backend."""
    pairs = list(zip(nest.flatten(got), nest.flatten(expected), strict=True))
    for number, (a, b) in enumerate(pairs):
        if backend == "reference":
            assert_same_bits(f"tensor {number}", a, b)
        else:
            assert a.dtype == b.dtype
            assert_close(f"tensor {number}", a, b, ROUNDING[str(b.dtype).removeprefix("torch.")])
