"""The short way into an unroll whose like ran before: a known composition on plain tensors, nothing open around it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from cellweave._types import DTypeLike, Nest, as_dtype
from cellweave.layers._readiness import is_ready
from cellweave.layers._sequence import as_lengths, as_resets, steps_to_run
from cellweave.layers._stepping import Task, padded
from cellweave.layers._weaving import (
    PLAIN,
    misfit,
    run_surveyed,
    survey_layers,
)
from cellweave.ops.common import zeros_to_start
from cellweave.scopes import is_probing, nothing_is_open, running_loop, session_run
from cellweave.weave import (
    REFERENCE,
    Binding,
    Feed,
    LayerRun,
    Program,
    asked_backend,
    choice_for,
    is_undisturbed,
    kept_program,
    run_layer,
    still_holds,
)


def run_again(
    cell: Any,
    inputs: Any,
    sequence_length: Any,
    initial_state: Nest,
    dtype: DTypeLike,
    *,
    time_major: bool,
    resets: Any = None,
    reverse: bool = False,
) -> tuple[Any, Any] | None:
    """What `dynamic_rnn` gives, or None where anything is not as it mostly is. Nothing has happened then."""
    asked = asked_backend()
    if type(inputs) not in PLAIN or inputs.is_nested or inputs.dim() != 3 or asked == REFERENCE:
        return None
    if is_probing() or not nothing_is_open() or not is_undisturbed(inputs.device.type):
        return None
    x = inputs if time_major else inputs.transpose(0, 1)
    steps, rows, _ = x.shape
    program = kept_program(cell, x)
    if program is None or program.refusal or program.steps or not steps or not rows:
        return None
    leaves = _first_leaves(program, initial_state, dtype, x)
    if leaves is None:
        return None
    if not still_holds(program, cell, leaves) or not is_ready(cell):
        return None
    lengths, flags, ran = None, None, steps
    if sequence_length is not None:
        if type(sequence_length) is not torch.Tensor:
            return None
        lengths = as_lengths(sequence_length, rows, "dynamic_rnn")
        ran = steps_to_run(steps, lengths, at_least=1)
    if resets is not None:
        flags = as_resets(resets, steps, rows, "dynamic_rnn", time_major=time_major)
    found = None
    if program.single is not None and (lengths is None or lengths.device.type == x.device.type == "cpu"):
        found = _run_single(program, program.single, x, leaves, lengths, flags, ran, asked, reverse=reverse)
    if found is None:
        task = Task("dynamic_rnn", x, initial_state, steps, rows, ran, lengths, flags, reverse=reverse)
        found = run_surveyed(cell, task, asked, survey_layers(program, task, leaves, asked, ready=True))
    if found is None or time_major:
        return found
    return found[0].transpose(0, 1), found[1]


def _first_leaves(
    program: Program, initial_state: Nest, dtype: DTypeLike, x: torch.Tensor
) -> list[torch.Tensor] | None:
    """Leaves of the state to start from; None where there is more to look at."""
    if dtype is not None and as_dtype(dtype, "dynamic_rnn") != x.dtype:
        return None
    if initial_state is not None:
        leaves = program.packing.leaves_of(initial_state)
        return leaves if leaves is not None and _fit(leaves, program.leaf_widths, x) else None
    if dtype is None or program.start_widths is None:
        return None
    return [zeros_to_start(x.shape[1], width, x) for width in program.start_widths]


def _run_single(
    program: Program,
    run: LayerRun,
    x: torch.Tensor,
    leaves: list[torch.Tensor],
    lengths: torch.Tensor | None,
    resets: torch.Tensor | None,
    ran: int,
    asked: str | None,
    *,
    reverse: bool,
) -> tuple[torch.Tensor, Any] | None:
    """A program of one layer and nothing else; None, before anything is drawn, where there is more to look at."""
    weights = program.modules[run.node]().named_weights()
    if misfit("", run, weights, x.dtype, x.device):
        return None
    grad = torch.is_grad_enabled()
    if grad:
        grad = any([source.requires_grad for source in (x, *weights.values(), *leaves)])  # noqa: C419
    steps, rows, _ = x.shape
    if ran < steps:
        x = x[:ran]
    if lengths is not None:
        lengths = lengths.clamp(0, ran)
    if resets is not None:
        resets = resets[:ran].to(x.device)
    feed = Feed(x, leaves, lengths, resets, None, reverse, grad)
    choice = choice_for(run, feed, asked)
    if choice.backend is None or choice.name == REFERENCE:
        return None
    if not program.sites:
        outputs, state = run_layer(program, run, x, feed, choice, None, weights)
    else:
        binding = Binding(program, rows, x.dtype, x.device, ran)
        with _open_run(program, ran):
            binding.draw()
        outputs, state = run_layer(program, run, x, feed, choice, binding, weights)
    for piece, leaf in zip(run.states, state, strict=True):
        leaves[piece.leaf] = leaf
    return padded(outputs, steps), program.packing.pack(leaves)


@contextmanager
def _open_run(program: Program, ran: int) -> Iterator[None]:
    """What masks are drawn in: a session run, in the first step of a loop where there are masks for each step."""
    if not program.loops:
        with session_run():
            yield
        return
    with running_loop(ran) as loop:
        loop.next_step()
        yield


def _fit(leaves: list[Any], widths: list[int], x: torch.Tensor) -> bool:
    """Whether the leaves of a state are plain, of the inputs' kind, and `[B, width]`."""
    rows, dtype, device = x.shape[1], x.dtype, x.device
    for leaf, width in zip(leaves, widths, strict=True):
        if type(leaf) not in PLAIN or leaf.shape != (rows, width):
            return False
        if leaf.dtype != dtype or leaf.device != device or leaf.layout != torch.strided:
            return False
    return True
