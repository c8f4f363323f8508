"""dynamic_rnn."""

from __future__ import annotations

from typing import Any

import torch

from cellweave import _nest
from cellweave._errors import ArgumentError, ArgumentTypeError
from cellweave._types import DTypeLike, Nest
from cellweave.cells import require_rnn_cell
from cellweave.layers._again import run_again
from cellweave.layers._graph_breaks import runs_outside_graphs
from cellweave.layers._sequence import (
    as_lengths,
    as_resets,
    check_inputs,
    check_state,
    first_state,
    open_scope,
    output_dtype,
    steps_to_run,
)
from cellweave.layers._stepping import Task
from cellweave.layers._unroll import unroll
from cellweave.scopes import VariableScope, recordable


def dynamic_rnn(
    cell: Any,
    inputs: Nest,
    sequence_length: Any = None,
    initial_state: Nest = None,
    dtype: DTypeLike = None,
    parallel_iterations: int | None = None,
    swap_memory: bool = False,
    time_major: bool = False,
    scope: str | VariableScope | None = None,
    *,
    resets: Any = None,
    reset_state: Nest = None,
) -> tuple[Any, Any]:
    """Run a cell over a sequence.

    Rows past their length give zero outputs and keep their state, so the final state is that of the last valid step.
    Random masks are drawn for `min(T, max(1, longest row))` steps, in time order; one call is one session run.

    Args:
        cell: Any recurrent cell.
        inputs: `[B, T, ...]`, or `[T, B, ...]` if `time_major`; or a structure of such tensors.
        sequence_length: Steps per row, `[B]`, on any device; floats are truncated, values outside 0..T act as 0 or T.
            Default: every row has T steps.
        initial_state: State in the cell's structure, each leaf `[B, size]`; default: zeros of `dtype`.
        dtype: Dtype of the zero state; required without `initial_state`.
        parallel_iterations, swap_memory: Accepted for TF1 callers, without effect.
        time_major: Layout of inputs and outputs.
        scope: Variable scope; default "rnn".
        resets: Bool, `[B, T]`, or `[T, B]` if `time_major`: True starts a row's state anew before that step. Past a
            row's end it has no effect.
        reset_state: What it starts from, in the cell's structure, each leaf `[B, size]`; default: zeros.
    Returns:
        outputs, laid out as the inputs, `[B, T, output_size]`, and the final state.
    Raises:
        ArgumentTypeError: no cell; `initial_state` of another structure. ArgumentError: neither `initial_state` nor
            `dtype`, or a state of several dtypes; `reset_state` without `resets`. ShapeError: inputs of fewer than
            three axes, lengths, states or resets that do not fit. BackendError: `use_backend` asks for what cannot run.
    Source: TF1 `tf.nn.dynamic_rnn`; `resets` as reinforcement learning needs them where episodes end.
    """
    if torch.compiler.is_compiling():
        from cellweave.layers._compiled import run_traced

        traced = run_traced(
            "dynamic_rnn",
            [(cell, initial_state, False)],
            inputs,
            sequence_length,
            dtype,
            time_major,
            resets,
            reset_state,
        )
        if traced is not None:
            return traced[0]
    elif scope is None and reset_state is None and parallel_iterations is None:
        found = run_again(cell, inputs, sequence_length, initial_state, dtype, time_major=time_major, resets=resets)
        if found is not None:
            return found
    return _dynamic_rnn(
        cell, inputs, sequence_length, initial_state, dtype, parallel_iterations, swap_memory, time_major, scope,
        resets=resets, reset_state=reset_state,
    )  # fmt: skip


def _dynamic_rnn(
    cell: Any,
    inputs: Nest,
    sequence_length: Any,
    initial_state: Nest,
    dtype: DTypeLike,
    parallel_iterations: int | None,
    swap_memory: bool,
    time_major: bool,
    scope: str | VariableScope | None,
    *,
    resets: Any,
    reset_state: Nest,
) -> tuple[Any, Any]:
    require_rnn_cell("dynamic_rnn", cell)
    check_parallel_iterations("dynamic_rnn", parallel_iterations)
    task = task_of(
        "dynamic_rnn", cell, inputs, sequence_length, initial_state, dtype, time_major, resets, reset_state
    )  # fmt: skip
    return run_task(cell, task, scope, time_major=time_major)


_dynamic_rnn.__name__ = "dynamic_rnn"  # as recorded nodes are called
_dynamic_rnn = runs_outside_graphs(recordable(_dynamic_rnn))


def check_parallel_iterations(where: str, value: Any) -> None:
    """Raise ArgumentTypeError unless it is an int or None; 0 is the default, as in TF1."""
    if value is not None and (not hasattr(value, "__index__") or value < 0):
        raise ArgumentTypeError(f"{where}: expected parallel_iterations as an int >= 0, got {value!r}.")


def run_task(cell: Any, task: Task, scope: str | VariableScope | None, *, time_major: bool) -> tuple[Any, Any]:
    """Outputs in the caller's layout and the final state."""
    with open_scope(scope, "rnn"):
        outputs, state = unroll(cell, task)
    if not time_major:
        outputs = _nest.map_structure(lambda leaf: leaf.transpose(0, 1), outputs)
    return outputs, state


def task_of(
    where: str,
    cell: Any,
    inputs: Nest,
    sequence_length: Any,
    initial_state: Nest,
    dtype: DTypeLike,
    time_major: bool,
    resets: Any = None,
    reset_state: Nest = None,
) -> Task:
    """The arguments of an unroll, checked and time major. See `dynamic_rnn` for them and for what it raises."""
    steps, rows = check_inputs(inputs, where, time_major=time_major)
    lengths = as_lengths(sequence_length, rows, where)
    state = first_state(cell, initial_state, dtype, inputs, rows, where)
    flags = as_resets(resets, steps, rows, where, time_major=time_major)
    if reset_state is not None:
        if flags is None:
            raise ArgumentError(f"{where}: expected resets because reset_state was given, got None.")
        check_state(cell, reset_state, rows, where, "reset_state")
    if not time_major:
        inputs = _nest.map_structure(lambda leaf: leaf.transpose(0, 1), inputs)
    ran = steps_to_run(steps, lengths, at_least=1)
    kind = output_dtype(state, dtype, where)
    return Task(where, inputs, state, steps, rows, ran, lengths, flags, reset_state, dtype=kind)
