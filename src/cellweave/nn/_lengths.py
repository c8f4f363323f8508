"""Lengths of rows, and rows that stand at the right end of a batch."""

from __future__ import annotations

from typing import Any

import torch

from cellweave._errors import ArgumentError, ArgumentTypeError, ShapeError
from cellweave._types import dtype_name, is_readable


def checked_lengths(where: str, lengths: Any, steps: int, rows: int, device: torch.device) -> torch.Tensor:
    """Lengths `[B]` int32 on a device.

    Raises:
        ArgumentTypeError: no whole numbers. ShapeError: not one for each row. ArgumentError: one outside 0..T; what
            lies on another device than the CPU is checked there, without waiting for it.
    """
    found = lengths if isinstance(lengths, torch.Tensor) else torch.tensor(lengths, device="cpu")
    whole = not (found.dtype.is_floating_point or found.dtype.is_complex or found.dtype == torch.bool)
    if not whole and found.numel():  # an empty list is one of floats
        raise ArgumentTypeError(f"{where}: expected lengths as whole numbers, got {dtype_name(found.dtype)}.")
    if found.dim() != 1 or found.shape[0] != rows:
        raise ShapeError(f"{where}: expected lengths [{rows}], one for each row, got {list(found.shape)}.")
    found = found.to(torch.int64)  # narrow ones could not be compared with T
    inside = ((found >= 0) & (found <= steps)).all()
    if torch.compiler.is_compiling() or not is_readable(inside):
        torch._assert_async(inside, f"{where}: expected lengths in 0..T")
    elif not bool(inside):
        raise ArgumentError(f"{where}: expected lengths in 0..{steps}, got {found.tolist()}.")
    return found.to(device=device, dtype=torch.int32)


class LeftPadding:
    """Rows that end at the last step, turned around so that they start at step 0, and back.

    Args:
        lengths: `[B]`. steps: T.
    """

    def __init__(self, lengths: torch.Tensor, steps: int) -> None:
        t = torch.arange(steps, device=lengths.device)[:, None]
        rows = torch.arange(lengths.shape[0], device=lengths.device)
        count = lengths.shape[0]
        self._before = t < steps - lengths
        self._to_left = (_wrapped(t + steps - lengths, steps) * count + rows).reshape(-1)
        self._to_right = (_wrapped(t + lengths, steps) * count + rows).reshape(-1)

    def to_left(self, value: torch.Tensor) -> torch.Tensor:
        """`[T, B, ...]` with each row's steps first."""
        return _by_rows(value, self._to_left)

    def to_right(self, value: torch.Tensor) -> torch.Tensor:
        """The way back."""
        return _by_rows(value, self._to_right)

    def states_to_right(self, states: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        """The same for states `[L * D, T, B, size]`; before a row's start those that it starts from, `first`."""
        turned = self.to_right(states.movedim(0, 2)).movedim(2, 0)
        return torch.where(self._before[None, :, :, None], first[:, None], turned)


def _wrapped(step: torch.Tensor, steps: int) -> torch.Tensor:
    """Below 2 T, modulo T, without a remainder, which exporters to ONNX take of numbers alone."""
    return torch.where(step >= steps, step - steps, step)


def _by_rows(value: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    flat = value.reshape(value.shape[0] * value.shape[1], *value.shape[2:])
    return flat.index_select(0, order).reshape(value.shape)
