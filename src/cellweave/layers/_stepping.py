"""An unroll step by step: cell by cell, as TF1's loop ran. What every faster way is judged by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from cellweave import _nest
from cellweave._types import Nest
from cellweave.layers._cell_step import step_with_lengths
from cellweave.layers._sequence import (
    rows_mask,
    run_for_variables,
    take_back_late_steps,
    without_padding,
    zero_outputs,
)
from cellweave.scopes import running_loop


@dataclass(frozen=True, eq=False)
class Task:
    """An unroll's arguments, checked, time major.

    Attributes:
        where: Who unrolls.
        inputs: `[T, B, ...]`, or a structure of such tensors.
        state: To start from.
        steps, rows: T and B.
        ran: Steps that run: `min(T, max(1, longest row))`.
        lengths: `[B]` int32, as the caller gave them; None: all T.
        resets: `[T, B]` bool, or None.
        reset_state: In the state's structure; None: zeros.
        reverse: Each row's first steps are read backwards.
        static: Each step's random ops are its own, as `static_rnn` has them.
        dtype: What outputs of single steps have to have; None: anything.
    """

    where: str
    inputs: Nest
    state: Nest
    steps: int
    rows: int
    ran: int
    lengths: torch.Tensor | None = None
    resets: torch.Tensor | None = None
    reset_state: Nest = None
    reverse: bool = False
    static: bool = False
    dtype: torch.dtype | None = None


def step_through(cell: Any, task: Task, after_first_step: Callable[[], None] | None = None) -> tuple[Any, Any]:
    """Run a cell step by step over `task.ran` steps.

    Args:
        cell: What is called at each step.
        task: Its arguments; `reverse` is the caller's to see to.
        after_first_step: Called then.
    Returns:
        outputs `[T, B, ...]` and the final state.
    """
    inputs, state, steps, ran = task.inputs, task.state, task.steps, task.ran
    device = _nest.flatten(inputs)[0].device
    active: torch.Tensor | None = None
    if task.lengths is not None:
        active = torch.arange(steps, device=device)[:, None] < task.lengths.to(device, non_blocking=True)
        inputs = without_padding(inputs, active)
    resets = task.resets if active is None or task.resets is None else task.resets.to(device) & active
    fresh = task.reset_state
    if resets is not None and fresh is None:
        fresh = _nest.map_structure(torch.zeros_like, state)
    if torch.compiler.is_exporting():
        from cellweave.layers._exported_steps import has_open_steps, scan_through

        if has_open_steps(task):
            return scan_through(cell, task, inputs, active, resets, fresh)
    by_step = [leaf.unbind(0) for leaf in _nest.flatten(inputs)]
    columns: list[list[torch.Tensor]] = []
    structure: Any = None
    with running_loop(ran) as loop:
        for step in range(ran):
            loop.next_step()
            now = _nest.pack(inputs, [leaf[step] for leaf in by_step])
            here = None if active is None else active[step]
            if resets is not None:
                state = restarted(resets[step], fresh, state)
            structure, state = step_with_lengths(cell, now, state, here, task.where, task.dtype)
            columns.append(_nest.flatten(structure))
            if step == 0 and after_first_step is not None:
                after_first_step()
        take_back_late_steps(loop, steps, ran, task.lengths)
    if not columns:
        empty = _nest.map_structure(lambda leaf: leaf.new_zeros(leaf.shape[1:]), inputs)
        run_for_variables(cell, empty, state)
        return zero_outputs(cell, (0, task.rows), _nest.flatten(inputs)[0]), state
    stacked = [torch.stack(column) for column in zip(*columns, strict=True)]
    return _nest.pack(structure, [padded(leaf, steps) for leaf in stacked]), state


def restarted(reset: torch.Tensor, fresh: Nest, state: Nest) -> Any:
    """The state with the rows of `reset` `[B]` taken from `fresh`."""
    pairs = zip(_nest.flatten(fresh), _nest.flatten(state), strict=True)
    return _nest.pack(state, [torch.where(rows_mask(reset, old), new, old) for new, old in pairs])


def padded(outputs: torch.Tensor, steps: int) -> torch.Tensor:
    """Outputs `[ran, B, ...]` with zeros up to T steps."""
    missing = steps - outputs.shape[0]
    return torch.cat([outputs, outputs.new_zeros(missing, *outputs.shape[1:])]) if missing else outputs
