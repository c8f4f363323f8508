"""Unrolls under `torch.autocast`: a fused layer computes in the dtype of its weights, whatever comes in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from cellweave import _nest
from cellweave._types import Nest
from cellweave.layers._stepping import Task
from cellweave.weave import autocast_is_on


def autocast_dtype(cell: Any, x: Any) -> torch.dtype | None:
    """What a cell's inputs and states are cast to under autocast; None where nothing is: no autocast, no one dtype."""
    if not isinstance(x, torch.Tensor) or not isinstance(cell, torch.nn.Module) or not x.is_floating_point():
        return None
    if not autocast_is_on(x.device.type):
        return None
    found = {weight.dtype for weight in cell.parameters()}
    return found.pop() if len(found) == 1 else None


def in_dtype_of_weights(cell: Any, task: Task) -> Task:
    """The same unroll on inputs and states in the dtype of its weights, where autocast is on."""
    dtype = autocast_dtype(cell, task.inputs)
    if dtype is None:
        return task
    return replace(
        task, inputs=task.inputs.to(dtype), state=cast(task.state, dtype), reset_state=cast(task.reset_state, dtype)
    )


def cast(state: Nest, dtype: torch.dtype) -> Any:
    """Floating tensors of a state in a dtype."""

    def leaf(value: Any) -> Any:
        return value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value

    return _nest.map_structure(leaf, state)
