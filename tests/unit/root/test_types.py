"""Dtype names and shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import cellweave as cw
from cellweave._types import as_dtype, dtype_name, shape_dims
from helpers.ids import named


@pytest.mark.parametrize(
    "given, dtype",
    [
        (torch.float64, torch.float64),
        ("float32", torch.float32),
        ("torch.bfloat16", torch.bfloat16),
        ("half", torch.float16),
        ("float", torch.float32),
        ("double", torch.float64),
        ("complex64", torch.complex64),
        ("bool", torch.bool),
        (np.float32, torch.float32),
        (np.dtype("float64"), torch.float64),
        (np.int32, torch.int32),
        (np.complex128, torch.complex128),
        (bool, torch.bool),
        (int, torch.int64),
        (float, torch.float32),  # as TF1; NumPy calls float64 so
    ],
    ids=named,
)
def test_dtypes(given: Any, dtype: torch.dtype) -> None:
    assert as_dtype(given) is dtype


@pytest.mark.parametrize("given", ["float33", "", "qint8", np.dtype("S3"), object(), 3, [1], None], ids=named)
def test_no_dtypes(given: Any) -> None:
    with pytest.raises(TypeError, match=r"^where: expected .*got "):
        as_dtype(given, "where")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64, torch.complex64, torch.bool])
def test_names_go_both_ways(dtype: torch.dtype) -> None:
    assert not dtype_name(dtype).startswith("torch.")
    assert as_dtype(dtype_name(dtype)) is dtype


@pytest.mark.parametrize(
    "given, dims",
    [(3, (3,)), ((None, 2), (None, 2)), (torch.tensor([2, 3]), (2, 3)), (cw.TensorShape([1]), (1,)), ([], ())],
    ids=named,
)
def test_shape_dims(given: Any, dims: tuple[int | None, ...]) -> None:
    assert shape_dims(given) == dims
