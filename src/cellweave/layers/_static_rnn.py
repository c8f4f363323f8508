"""static_rnn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from cellweave import _nest
from cellweave._errors import ArgumentError, ArgumentTypeError, ShapeError
from cellweave._types import DTypeLike, Nest
from cellweave.cells import require_rnn_cell
from cellweave.layers._cell_step import step_with_lengths
from cellweave.layers._graph_breaks import runs_outside_graphs
from cellweave.layers._sequence import (
    as_lengths,
    first_state,
    open_scope,
    output_dtype,
    run_for_variables,
    steps_to_run,
    without_padding,
    zero_outputs,
)
from cellweave.layers._stepping import Task
from cellweave.layers._weaving import run_woven
from cellweave.scopes import VariableScope, is_probing, recordable, session_run
from cellweave.weave import REFERENCE, asked_backend


def check_steps(inputs: Any, where: str) -> int:
    """Rows B of a list of steps.

    Raises:
        ArgumentTypeError: not a list or tuple. ArgumentError: empty. ShapeError: steps that disagree on B.
    """
    if not _nest.is_sequence(inputs):
        raise ArgumentTypeError(f"{where}: expected inputs as a list of T tensors [B, D], got {type(inputs).__name__}.")
    if not inputs:
        raise ArgumentError(f"{where}: expected at least one step, got an empty list.")
    rows: list[int] = []  # of an export they may be symbols, which no set takes
    for leaf in _nest.flatten(inputs):
        if not isinstance(leaf, torch.Tensor):
            raise ArgumentTypeError(f"{where}: expected steps as tensors [B, D], got {type(leaf).__name__}.")
        if leaf.dim() < 2:
            raise ShapeError(f"{where}: expected steps [B, D], got {list(leaf.shape)}.")
        rows.append(leaf.shape[0])
    if any(size != rows[0] for size in rows):
        raise ShapeError(f"{where}: expected steps with one batch size, got {sorted(set(rows))}.")
    return rows[0]


@runs_outside_graphs
@recordable
def static_rnn(
    cell: Any,
    inputs: Any,
    initial_state: Nest = None,
    dtype: DTypeLike = None,
    sequence_length: Any = None,
    scope: str | VariableScope | None = None,
) -> tuple[list[Any], Any]:
    """Run a cell over a list of steps, each step an op of its own.

    As in a TF1 graph, every step's random masks start at one place of their streams: with a seed, all steps of a run
    get the same masks.

    Args:
        cell: Any recurrent cell.
        inputs: A list of T tensors `[B, D]`, or of structures of them.
        initial_state: State in the cell's structure, or without lengths in other tuples and lists; default: zeros of
            `dtype`.
        dtype: Dtype of the zero state; required without `initial_state`.
        sequence_length: Steps per row, `[B]`. Steps past the longest row are not run and give zeros.
        scope: Variable scope; default "rnn".
    Returns:
        A list of T outputs `[B, output_size]`, and the final state.
    Raises:
        ArgumentTypeError: no cell, `inputs` no list. ArgumentError: no steps; neither `initial_state` nor `dtype`.
        ShapeError: sizes disagree.
    Source: TF1 `tf.nn.static_rnn`.
    """
    require_rnn_cell("static_rnn", cell)
    rows = check_steps(inputs, "static_rnn")
    lengths = as_lengths(sequence_length, rows, "static_rnn")
    if lengths is None:  # TF1 compares nothing then: any pair is an LSTM's state
        initial_state = _nest.retyped(cell.state_size, initial_state)
    state = first_state(cell, initial_state, dtype, inputs[0], rows, "static_rnn")
    ran = steps_to_run(len(inputs), lengths, at_least=0)
    with session_run(), open_scope(scope, "rnn"):
        kind = output_dtype(state, dtype, "static_rnn")
        checked = None if lengths is None else kind  # without lengths a step may give anything
        task = Task("static_rnn", inputs, state, len(inputs), rows, ran, lengths, static=True, dtype=checked)
        return _woven(cell, task) or _stepwise(cell, task)


def _woven(cell: Any, task: Task) -> tuple[list[Any], Any] | None:
    """All steps as one sequence, where that gives what single steps give."""
    asked = asked_backend()
    if asked == REFERENCE or is_probing():
        return None
    first = task.inputs[0]
    if all(isinstance(step, torch.Tensor) and step.shape == first.shape for step in task.inputs):
        task = replace(task, inputs=torch.stack(list(task.inputs)))
    found = run_woven(cell, task, asked)
    return None if found is None else (list(found[0].unbind(0)), found[1])


def _stepwise(cell: Any, task: Task) -> tuple[list[Any], Any]:
    inputs, state, lengths = task.inputs, task.state, task.lengths
    on_device = None if lengths is None else lengths.to(_nest.flatten(inputs)[0].device, non_blocking=True)
    outputs: list[Any] = []
    if task.ran == 0:
        run_for_variables(cell, inputs[0], state)
    for step in range(task.ran):
        active = None if on_device is None else step < on_device
        now = inputs[step] if active is None else without_padding(inputs[step], active)
        output, state = step_with_lengths(cell, now, state, active, task.where, task.dtype, static=True)
        outputs.append(output)
    like = outputs[0] if outputs else zero_outputs(cell, (task.rows,), _nest.flatten(inputs)[0])
    attached = not outputs and _takes_gradients(cell, inputs, state)
    while len(outputs) < len(inputs):
        outputs.append(_nest.map_structure(lambda leaf: _zeros_like(leaf, attached=attached), like))
    return outputs, state


def _takes_gradients(cell: Any, inputs: Any, state: Nest) -> bool:
    sources = [*_nest.flatten(inputs), *_nest.flatten(state), *getattr(cell, "parameters", tuple)()]
    return torch.is_grad_enabled() and any(source.requires_grad for source in sources)


def _zeros_like(leaf: torch.Tensor, *, attached: bool) -> torch.Tensor:
    """Zeros; attached, a loss of nothing else can still go backward, as it can where steps have run."""
    zeros = torch.zeros_like(leaf)
    return zeros.requires_grad_().clone() if attached else zeros
