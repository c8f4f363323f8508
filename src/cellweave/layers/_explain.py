"""explain."""

from __future__ import annotations

from typing import Any

import torch

from cellweave import _nest
from cellweave._errors import ArgumentError
from cellweave._types import DTypeLike, Nest
from cellweave.cells import require_rnn_cell
from cellweave.layers._cudnn_rnn import CudnnRNN
from cellweave.layers._dynamic_rnn import task_of
from cellweave.layers._weaving import plan_for
from cellweave.scopes import VariableScope
from cellweave.weave import Plan


def explain(
    cell: Any,
    inputs: Nest,
    sequence_length: Any = None,
    initial_state: Nest = None,
    dtype: DTypeLike = None,
    parallel_iterations: int | None = None,
    swap_memory: bool = False,
    time_major: bool | None = None,
    scope: str | VariableScope | None = None,
    *,
    resets: Any = None,
    reset_state: Nest = None,
    show: bool = True,
) -> Plan:
    """Print how `dynamic_rnn` would run a cell, or how a cuDNN layer or module of `cellweave.nn` would run; return it.

    Nothing is run: no variable is made and no random stream moves.

    Args:
        cell: Any recurrent cell, or a cuDNN layer: then as a call of it in its mode; `dtype` has no effect, and there
            are no `resets`. Or a module of `cellweave.nn`: then as a call of it, `sequence_length` its `lengths`, and
            `time_major` has no effect.
        inputs, sequence_length, initial_state, dtype, resets, reset_state: As for `dynamic_rnn`, or the layer. `dtype`
            defaults to the inputs'.
        time_major: Layout of the inputs; default: False for a cell, True for a cuDNN layer.
        parallel_iterations, swap_memory, scope: Accepted, without effect.
        show: Print it. False: only return it.
    Returns:
        The plan: one row for each layer, with its backend and the reason for it.
    Raises:
        As `dynamic_rnn`, except that a backend asked for by `use_backend` that cannot run a layer stands in the table.
    """
    if getattr(cell, "explains_itself", False):  # a module of cellweave.nn, which this folder does not know
        plan: Plan = cell.plan(inputs, initial_state, lengths=sequence_length, resets=resets, reset_state=reset_state)
    elif isinstance(cell, CudnnRNN):
        if resets is not None or reset_state is not None:
            raise ArgumentError(f"explain: expected no resets because a {type(cell).__name__} has none, got some.")
        plan = cell.plan(inputs, initial_state, sequence_length, time_major is not False)
    else:
        plan = _plan_of_cell(
            cell, inputs, sequence_length, initial_state, dtype, bool(time_major), resets, reset_state
        )  # fmt: skip
    if show:
        print(plan)  # noqa: T201  # printing is what it is for
    return plan


def _plan_of_cell(
    cell: Any,
    inputs: Nest,
    sequence_length: Any,
    initial_state: Nest,
    dtype: DTypeLike,
    time_major: bool,
    resets: Any,
    reset_state: Nest,
) -> Plan:
    require_rnn_cell("explain", cell)
    first = _nest.flatten(inputs)[0]
    if initial_state is None and dtype is None and isinstance(first, torch.Tensor):
        dtype = first.dtype
    task = task_of(
        "explain", cell, inputs, sequence_length, initial_state, dtype, time_major, resets, reset_state
    )  # fmt: skip
    return plan_for(cell, task)
