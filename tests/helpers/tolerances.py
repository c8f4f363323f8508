"""How close two results must be. Loosen a number only in a commit of its own, with what was measured."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

#: Golden values: largest difference relative to max(1, max|golden|), as the manifest says. It names none for float16:
#: there 2e-2 holds for random compositions against the float64 oracles, but where rounding crosses a clip's bound.
GOLDEN = {"float16": 2e-2, "float32": 1e-5, "float64": 1e-9}

#: Finite differences against hand-written gradients, float64 oracles.
FINITE_DIFFERENCE = 1e-7


def as_array(value: Any) -> np.ndarray:
    """A tensor or array as a NumPy array of its own dtype (bfloat16 as float32)."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    return np.asarray(value)


def assert_close(what: str, got: Any, expected: Any, tolerance: float) -> None:
    """Fail unless shapes agree and every element is within `tolerance * max(1, max|expected|)`.

    NaN and infinity pass only where `expected` holds the same. The message names the worst element and both values.
    """
    a, b = as_array(got), as_array(expected)
    if a.shape != b.shape:
        raise AssertionError(f"{what}: expected shape {b.shape}, got {a.shape}")
    if b.size == 0:
        return
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    finite = np.isfinite(wide_b)
    scale = max(1.0, float(np.abs(wide_b[finite]).max(initial=0.0)))
    with np.errstate(invalid="ignore"):
        error = np.where(finite, np.abs(wide_a - wide_b), 0.0)
    same_special = (np.isnan(wide_a) & np.isnan(wide_b)) | (wide_a == wide_b)
    error = np.where(finite | same_special, error, np.inf)
    error = np.where(np.isnan(error), np.inf, error)
    bad = ~(error <= tolerance * scale)
    if bad.any():
        index = tuple(int(i) for i in np.unravel_index(int(error.argmax()), error.shape))
        raise AssertionError(
            f"{what}: worst at {index}: expected {wide_b[index]!r}, got {wide_a[index]!r}; difference "
            f"{error[index]:.3e} > {tolerance:g} * {scale:.6g}; {int(bad.sum())} of {b.size} elements are off"
        )


def assert_same_bits(what: str, got: Any, expected: Any) -> None:
    """Fail unless dtype, shape and every bit agree."""
    a, b = as_array(got), as_array(expected)
    if a.dtype != b.dtype or a.shape != b.shape:
        raise AssertionError(f"{what}: expected {b.dtype}{list(b.shape)}, got {a.dtype}{list(a.shape)}")
    bits = {2: np.uint16, 4: np.uint32, 8: np.uint64}[a.dtype.itemsize]
    differs = np.ascontiguousarray(a).view(bits) != np.ascontiguousarray(b).view(bits)
    differs = differs.reshape(a.shape)  # ascontiguousarray makes a scalar an array of one
    if differs.any():
        index = tuple(int(i) for i in np.argwhere(differs)[0])
        raise AssertionError(
            f"{what}: first different bits at {index}: expected {b[index]!r}, got {a[index]!r}; "
            f"{int(differs.sum())} of {b.size} elements differ"
        )


#: Reference engine against the float64 oracle, relative to max(1, max|expected|), by dtype. Largest errors measured
#: over the table of helpers/recurrence_cases.py: 5.4e-7 (values), 5.2e-7 (gradients); 7.8e-16 and 1.2e-15 in float64.
REFERENCE_VALUE = {"float32": 2e-6, "float64": 4e-15}
REFERENCE_GRADIENT = {"float32": 2e-6, "float64": 5e-15}

#: The same over the table of helpers/layer_cases.py, whose masks and residuals make larger sums: 7.8e-7 and 1.3e-6;
#: 1.9e-15 and 9.5e-15 in float64.
LAYER_VALUE = {"float32": 2e-6, "float64": 4e-15}
LAYER_GRADIENT = {"float32": 3e-6, "float64": 2e-14}

#: cuDNN layers in float16, which run step by step in float16, against the float64 oracle over tests/numerics: largest
#: errors measured 9.2e-4 (values) and 1.8e-3 (gradients); float16's own step is 9.8e-4.
CUDNN_HALF = 4e-3

#: A fused backend may be off by twice the reference's own error at the same dtype, plus this floor.
FLOOR = {"float32": 1e-6, "float64": 2e-15}


#: A weight's gradient that is one product over T * B rows, where the reference adds up T products of B rows, rounds
#: like a sum of T * B terms: from this many on the floor grows with their square root. Measured at T * B = 2080, for
#: the native core's gradients and those of torch's own layers: 1.9e-6 in float32, 6.1e-15 in float64.
LONG_SUM = 256


def worst_error(got: Any, expected: Any) -> float:
    """Largest difference relative to max(1, max|expected|); NaN and infinity count as infinite."""
    a, b = as_array(got).astype(np.float64), as_array(expected).astype(np.float64)
    if a.shape != b.shape:
        raise AssertionError(f"expected shape {b.shape}, got {a.shape}")
    if b.size == 0:
        return 0.0
    error = float(np.abs(a - b).max()) / max(1.0, float(np.abs(b).max()))
    return error if error == error else float("inf")


def assert_no_worse(what: str, got: Any, reference: Any, expected: Any, dtype: str, terms: int = 1) -> None:
    """Fail unless `got` is as near to the oracle as twice the reference's error plus the floor allows.

    Args:
        terms: How many rows one product sums up.
    """
    floor = FLOOR[dtype] * max(1.0, math.sqrt(terms / LONG_SUM))
    assert_close(what, got, expected, 2.0 * worst_error(reference, expected) + floor)
