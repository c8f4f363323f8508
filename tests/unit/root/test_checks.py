"""The checks made at the public edge."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
import torch

import cellweave as cw
from cellweave._checks import check_matrix, check_positive_int, check_same_dtype, check_weight_dtype


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.complex64, None])
def test_weights_may_have(dtype: torch.dtype | None) -> None:
    check_weight_dtype("here", dtype)


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.uint8])
def test_weights_may_not_have(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=rf"^here: expected .*got {str(dtype)[6:]}\."):
        check_weight_dtype("here", dtype)


@pytest.mark.parametrize("value", [1, np.int64(7), torch.tensor(3)], ids=repr)
def test_positive_ints(value: Any) -> None:
    number = check_positive_int("here", value)
    assert type(number) is int
    assert number == int(value)


@pytest.mark.parametrize(
    "value, kind",
    [(0, ValueError), (-2, ValueError), (True, TypeError), (2.0, TypeError), ("3", TypeError), (None, TypeError)],
)
def test_no_positive_ints(value: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=r"^here: expected a positive int, got ") as info:
        check_positive_int("here", value)
    assert isinstance(info.value, cw.CellweaveError)


def test_matrices() -> None:
    check_matrix("here", "inputs", torch.ones(2, 3), None)
    check_matrix("here", "inputs", torch.ones(2, 3), 3, 2)
    check_matrix("here", "inputs", torch.ones(0, 3), 3)


@pytest.mark.parametrize(
    "value, depth, batch, says",
    [
        (torch.ones(3), None, None, r"\[B, D\], got \[3\]"),
        (torch.ones(1, 2, 3), None, None, r"\[B, D\], got \[1, 2, 3\]"),
        (torch.ones(2, 4), 3, None, r"\[B, 3\], got \[2, 4\]"),
        (torch.ones(2, 3), 3, 5, r"\[5, 3\], got \[2, 3\]"),
        (torch.tensor(1.0), None, None, r"got \[\]"),
    ],
)
def test_wrong_matrices(value: torch.Tensor, depth: int | None, batch: int | None, says: str) -> None:
    with pytest.raises(cw.ShapeError, match=rf"^here: expected inputs {says}|^here: .*{says}"):
        check_matrix("here", "inputs", value, depth, batch)


@pytest.mark.parametrize("value", [None, [[1.0]], np.ones((2, 3)), 3], ids=repr)
def test_what_is_no_tensor(value: Any) -> None:
    with pytest.raises(cw.ArgumentTypeError, match=rf"^here: expected inputs as a tensor, got {type(value).__name__}"):
        check_matrix("here", "inputs", value, None)


def test_same_dtype() -> None:
    check_same_dtype("here", torch.float32, a=torch.ones(1), b=torch.ones(1))
    with pytest.raises(cw.DTypeError, match=r"^here: expected b of dtype float32, got float64"):
        check_same_dtype("here", torch.float32, a=torch.ones(1), b=torch.ones(1).double())


def test_autocast_may_mix_dtypes() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        check_same_dtype("here", torch.float32, a=torch.ones(1).bfloat16())


@pytest.mark.parametrize("part, extra, package", [("training", "train", "safetensors"), ("onnx", "onnx", "onnxscript")])
def test_a_part_says_what_it_needs(part: str, extra: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module(f"cellweave.{part}._packages")
    monkeypatch.setattr("cellweave._checks.find_spec", lambda name: None if name == package else name)
    with pytest.raises(ModuleNotFoundError, match=rf"^cellweave.{part}: .* {package}, got none.*cellweave\[{extra}\]"):
        importlib.reload(module)
