"""raw_rnn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from cellweave import _nest
from cellweave._errors import ArgumentError, ArgumentTypeError, BackendError, ModeError, ShapeError
from cellweave._shape import TensorShape
from cellweave._tensor_array import TensorArray
from cellweave._types import Nest
from cellweave.cells import require_rnn_cell
from cellweave.layers._cell_step import check_new_state
from cellweave.layers._dynamic_rnn import check_parallel_iterations
from cellweave.layers._graph_breaks import runs_outside_graphs
from cellweave.layers._sequence import open_scope, rows_mask, run_for_variables
from cellweave.scopes import VariableScope, running_loop, symbols_in
from cellweave.weave import REFERENCE, asked_backend

LoopFunction = Callable[[int, Any, Any, Any], tuple[torch.Tensor, Any, Any, Any, Any]]


@runs_outside_graphs
def raw_rnn(
    cell: Any,
    loop_fn: LoopFunction,
    parallel_iterations: int | None = None,
    swap_memory: bool = False,
    scope: str | VariableScope | None = None,
) -> tuple[Any, Any, Any]:
    """Run a cell in a loop that the caller steers.

    `loop_fn(time, cell_output, cell_state, loop_state)` returns `(finished, next_input, next_state, emit,
    next_loop_state)`. It is called first with time 0 and None for the rest: its state is the initial state, its emit
    (the cell's output size when None) fixes the emitted structure. Rows that were finished before a step emit zeros and
    keep their state.

    Args:
        cell: Any recurrent cell.
        loop_fn: The function above; `finished` is bool `[B]` (or a scalar for all rows); time is an int.
        parallel_iterations, swap_memory: Accepted for TF1 callers, without effect.
        scope: Variable scope; default "rnn".
    Returns:
        A TensorArray (or a structure of them) with one entry per step run, the final state, the final loop state.
    Raises:
        ArgumentTypeError: no cell; `loop_fn` cannot be called; states or emits that change structure. ShapeError,
            DTypeError: states that change shape or dtype; emits that are not one shape `[B, ...]`. BackendError:
            `use_backend` asks for another backend than "reference". ModeError: an export of a loop whose end depends on
            the values of tensors.
    Source: TF1 `tf.nn.raw_rnn`.
    """
    require_rnn_cell("raw_rnn", cell)
    check_parallel_iterations("raw_rnn", parallel_iterations)
    if asked_backend() not in (None, REFERENCE):
        raise BackendError(
            f"raw_rnn: expected an unroll that {asked_backend()} can run, got a loop that its caller steers. "
            "Use dynamic_rnn."
        )
    if not callable(loop_fn):
        raise ArgumentTypeError(f"raw_rnn: expected loop_fn as a function, got {loop_fn!r}.")
    with open_scope(scope, "rnn"), running_loop(None) as loop:
        finished, inputs, state, emit_like, loop_state = _unpacked(loop_fn(0, None, None, None))
        if symbols_in(finished, inputs, state):
            raise ModeError("raw_rnn: expected real tensors, got symbolic ones. What it runs depends on their values.")
        _nest.same_structure(cell.state_size, state, "raw_rnn: the initial state")
        if inputs is None:
            raise ArgumentError("raw_rnn: expected loop_fn to give the first input, got None.")
        rows = _nest.flatten(inputs)[0].shape[0]
        finished = _as_rows(finished, rows, _nest.flatten(inputs)[0].device)
        like = cell.output_size if emit_like is None else emit_like
        emitted: list[list[torch.Tensor]] = []
        time = 0
        while not _is_over(finished):
            loop.next_step()
            output, cell_state = cell(inputs, state)
            next_finished, inputs, next_state, emit, next_loop_state = _unpacked(
                loop_fn(time + 1, output, cell_state, loop_state)
            )
            check_new_state(state, next_state, "raw_rnn", "the next state")
            emit = _zero_emit(like, rows, output) if emit is None else emit
            _check_emit(like, emit, emitted[0] if emitted else None, rows)
            emitted.append([_selected(finished, torch.zeros_like(leaf), leaf) for leaf in _nest.flatten(emit)])
            pairs = zip(_nest.flatten(state), _nest.flatten(next_state), strict=True)
            state = _nest.pack(next_state, [_selected(finished, old, new) for old, new in pairs])
            loop_state = loop_state if next_loop_state is None else next_loop_state
            finished = finished | _as_rows(next_finished, rows, finished.device)
            time += 1
        if emitted:
            return _as_arrays(like, list(zip(*emitted, strict=True))), state, loop_state
        run_for_variables(cell, inputs, state)
        return _arrays_of_nothing(like, _zero_emit(like, rows, [state, inputs])), state, loop_state


def _unpacked(result: Any) -> tuple[Any, Any, Any, Any, Any]:
    if not _nest.is_sequence(result) or len(result) != 5:
        raise ArgumentTypeError(
            "raw_rnn: expected loop_fn to return (finished, next_input, next_state, emit, next_loop_state), "
            f"got {type(result).__name__}."
        )
    return tuple(result)


def _check_emit(like: Nest, emit: Nest, first: list[torch.Tensor] | None, rows: int) -> None:
    """Raise unless there is an entry for each row, of one shape at all steps."""
    what = "the emitted value"
    _nest.same_structure(like, emit, f"raw_rnn: {what}")
    for place, leaf in enumerate(_nest.flatten(emit)):
        if not isinstance(leaf, torch.Tensor):
            raise ArgumentTypeError(f"raw_rnn: expected {what} as tensors, got {type(leaf).__name__}.")
        wanted = [rows, "..."] if first is None else list(first[place].shape)
        fits = leaf.dim() > 0 and leaf.shape[0] == rows if first is None else leaf.shape == first[place].shape
        if not fits:
            raise ShapeError(f"raw_rnn: expected {what} {wanted}, got {list(leaf.shape)}.")


def _as_rows(finished: Any, rows: int, device: torch.device) -> torch.Tensor:
    try:
        flags = torch.as_tensor(finished, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgumentTypeError(f"raw_rnn: expected finished as bool, got {finished!r}.") from error
    if flags.dtype != torch.bool:
        raise ArgumentTypeError(f"raw_rnn: expected finished as bool, got {flags.dtype}.")
    if flags.dim() > 1 or (flags.dim() == 1 and flags.shape[0] != rows):
        raise ShapeError(f"raw_rnn: expected finished [{rows}] or a scalar, got {list(flags.shape)}.")
    return flags.expand(rows) if flags.dim() == 0 else flags


def _is_over(finished: torch.Tensor) -> bool:
    """Whether no row goes on."""
    if not torch.compiler.is_exporting():
        return bool(finished.all())
    from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

    try:
        return bool(finished.all())
    except GuardOnDataDependentSymNode as error:
        raise ModeError(
            "raw_rnn: expected a loop whose end is known when it is exported, got one that ends by the values of its "
            "tensors. Use dynamic_rnn."
        ) from error


def _selected(finished: torch.Tensor, if_finished: Any, otherwise: Any) -> Any:
    if isinstance(otherwise, TensorArray):
        return otherwise
    return torch.where(rows_mask(finished, otherwise), if_finished, otherwise)


def _zero_emit(like: Nest, rows: int, typed: Nest) -> Any:
    """Zeros for one step; a size gets the dtype of the first tensor in `typed`."""
    first = _nest.flatten(typed)[0]

    def zeros(leaf: Any) -> torch.Tensor:
        if isinstance(leaf, torch.Tensor):
            return leaf.new_zeros((rows, *leaf.shape))
        dims = [int(dim or 0) for dim in TensorShape(leaf).dims]
        return torch.zeros((rows, *dims), dtype=first.dtype, device=first.device)

    return _nest.map_structure(zeros, like)


def _as_arrays(like: Nest, columns: list[tuple[torch.Tensor, ...]]) -> Any:
    return _nest.pack(like, [TensorArray.of(column) for column in columns])


def _arrays_of_nothing(like: Nest, elements: Nest) -> Any:
    return _nest.pack(like, [TensorArray.of([], element) for element in _nest.flatten(elements)])
