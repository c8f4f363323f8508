"""Checks of users' input, made once at the public edge."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch

from cellweave._errors import ArgumentError, ArgumentTypeError, DTypeError, MisfitError, ShapeError, StructureError
from cellweave._nest import is_nested
from cellweave._types import dtype_name


def require_packages(where: str, extra: str, *names: str) -> None:
    """Raise ModuleNotFoundError, with what to install, unless these packages are there."""
    for name in names:
        if find_spec(name) is None:
            what = f"{where}: expected the package {name}, got none. Install it: pip install 'cellweave[{extra}]'"
            raise ModuleNotFoundError(what, name=name)


def refuse_nested(where: str, inputs: torch.Tensor) -> None:
    """Raise ShapeError for a nested tensor, whose rows have several lengths."""
    if inputs.is_nested:
        raise ShapeError(
            f"{where}: expected inputs that are padded, got a nested tensor. Pad them with "
            "torch.nested.to_padded_tensor(inputs, 0.0), and give the rows' lengths."
        )


def as_flags(where: str, resets: Any) -> torch.Tensor:
    """Resets as a tensor of booleans.

    Raises:
        ArgumentTypeError: no booleans.
    """
    flags = resets if isinstance(resets, torch.Tensor) else torch.as_tensor(resets, device="cpu")
    if flags.dtype != torch.bool:
        raise ArgumentTypeError(f"{where}: expected resets as booleans, got {dtype_name(flags.dtype)}.")
    return flags


def as_step_resets(where: str, resets: Any, rows: int) -> torch.Tensor:
    """Resets `[B]` bool of one step.

    Raises:
        ArgumentTypeError: no booleans. ShapeError: not one for each row.
    """
    flags = as_flags(where, resets)
    if tuple(flags.shape) != (rows,):
        raise ShapeError(f"{where}: expected resets [B] = {[rows]} of a step, got {list(flags.shape)}.")
    return flags


def check_weight_dtype(where: str, dtype: torch.dtype | None) -> None:
    """Raise unless weights may have this dtype: floating or complex."""
    if dtype is not None and not (dtype.is_floating_point or dtype.is_complex):
        raise ArgumentError(
            f"{where}: expected a floating or complex dtype, got {dtype_name(dtype)}. Cast the inputs first."
        )


def check_positive_int(where: str, value: Any) -> int:
    """Return `value` as an int; raise unless it is a whole number above zero."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise ArgumentTypeError(f"{where}: expected a positive int, got {value!r}.")
    number = int(value.__index__())
    if number <= 0:
        raise ArgumentError(f"{where}: expected a positive int, got {number}.")
    return number


def check_flag(where: str, value: Any) -> bool:
    """Return `value` as a bool; raise for whole numbers other than 0 and 1, which are sizes in the wrong place."""
    if hasattr(value, "__index__") and int(value.__index__()) not in (0, 1):
        raise ArgumentTypeError(
            f"{where}: expected True or False, got {value!r}. A cell takes no input size: its first inputs tell it."
        )
    return bool(value)


def check_number(where: str, value: Any) -> float:
    """Return `value` as a float; raise unless it is one number."""
    if not isinstance(value, str | bytes):
        try:
            return float(value)
        except (TypeError, ValueError, RuntimeError):  # the last: a tensor of several
            pass
    raise ArgumentTypeError(f"{where}: expected a number, got {value!r}.")


def check_matrix(where: str, what: str, value: Any, depth: int | None, batch: int | None = None) -> None:
    """Raise unless `value` is a tensor `[batch, depth]`; None leaves a size open."""
    if not isinstance(value, torch.Tensor):
        error = StructureError if is_nested(value) else ArgumentTypeError
        raise error(f"{where}: expected {what} as a tensor, got {type(value).__name__}.")
    shape = list(value.shape)
    wanted = f"[{'B' if batch is None else batch}, {'D' if depth is None else depth}]"
    fits = len(shape) == 2 and depth in (None, shape[1]) and batch in (None, shape[0])
    if not fits:
        raise ShapeError(f"{where}: expected {what} {wanted}, got {shape}.")


def check_same_device(where: str, expected: torch.device, **tensors: torch.Tensor) -> None:
    """Raise unless every tensor is on the expected device."""
    for name, tensor in tensors.items():
        if tensor.device != expected:
            raise MisfitError(
                f"{where}: expected {name} on {expected}, got {tensor.device}. Nothing is moved: use .to(device)."
            )


def check_same_dtype(where: str, expected: torch.dtype, **tensors: torch.Tensor) -> None:
    """Raise unless every tensor has the expected dtype."""
    for name, tensor in tensors.items():
        if tensor.dtype != expected and not torch.is_autocast_enabled(tensor.device.type):
            raise DTypeError(
                f"{where}: expected {name} of dtype {dtype_name(expected)}, got {dtype_name(tensor.dtype)}. "
                "Nothing is cast: convert it with .to(dtype)."
            )
