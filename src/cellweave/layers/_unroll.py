"""One way into every unroll: woven where that can be, else step by step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cellweave.layers._sequence import reverse_sequence
from cellweave.layers._stepping import Task, step_through
from cellweave.layers._weaving import run_woven
from cellweave.weave import REFERENCE, asked_backend


def unroll(cell: Any, task: Task) -> tuple[Any, Any]:
    """Outputs `[T, B, ...]` and the final state.

    Args:
        cell: Any recurrent cell.
        task: The checked arguments.
    Raises:
        BackendError: the backend that `use_backend` asks for cannot run a layer.
    """
    asked = asked_backend()
    if asked != REFERENCE:
        woven = run_woven(cell, task, asked)
        if woven is not None:
            return woven
    if not task.reverse:
        return step_through(cell, task)
    turned = replace(task, inputs=reverse_sequence(task.inputs, task.lengths))
    outputs, state = step_through(cell, turned)
    return reverse_sequence(outputs, task.lengths), state
