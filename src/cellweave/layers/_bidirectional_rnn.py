"""Bidirectional unrolls."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch

from cellweave import _nest
from cellweave._errors import ArgumentError, ArgumentTypeError
from cellweave._types import DTypeLike, Nest, is_readable
from cellweave.cells import require_rnn_cell
from cellweave.layers._again import run_again
from cellweave.layers._dynamic_rnn import check_parallel_iterations, run_task, task_of
from cellweave.layers._graph_breaks import runs_outside_graphs
from cellweave.layers._sequence import as_lengths, check_inputs, open_scope, reverse_sequence
from cellweave.layers._static_rnn import check_steps, static_rnn
from cellweave.scopes import VariableScope, is_probing, nothing_is_open, recordable, session_run, variable_scope


def check_within(lengths: torch.Tensor | None, steps: int, where: str) -> None:
    """Raise unless every length is in 0..T; on a device the check runs there, without waiting for it.

    Raises:
        ArgumentError: a length is outside.
    """
    if lengths is None or lengths.numel() == 0 or is_probing():
        return
    message = f"{where}: expected sequence_length in 0..{steps}"
    inside = ((lengths >= 0) & (lengths <= steps)).all()
    if torch.compiler.is_compiling() or not is_readable(inside):
        torch._assert_async(inside, message)
    elif not bool(inside):
        raise ArgumentError(f"{message}, got {lengths.tolist()}.")


def bidirectional_dynamic_rnn(
    cell_fw: Any,
    cell_bw: Any,
    inputs: Nest,
    sequence_length: Any = None,
    initial_state_fw: Nest = None,
    initial_state_bw: Nest = None,
    dtype: DTypeLike = None,
    parallel_iterations: int | None = None,
    swap_memory: bool = False,
    time_major: bool = False,
    scope: str | VariableScope | None = None,
) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Run one cell forwards and one backwards over a sequence.

    The backward cell reads each row's first `sequence_length` steps in reverse; its output at t aligns with input t.

    Args:
        cell_fw, cell_bw: Any recurrent cells.
        inputs, sequence_length, dtype, parallel_iterations, swap_memory, time_major: As `dynamic_rnn`; lengths must be
            in 0..T.
        initial_state_fw, initial_state_bw: States in the cells' structures; default: zeros of `dtype`.
        scope: Variable scope; default "bidirectional_rnn", with "fw" and "bw" inside.
    Returns:
        (output_fw, output_bw), not concatenated, and (state_fw, state_bw).
    Raises:
        As `dynamic_rnn`; ArgumentError: a length outside 0..T.
    Source: Schuster & Paliwal 1997; TF1 `tf.nn.bidirectional_dynamic_rnn`.
    """
    if torch.compiler.is_compiling():
        from cellweave.layers._compiled import run_traced

        where = "bidirectional_dynamic_rnn"
        directions = [(cell_fw, initial_state_fw, False), (cell_bw, initial_state_bw, True)]
        traced = run_traced(where, directions, inputs, sequence_length, dtype, time_major, checked=True)
        if traced is not None:
            return (traced[0][0], traced[1][0]), (traced[0][1], traced[1][1])
    return _bidirectional_dynamic_rnn(
        cell_fw, cell_bw, inputs, sequence_length, initial_state_fw, initial_state_bw, dtype, parallel_iterations,
        swap_memory, time_major, scope,
    )  # fmt: skip


def _bidirectional_dynamic_rnn(
    cell_fw: Any,
    cell_bw: Any,
    inputs: Nest,
    sequence_length: Any,
    initial_state_fw: Nest,
    initial_state_bw: Nest,
    dtype: DTypeLike,
    parallel_iterations: int | None,
    swap_memory: bool,
    time_major: bool,
    scope: str | VariableScope | None,
) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    where = "bidirectional_dynamic_rnn"
    require_rnn_cell(f"{where} cell_fw", cell_fw)
    require_rnn_cell(f"{where} cell_bw", cell_bw)
    steps, rows = check_inputs(inputs, where, time_major=time_major)
    lengths = as_lengths(sequence_length, rows, where)
    check_within(lengths, steps, where)
    check_parallel_iterations("dynamic_rnn", parallel_iterations)

    free = scope is None and nothing_is_open()  # then no name outlives this call

    def run(cell: Any, initial_state: Nest, name: str, *, reverse: bool) -> tuple[Any, Any]:
        if free:
            found = run_again(cell, inputs, lengths, initial_state, dtype, time_major=time_major, reverse=reverse)
            if found is not None:
                return found
        task = task_of("dynamic_rnn", cell, inputs, lengths, initial_state, dtype, time_major)
        with open_scope(scope, "bidirectional_rnn") if free else nullcontext():
            return run_task(cell, replace(task, reverse=reverse), name, time_major=time_major)

    with session_run(), nullcontext() if free else open_scope(scope, "bidirectional_rnn"):
        output_fw, state_fw = run(cell_fw, initial_state_fw, "fw", reverse=False)
        output_bw, state_bw = run(cell_bw, initial_state_bw, "bw", reverse=True)
    return (output_fw, output_bw), (state_fw, state_bw)


_bidirectional_dynamic_rnn.__name__ = "bidirectional_dynamic_rnn"  # as recorded nodes are called
_bidirectional_dynamic_rnn = runs_outside_graphs(recordable(_bidirectional_dynamic_rnn))


@runs_outside_graphs
@recordable
def static_bidirectional_rnn(
    cell_fw: Any,
    cell_bw: Any,
    inputs: Any,
    initial_state_fw: Nest = None,
    initial_state_bw: Nest = None,
    dtype: DTypeLike = None,
    sequence_length: Any = None,
    scope: str | VariableScope | None = None,
) -> tuple[list[Any], Any, Any]:
    """Run one cell forwards and one backwards over a list of steps.

    Args:
        cell_fw, cell_bw: Any recurrent cells.
        inputs: A list of T tensors `[B, D]`, or of structures of them.
        initial_state_fw, initial_state_bw: States in the cells' structures; default: zeros of `dtype`.
        dtype: Dtype of the zero states.
        sequence_length: Steps per row, `[B]`, each in 0..T.
        scope: Variable scope; default "bidirectional_rnn", with "fw" and "bw" inside.
    Returns:
        A list of T outputs `[B, fw + bw]`, forward columns first; the forward and the backward final state.
    Raises:
        As `static_rnn`; ArgumentError: a length outside 0..T.
    Source: TF1 `tf.nn.static_bidirectional_rnn`.
    """
    where = "static_bidirectional_rnn"
    require_rnn_cell(f"{where} cell_fw", cell_fw)
    require_rnn_cell(f"{where} cell_bw", cell_bw)
    rows = check_steps(inputs, where)
    lengths = as_lengths(sequence_length, rows, where)
    check_within(lengths, len(inputs), where)
    with session_run(), open_scope(scope, "bidirectional_rnn"):
        outputs_fw, state_fw = static_rnn(cell_fw, inputs, initial_state_fw, dtype, lengths, scope="fw")
        backwards = _reversed_steps(inputs, lengths)
        outputs_bw, state_bw = static_rnn(cell_bw, backwards, initial_state_bw, dtype, lengths, scope="bw")
        outputs_bw = _reversed_steps(outputs_bw, lengths)
    joined = [
        _nest.map_structure(lambda f, b: torch.cat([f, b], dim=1), fw, bw)
        for fw, bw in zip(outputs_fw, outputs_bw, strict=True)
    ]
    return joined, state_fw, state_bw


def _reversed_steps(steps: Any, lengths: torch.Tensor | None) -> list[Any]:
    if lengths is None:
        return list(reversed(steps))
    columns = [torch.stack(column) for column in zip(*[_nest.flatten(step) for step in steps], strict=True)]
    flipped = [reverse_sequence(column, lengths).unbind(0) for column in columns]
    return [_nest.pack(steps[0], [column[step] for column in flipped]) for step in range(len(steps))]


@runs_outside_graphs
@recordable
def stack_bidirectional_dynamic_rnn(
    cells_fw: Any,
    cells_bw: Any,
    inputs: torch.Tensor,
    initial_states_fw: Any = None,
    initial_states_bw: Any = None,
    dtype: DTypeLike = None,
    sequence_length: Any = None,
    parallel_iterations: int | None = None,
    time_major: bool = False,
    scope: str | VariableScope | None = None,
    swap_memory: bool = False,
) -> tuple[torch.Tensor, tuple[Any, ...], tuple[Any, ...]]:
    """Stack bidirectional layers: each layer reads both directions' outputs of the one below, concatenated.

    Args:
        cells_fw, cells_bw: Lists of cells, one per layer, of equal lengths.
        inputs: `[B, T, D]`, or `[T, B, D]` if `time_major`.
        initial_states_fw, initial_states_bw: Lists of states, one per layer; default: zeros of `dtype`.
        dtype, sequence_length, parallel_iterations, time_major, swap_memory: As `bidirectional_dynamic_rnn`.
        scope: Variable scope; default "stack_bidirectional_rnn", with
            "cell_<layer>/bidirectional_rnn/fw|bw" inside.
    Returns:
        outputs `[B, T, fw + bw]` of the last layer, and the final states per direction: tuples, one state a layer.
    Raises:
        ArgumentTypeError: cells or states that are no lists. ArgumentError: lists of no or of different lengths.
    Source: TF1 `tf.contrib.rnn.stack_bidirectional_dynamic_rnn`.
    """
    where = "stack_bidirectional_dynamic_rnn"
    layers = check_layers(where, cells_fw, cells_bw, initial_states_fw, initial_states_bw)
    states_fw: list[Any] = []
    states_bw: list[Any] = []
    with session_run(), open_scope(scope, "stack_bidirectional_rnn"):
        for layer in range(layers):
            with variable_scope(f"cell_{layer}"):
                outputs, (state_fw, state_bw) = bidirectional_dynamic_rnn(
                    cells_fw[layer],
                    cells_bw[layer],
                    inputs,
                    sequence_length=sequence_length,
                    initial_state_fw=None if initial_states_fw is None else initial_states_fw[layer],
                    initial_state_bw=None if initial_states_bw is None else initial_states_bw[layer],
                    dtype=dtype,
                    parallel_iterations=parallel_iterations,
                    swap_memory=swap_memory,
                    time_major=time_major,
                )
                inputs = torch.cat(outputs, dim=2)
            states_fw.append(state_fw)
            states_bw.append(state_bw)
    return inputs, tuple(states_fw), tuple(states_bw)


def check_layers(where: str, cells_fw: Any, cells_bw: Any, initial_states_fw: Any, initial_states_bw: Any) -> int:
    """The number of layers; raises unless all lists have as many elements.

    Raises:
        ArgumentTypeError: cells or states that are no lists. ArgumentError: lists of no or of different lengths.
    """
    layers = _layer_count(where, cells_fw, cells_bw)
    for what, states in (("initial_states_fw", initial_states_fw), ("initial_states_bw", initial_states_bw)):
        if states is not None and not _nest.is_sequence(states):
            raise ArgumentTypeError(f"{where}: expected {what} as a list, got {type(states).__name__}.")
        if states is not None and len(states) != layers:
            raise ArgumentError(f"{where}: expected {what} with {layers} states, got {len(states)}.")
    return layers


def _layer_count(where: str, cells_fw: Any, cells_bw: Any) -> int:
    for what, cells in (("cells_fw", cells_fw), ("cells_bw", cells_bw)):
        if not isinstance(cells, list | tuple | torch.nn.ModuleList):
            raise ArgumentTypeError(f"{where}: expected {what} as a list of cells, got {type(cells).__name__}.")
        if not len(cells):
            raise ArgumentError(f"{where}: expected at least one cell in {what}, got none.")
    if len(cells_fw) != len(cells_bw):
        raise ArgumentError(
            f"{where}: expected as many cells forwards as backwards, got {len(cells_fw)} and {len(cells_bw)}."
        )
    return len(cells_fw)
