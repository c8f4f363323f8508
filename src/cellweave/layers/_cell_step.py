"""One step of an unroll: a call of the cell, checks of what it gives, rows that are past their end."""

from __future__ import annotations

from typing import Any

import torch

from cellweave import _nest
from cellweave._errors import ArgumentError, ArgumentTypeError, DTypeError, ShapeError
from cellweave._shape import TensorShape
from cellweave._tensor_array import TensorArray
from cellweave._types import Nest, dtype_name
from cellweave.layers._sequence import rows_mask


def step_with_lengths(
    cell: Any,
    inputs: Nest,
    state: Nest,
    active: torch.Tensor | None,
    where: str,
    dtype: torch.dtype | None,
    *,
    static: bool = False,
) -> tuple[Any, Any]:
    """One step of the cell; rows that are past their end give zeros and keep their state.

    Args:
        active: Bool `[B]`, true where a row is within its length; None: all rows are.
        dtype: What outputs have to have; None: anything.
        static: The step is `static_rnn`'s: without lengths its cell may give anything, as in TF1.
    Raises:
        ArgumentError, ArgumentTypeError: no pair; another structure. ShapeError, DTypeError: an output that is not
            `[B, output_size]` of `dtype`, a state unlike the one before.
    """
    output, new_state = _pair(cell(inputs, state), where)
    if static and active is None:
        return output, new_state
    output = _checked_output(cell, output, _nest.flatten(inputs)[0].shape[0], dtype, where, same=active is not None)
    check_new_state(state, new_state, where, "the cell's new state")
    if active is None:
        return output, new_state

    def zeroed(leaf: torch.Tensor) -> torch.Tensor:
        return torch.where(rows_mask(active, leaf), leaf, torch.zeros((), dtype=leaf.dtype, device=leaf.device))

    def kept(new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
        return torch.where(rows_mask(active, new), new, old)

    output = _nest.map_structure(zeroed, output)
    return output, _nest.pack(
        new_state, [kept(n, o) for n, o in zip(_nest.flatten(new_state), _nest.flatten(state), strict=True)]
    )


def _pair(result: Any, where: str) -> tuple[Any, Any]:
    if not _nest.is_sequence(result):
        raise ArgumentTypeError(f"{where}: expected a cell that returns (output, state), got {type(result).__name__}.")
    if len(result) != 2:
        raise ArgumentError(f"{where}: expected a cell that returns (output, state), got {len(result)} values.")
    return result[0], result[1]


def _checked_output(cell: Any, output: Nest, rows: int, dtype: torch.dtype | None, where: str, *, same: bool) -> Any:
    """The output in the structure of `output_size`, which TF1 gives it where it does not have to have it already."""
    sizes, what = cell.output_size, "the cell's output"
    plain = isinstance(output, torch.Tensor) and isinstance(sizes, int)
    if plain and dtype in (None, output.dtype) and output.shape == (rows, sizes):  # the short way of nearly all cells
        return output
    if same:
        _nest.same_structure(sizes, output, f"{where}: {what}")
    wanted, leaves = _nest.flatten(sizes), _nest.flatten(output)
    if len(wanted) != len(leaves):
        raise ArgumentError(
            f"{where}: expected {what} as its output_size {_nest.describe(sizes)}, got {_nest.describe(output)}."
        )
    for size, leaf in zip(wanted, leaves, strict=True):
        _check_tensor(leaf, where, what)
        dims = TensorShape(size).dims
        fits = leaf.dim() == 1 + len(dims) and leaf.shape[0] == rows
        if not fits or any(dim not in (None, n) for dim, n in zip(dims, leaf.shape[1:], strict=True)):
            raise ShapeError(f"{where}: expected {what} {[rows, *dims]} by its output_size, got {list(leaf.shape)}.")
        _check_dtype(leaf, dtype, where, what)
    return _nest.pack(sizes, leaves)


def check_new_state(old: Nest, new: Nest, where: str, what: str) -> None:
    """Raise unless a state is as the one before; a TensorArray may hold anything.

    Raises:
        ArgumentError, ArgumentTypeError: another structure, no tensors. ShapeError, DTypeError: another shape, dtype.
    """
    _nest.same_structure(old, new, f"{where}: {what}")
    for before, leaf in zip(_nest.flatten(old), _nest.flatten(new), strict=True):
        if leaf is before or (isinstance(before, TensorArray) and isinstance(leaf, TensorArray)):
            continue
        _check_tensor(leaf, where, what)
        if leaf.shape != before.shape:
            raise ShapeError(f"{where}: expected {what} {list(before.shape)} as before, got {list(leaf.shape)}.")
        _check_dtype(leaf, before.dtype, where, what)


def _check_tensor(leaf: Any, where: str, what: str) -> None:
    if leaf is None:
        raise ArgumentError(f"{where}: expected {what} as tensors, got None.")
    if not isinstance(leaf, torch.Tensor):
        raise ArgumentTypeError(f"{where}: expected {what} as tensors, got {type(leaf).__name__}.")


def _check_dtype(leaf: torch.Tensor, dtype: torch.dtype | None, where: str, what: str) -> None:
    if dtype not in (None, leaf.dtype) and not torch.is_autocast_enabled(leaf.device.type):
        raise DTypeError(
            f"{where}: expected {what} of dtype {dtype_name(dtype)}, got {dtype_name(leaf.dtype)}. "
            "Nothing is cast: convert it with .to(dtype) in the cell."
        )
