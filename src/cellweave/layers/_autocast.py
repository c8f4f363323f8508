"""Unrolls under `torch.autocast`: layers run in the dtype of their weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from cellweave import _nest
from cellweave.layers._stepping import Task


def autocast_is_on(device_type: str) -> bool:
    """Whether `torch.autocast` is on for a device."""
    return torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)


def in_dtype_of_weights(cell: Any, task: Task) -> Task:
    """Under autocast the task with inputs and states in the one dtype that the cell's weights have; else as it is.

    What comes before a layer may have made its inputs bfloat16, and its state starts as the caller likes.
    """
    x = task.inputs
    if not isinstance(x, torch.Tensor) or not isinstance(cell, nn.Module) or not autocast_is_on(x.device.type):
        return task
    kinds = {weight.dtype for weight in cell.parameters()}
    if len(kinds) != 1:
        return task
    (dtype,) = kinds

    def cast(leaf: Any) -> Any:
        return leaf.to(dtype) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() else leaf

    parts = [None if part is None else _nest.map_structure(cast, part) for part in (task.state, task.reset_state)]
    return replace(task, inputs=cast(x), state=parts[0], reset_state=parts[1])
