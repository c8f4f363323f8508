"""What the unrolls share: checks of inputs, lengths and states; copying states through past a row's end."""

from __future__ import annotations

from typing import Any

import torch

from cellweave import _nest
from cellweave._checks import as_flags, refuse_nested
from cellweave._errors import ArgumentError, ArgumentTypeError, ShapeError
from cellweave._shape import TensorShape
from cellweave._types import DTypeLike, Nest, as_dtype, dtype_name, is_readable
from cellweave.cells import cell_zero_state
from cellweave.scopes import Loop, VariableScope, is_probing, probing, variable_scope

#: Longer rows are as long as any sequence can be.
_LONGEST = 2**30
#: What holds the numbers of a dtype and `_LONGEST` too, where the dtype itself does not or cannot be clamped.
_WIDER = {
    torch.float16: torch.float32, torch.bfloat16: torch.float32, torch.uint32: torch.int64, torch.uint64: torch.float64,
}  # fmt: skip


def check_inputs(inputs: Nest, where: str, *, time_major: bool) -> tuple[int, int]:
    """Steps T and rows B of sequence inputs, which may be a structure.

    Raises:
        ArgumentError: inputs are None or empty. ArgumentTypeError: a leaf is no tensor. ShapeError: fewer than three
            axes, a nested tensor, or leaves that disagree on B or T.
    """
    leaves = _nest.flatten(inputs)
    if not leaves or any(leaf is None for leaf in leaves):
        got = "None" if inputs is None else f"{_nest.describe(inputs)} with {len(leaves)} leaves, some of them None"
        raise ArgumentError(f"{where}: expected inputs {_layout(time_major)}, got {got if leaves else repr(inputs)}.")
    sizes = []
    for leaf in leaves:
        if not isinstance(leaf, torch.Tensor):
            raise ArgumentTypeError(
                f"{where}: expected inputs {_layout(time_major)} as tensors, got {type(leaf).__name__}."
            )
        refuse_nested(where, leaf)
        if leaf.dim() < 3:
            raise ShapeError(f"{where}: expected inputs {_layout(time_major)}, got {list(leaf.shape)}.")
        sizes.append((leaf.shape[0], leaf.shape[1]) if time_major else (leaf.shape[1], leaf.shape[0]))
    if any(size != sizes[0] for size in sizes):
        raise ShapeError(f"{where}: expected inputs with equal B and T, got (T, B) of {sizes}.")
    return sizes[0]


def _layout(time_major: bool) -> str:
    return "[T, B, D]" if time_major else "[B, T, D]"


def as_lengths(sequence_length: Any, rows: int, where: str) -> torch.Tensor | None:
    """Lengths `[B]` int32; floats are truncated, True is 1. None stays None.

    Raises:
        ShapeError: not one axis of B elements.
    """
    if sequence_length is None:
        return None
    # compiled code is made anew for each list that goes into as_tensor
    make = torch.tensor if isinstance(sequence_length, list | tuple) else torch.as_tensor
    try:
        lengths = sequence_length if isinstance(sequence_length, torch.Tensor) else make(sequence_length, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgumentTypeError(
            f"{where}: expected sequence_length [{rows}] of numbers, got {sequence_length!r}."
        ) from error
    if lengths.dim() != 1 or lengths.shape[0] != rows:
        raise ShapeError(f"{where}: expected sequence_length [{rows}], one per row, got {list(lengths.shape)}.")
    if lengths.dtype.is_complex:
        raise ArgumentError(f"{where}: expected sequence_length as real numbers, got {dtype_name(lengths.dtype)}.")
    wider = _WIDER.get(lengths.dtype)
    if wider is not None:
        lengths = lengths.to(wider)
    if lengths.dtype == torch.int64 or lengths.dtype.is_floating_point:
        lengths = lengths.clamp(-1, _LONGEST)  # what lies beyond would wrap
    return lengths.to(torch.int32)


def steps_to_run(steps: int, lengths: torch.Tensor | None, *, at_least: int) -> int:
    """`min(T, max(at_least, longest row))` where that is known, without waiting for a device; else T."""
    if lengths is None or torch.compiler.is_compiling() or is_probing():
        return steps
    if not is_readable(lengths) or lengths.numel() == 0:
        return steps
    return min(steps, max(at_least, int(lengths.max())))


def take_back_late_steps(loop: Loop, steps: int, ran: int, lengths: torch.Tensor | None) -> None:
    """Undo the draws of steps that TF1 would not have run, where running them all avoided waiting for a device."""
    if lengths is not None and lengths.device.type != "cpu" and lengths.numel() and loop.drawn and not is_probing():
        loop.take_back(ran - min(steps, max(1, int(lengths.max()))))


def first_state(cell: Any, initial_state: Nest, dtype: DTypeLike, inputs: Nest, rows: int, where: str) -> Any:
    """The state to start from, checked against the cell's structure and the batch.

    Raises:
        ArgumentError: neither a state nor a dtype; leaves of several dtypes; another number of elements.
        ArgumentTypeError: another structure type. ShapeError: leaves that are not `[B, size]`.
    """
    first = _nest.flatten(inputs)[0]
    if initial_state is None:
        if dtype is None:
            raise ArgumentError(f"{where}: expected dtype or initial_state, got neither. Pass dtype='float32'.")
        resolved = as_dtype(dtype, where)
        with torch.device(first.device):
            return zero_state_of(cell, rows, resolved)
    check_state(cell, initial_state, rows, where, "initial_state")
    kinds = {leaf.dtype for leaf in _nest.flatten(initial_state)}
    if dtype is None and len(kinds) > 1:
        names = sorted(dtype_name(kind) for kind in kinds)
        raise ArgumentError(f"{where}: expected initial_state of one dtype, got {names}. Give dtype= as well.")
    return initial_state


def output_dtype(state: Nest, dtype: DTypeLike, where: str) -> torch.dtype | None:
    """What outputs have to have: the dtype that was asked for, else the state's; None where there is neither."""
    if dtype is not None:
        return as_dtype(dtype, where)
    return next((leaf.dtype for leaf in _nest.flatten(state)), None)


def check_state(cell: Any, state: Nest, rows: int, where: str, what: str) -> None:
    """Raise unless a state has the cell's structure and B rows.

    Raises:
        ArgumentError: another number of elements. ArgumentTypeError: another structure type, or leaves that are no
            tensors. ShapeError: leaves that are not `[B, size]`.
    """
    state_size = cell.state_size
    _nest.same_structure(state_size, state, f"{where}: {what}")
    for leaf, size in zip(_nest.flatten(state), _nest.flatten(state_size), strict=True):
        if not isinstance(leaf, torch.Tensor):
            raise ArgumentTypeError(f"{where}: expected {what} leaves as tensors, got {type(leaf).__name__}.")
        dims = TensorShape(size).dims
        fits = leaf.dim() == 1 + len(dims) and leaf.shape[0] == rows
        fits = fits and all(dim in (None, n) for dim, n in zip(dims, leaf.shape[1:], strict=True))
        if not fits:
            raise ShapeError(f"{where}: expected {what} leaf {[rows, *dims]}, got {list(leaf.shape)}.")


def as_resets(resets: Any, steps: int, rows: int, where: str, *, time_major: bool) -> torch.Tensor | None:
    """Resets `[T, B]` bool out of the caller's layout. None stays None.

    Raises:
        ArgumentTypeError: no booleans. ShapeError: not one for each step and row.
    """
    if resets is None:
        return None
    flags = as_flags(where, resets)
    wanted = (steps, rows) if time_major else (rows, steps)
    if tuple(flags.shape) != wanted:
        layout = "[T, B]" if time_major else "[B, T]"
        raise ShapeError(f"{where}: expected resets {layout} = {list(wanted)}, got {list(flags.shape)}.")
    return flags if time_major else flags.transpose(0, 1)


def zero_state_of(cell: Any, rows: int, dtype: torch.dtype) -> Any:
    """What a cell starts from where no state is given, by the call that TF1 makes."""
    if hasattr(cell, "get_initial_state"):
        return cell.get_initial_state(inputs=None, batch_size=rows, dtype=dtype)
    return cell_zero_state(cell, rows, dtype)


def rows_mask(active: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """`active` `[B]` shaped to select rows of `like`."""
    return active.to(like.device).reshape(-1, *[1] * (like.dim() - 1))


def without_padding(inputs: Nest, active: torch.Tensor) -> Any:
    """Inputs with zeros past each row's end, so that nothing that stands there reaches a gradient.

    Args:
        inputs: `[..., D]` with leading axes as `active`, or a structure of such tensors.
        active: Bool, true where a row is within its length.
    """

    def zeroed(leaf: torch.Tensor) -> torch.Tensor:
        mask = active.to(leaf.device).reshape(*active.shape, *[1] * (leaf.dim() - active.dim()))
        return torch.where(mask, leaf, torch.zeros((), dtype=leaf.dtype, device=leaf.device))

    return _nest.map_structure(zeroed, inputs)


def reverse_sequence(values: Nest, lengths: torch.Tensor | None) -> Any:
    """Each row's first `lengths[b]` steps reversed, the rest as it was; all T steps without lengths.

    Args:
        values: `[T, B, ...]`, or a structure of such tensors.
        lengths: `[B]`, each in 0..T.
    """

    def reverse(leaf: torch.Tensor) -> torch.Tensor:
        if lengths is None:
            return leaf.flip(0)
        steps = torch.arange(leaf.shape[0], device=leaf.device)[:, None]
        length = lengths.to(leaf.device)[None, :]
        index = torch.where(steps < length, length - 1 - steps, steps).long()  # [T, B]
        return leaf.gather(0, index.reshape(*index.shape, *[1] * (leaf.dim() - 2)).expand_as(leaf))

    return _nest.map_structure(reverse, values)


def run_for_variables(cell: Any, inputs: Nest, state: Nest) -> None:
    """Run a step for nobody, so that the cell makes its variables; its random streams stay where they were."""
    with probing(), torch.no_grad():
        cell(inputs, state)


def zero_outputs(cell: Any, leading: tuple[int, ...], like: torch.Tensor) -> Any:
    """Zeros `[*leading, output_size]` in the structure of the cell's output."""

    def zeros(size: Any) -> torch.Tensor:
        dims = [int(dim or 0) for dim in TensorShape(size).dims]
        return torch.zeros((*leading, *dims), dtype=like.dtype, device=like.device)

    return _nest.map_structure(zeros, cell.output_size)


def open_scope(scope: str | VariableScope | None, default: str) -> Any:
    """The scope that an unroll opens: the caller's, or TF1's default name, also for an empty one."""
    return variable_scope(scope or default)
