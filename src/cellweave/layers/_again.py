"""The short way into an unroll whose like ran before: a known composition on plain tensors, nothing open around it."""

from __future__ import annotations

from typing import Any

import torch

from cellweave._types import DTypeLike, Nest, as_dtype
from cellweave.layers._readiness import is_ready
from cellweave.layers._sequence import as_lengths, steps_to_run
from cellweave.layers._stepping import Task
from cellweave.layers._weaving import PLAIN, run_surveyed, surroundings, survey_layers
from cellweave.scopes import is_probing, nothing_is_open
from cellweave.weave import REFERENCE, asked_backend, kept_program, still_holds


def run_again(
    cell: Any,
    inputs: Any,
    sequence_length: Any,
    initial_state: Nest,
    dtype: DTypeLike,
    *,
    time_major: bool,
    reverse: bool = False,
) -> tuple[Any, Any] | None:
    """What `dynamic_rnn` gives, or None where anything is not as it mostly is. Nothing has happened then."""
    asked = asked_backend()
    if type(inputs) not in PLAIN or inputs.dim() != 3 or asked == REFERENCE:
        return None
    if not isinstance(cell, torch.nn.Module) or is_probing() or not nothing_is_open():
        return None
    x = inputs if time_major else inputs.transpose(0, 1)
    steps, rows, _ = x.shape
    program = kept_program(cell, x)
    if program is None or program.refusal or program.steps or not steps or not rows:
        return None
    leaves: list[Any] | None
    if initial_state is not None:
        leaves = program.packing.leaves_of(initial_state)
    elif dtype is None or program.start_widths is None or as_dtype(dtype, "dynamic_rnn") != x.dtype:
        return None
    else:
        leaves = [x.new_zeros(rows, width) for width in program.start_widths]
    if leaves is None or not (initial_state is None or _fit(leaves, program.leaf_widths, x)):
        return None
    if not still_holds(cell, x, leaves) or not is_ready(cell) or surroundings(x.device.type):
        return None
    lengths = None
    if sequence_length is not None:
        if type(sequence_length) is not torch.Tensor:
            return None
        lengths = as_lengths(sequence_length, rows, "dynamic_rnn")
    ran = steps_to_run(steps, lengths, at_least=1)
    task = Task("dynamic_rnn", x, initial_state, steps, rows, ran, lengths, reverse=reverse)
    found = run_surveyed(cell, task, asked, survey_layers(program, task, leaves, asked, ready=True))
    if found is None or time_major:
        return found
    return found[0].transpose(0, 1), found[1]


def _fit(leaves: list[Any], widths: list[int], x: torch.Tensor) -> bool:
    """Whether the leaves of a state are plain, of the inputs' kind, and `[B, width]`."""
    rows, dtype, device = x.shape[1], x.dtype, x.device
    for leaf, width in zip(leaves, widths, strict=True):
        if type(leaf) not in PLAIN or leaf.shape != (rows, width):
            return False
        if leaf.dtype != dtype or leaf.device != device or leaf.layout != torch.strided:
            return False
    return True
