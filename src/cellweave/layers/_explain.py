"""explain."""

from __future__ import annotations

from typing import Any

import torch

from cellweave import _nest
from cellweave._types import DTypeLike, Nest
from cellweave.cells import require_rnn_cell
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
    time_major: bool = False,
    scope: str | VariableScope | None = None,
    *,
    resets: Any = None,
    reset_state: Nest = None,
    show: bool = True,
) -> Plan:
    """Print how `dynamic_rnn` would run a cell with these arguments, as a table, and return it.

    Nothing is run: no variable is made and no random stream moves.

    Args:
        cell, inputs, sequence_length, initial_state, dtype, time_major, resets, reset_state: As for `dynamic_rnn`.
            `dtype` defaults to the inputs'.
        parallel_iterations, swap_memory, scope: Accepted, without effect.
        show: Print it. False: only return it.
    Returns:
        The plan: one row for each layer, with its backend and the reason for it.
    Raises:
        As `dynamic_rnn`, except that a backend asked for by `use_backend` that cannot run a layer stands in the table.
    """
    require_rnn_cell("explain", cell)
    first = _nest.flatten(inputs)[0]
    if initial_state is None and dtype is None and isinstance(first, torch.Tensor):
        dtype = first.dtype
    task = task_of(
        "explain", cell, inputs, sequence_length, initial_state, dtype, time_major, resets, reset_state
    )  # fmt: skip
    plan = plan_for(cell, task)
    if show:
        print(plan)  # noqa: T201  # printing is what it is for
    return plan
