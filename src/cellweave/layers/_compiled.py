"""Unrolls in compiled and exported code: plain steps that a trace can follow, one operator for each layer.

Imported when a trace comes by: what it needs of torch takes as long to import as all the rest.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from cellweave import _nest
from cellweave._errors import ModeError
from cellweave._types import DTypeLike, Nest, as_dtype
from cellweave.layers._autocast import autocast_dtype, cast
from cellweave.layers._mask_claims import claim_masks_in_graph
from cellweave.layers._sequence import as_lengths, as_resets, zero_state_of
from cellweave.layers._traced_plans import Path, TracedLayer, TracedPlan, read_by_spec, traced_plan
from cellweave.ops.common import LayerCall
from cellweave.ops.common._in_graphs import run_in_graph
from cellweave.scopes import run_is_open
from cellweave.weave import STATE_MAKERS

#: One direction: its cell, the state it starts from, whether it reads backwards.
Direction = tuple[Any, Nest, bool]


class _Feed(NamedTuple):
    """What one direction runs on.

    Attributes:
        x: Inputs `[T, B, I]`.
        leaves, fresh: Of the states that it and resets start from; no `fresh`: zeros.
        lengths, resets: `[B]` and `[T, B]`.
        streams, keeps: The claimed masks of all directions. first: Its first row of those.
    """

    x: torch.Tensor
    leaves: list[torch.Tensor]
    fresh: list[torch.Tensor]
    lengths: torch.Tensor | None
    resets: torch.Tensor | None
    streams: torch.Tensor | None
    keeps: torch.Tensor | None
    first: int


def run_traced(
    where: str,
    directions: list[Direction],
    inputs: Any,
    sequence_length: Any,
    dtype: DTypeLike,
    time_major: bool,
    resets: Any = None,
    reset_state: Nest = None,
    *,
    checked: bool = False,
) -> list[tuple[Any, Any]] | None:
    """Outputs and final state of each direction; None where no trace can have them.

    Args:
        checked: Lengths have to be within 0..T; else they are made to be.
        Others: As `dynamic_rnn`.
    Raises:
        ModeError: an export of what draws random masks.
    """
    if not isinstance(inputs, torch.Tensor) or inputs.dim() != 3 or not inputs.dtype.is_floating_point:
        return None
    cast_to = autocast_dtype(directions[0][0], inputs)
    if cast_to is not None and inputs.device.type != "cpu":
        return None  # what runs there keeps to one dtype
    if cast_to is not None:
        inputs, reset_state, dtype = inputs.to(cast_to), cast(reset_state, cast_to), cast_to
        directions = [(cell, cast(state, cast_to), reverse) for cell, state, reverse in directions]
    x = inputs if time_major else inputs.transpose(0, 1)
    steps, rows = x.shape[0], x.shape[1]
    lengths = as_lengths(sequence_length, rows, where)
    flags = as_resets(resets, steps, rows, where, time_major=time_major)
    plans, starts = [], []
    for cell, state, reverse in directions:
        plan = _plan(where, cell, x, (lengths is not None, flags is not None, reverse))
        if plan is None:
            return None
        start = _start(cell, plan, state, dtype, x)
        if not _fits(cell, plan, start, dtype, x):
            return None
        plans.append(plan)
        starts.append(start)
    if lengths is not None:
        if checked:
            within = ((lengths >= 0) & (lengths <= steps)).all()
            torch._assert_async(within, f"{where}: expected sequence_length in 0..T")
        lengths = lengths.to(x.device).clamp(0, steps)
    streams, keeps = None, None
    if any([len(plan.masks) > 0 for plan in plans]):  # noqa: C419  # a trace takes a list
        streams, keeps = claim_masks_in_graph([p.number for p in plans], rows, steps, lengths)
    found = []
    first = 0
    for plan, start, (cell, _, _) in zip(plans, starts, directions, strict=True):
        leaves = _zeros(plan, x) if start is None else _nest.flatten(start)
        fresh = [] if reset_state is None else _nest.flatten(reset_state)
        outputs, new = _run(plan, cell, _Feed(x, leaves, fresh, lengths, flags, streams, keeps, first))
        first += len(plan.masks)
        outputs = outputs if time_major else outputs.transpose(0, 1)
        found.append((outputs, _nest.pack(cell.state_size, new)))
    return found


def _plan(where: str, cell: Any, x: torch.Tensor, options: tuple[bool, bool, bool]) -> TracedPlan | None:
    """One direction's plan; None where no trace can have it."""
    facts = _facts(cell)
    if not facts:
        return None
    plan: TracedPlan = traced_plan(facts, x.dtype, x.device, torch.is_grad_enabled(), options)
    if plan.draws and torch.compiler.is_exporting():
        raise ModeError(f"{where}: expected a cell in evaluation mode to export, got one that draws random masks.")
    if plan.reason or x.shape[2] != plan.depth:
        return None
    if plan.draws and run_is_open():  # which a trace would open and close before its operators run
        return None
    return plan


def _facts(cell: Any) -> tuple[Any, ...]:
    """What a plan rests on; reading it makes the trace guard it. Empty for what is no module.

    What a cell's `spec()` reads is compared: a number that is only read may become a symbol.
    """
    if not isinstance(cell, torch.nn.Module):
        return ()
    return tuple([
        (
            getattr(m, "_cell_number", 0), m.training, len(m._forward_hooks) + len(m._forward_pre_hooks),
            [getattr(getattr(at, name, None), "gives_zeros", False) for at in (m, type(m)) for name in STATE_MAKERS],
            [name for name, value in read_by_spec(getattr(m, "_cell_number", 0)) if getattr(m, name) == value],
        )
        for m in cell.modules()
    ])  # fmt: skip


def _start(cell: Any, plan: TracedPlan, state: Nest, dtype: DTypeLike, x: torch.Tensor) -> Nest:
    """The state that was given, or that a cell makes in a way of its own; None for zeros."""
    if state is not None or dtype is None or plan.starts_from_zeros:
        return state
    return zero_state_of(cell, x.shape[1], as_dtype(dtype))  # a trace can open no device for it


def _fits(cell: Any, plan: TracedPlan, state: Nest, dtype: DTypeLike, x: torch.Tensor) -> bool:
    """Whether a state, or the wish for one, is what the plan was made for."""
    if dtype is not None and as_dtype(dtype) != x.dtype:
        return False
    if state is None:
        return dtype is not None and plan.starts_from_zeros
    if _nest.describe(state) != _nest.describe(cell.state_size):
        return False
    leaves = _nest.flatten(state)
    for leaf, width in zip(leaves, plan.widths, strict=True):
        if not isinstance(leaf, torch.Tensor) or leaf.dim() != 2 or leaf.dtype != x.dtype or leaf.device != x.device:
            return False
        if leaf.shape[0] != x.shape[1] or leaf.shape[1] != width:
            return False
    return True


def _zeros(plan: TracedPlan, x: torch.Tensor) -> list[torch.Tensor]:
    return [x.new_zeros(x.shape[1], width) for width in plan.widths]


def _at(module: Any, path: Path) -> Any:
    for step in path:
        module = module.cell if step == "cell" else module.cells[step]
    return module


def _part(leaves: list[torch.Tensor], state: tuple[int, int, int]) -> torch.Tensor:
    leaf, start, stop = state
    return leaves[leaf] if start < 0 else leaves[leaf][:, start:stop]


def _run(plan: TracedPlan, cell: Any, feed: _Feed) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Outputs `[T, B, O]` and the leaves of the new state."""
    sums_of_inputs = any([len(sums) > 0 for sums in plan.sums])  # noqa: C419
    sequences = {0: _within(feed.x, feed.lengths) if sums_of_inputs else feed.x}
    states = []
    for number, sums in enumerate(plan.sums):
        for source, other, target in sums:
            sequences[target] = sequences[source] + sequences[other]
        if number < len(plan.layers):
            layer = plan.layers[number]
            sequences[layer.target], new = _run_layer(layer, cell, sequences[layer.source], feed)
            states.append(new)
    made = [[states[layer][which] for layer, which in parts] for parts in plan.pieces]
    joined = [parts[0] if len(parts) == 1 else torch.cat(parts, dim=1) for parts in made]
    return sequences[plan.result], joined


def _run_layer(layer: TracedLayer, cell: Any, x: torch.Tensor, feed: _Feed) -> tuple[torch.Tensor, list[torch.Tensor]]:
    state = tuple([_part(feed.leaves, piece) for piece in layer.states])
    after = tuple([_part(feed.fresh, piece) for piece in layer.states]) if len(feed.fresh) > 0 else None
    noise = [getattr(_at(cell, path), name) for path, name in layer.noises]
    mine, kept = None, None
    first, last = feed.first + layer.first_mask, feed.first + layer.last_mask
    if feed.streams is not None and feed.keeps is not None and first < last:
        mine, kept = feed.streams[first:last], feed.keeps[first:last]
    weights = _at(cell, layer.path).named_weights()
    call = LayerCall(layer.spec, x, state, weights, (), feed.lengths, feed.resets, after, layer.choice.threads)
    given = noise if len(noise) > 0 else None
    found = run_in_graph(layer.choice.name, layer.kind, call, layer.weights, layer.text, mine, kept, given)
    return found.outputs, list(found.state)


def _within(x: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
    """Inputs with zeros past each row's end."""
    if lengths is None:
        return x
    active = torch.arange(x.shape[0], device=x.device)[:, None] < lengths
    return torch.where(active[:, :, None], x, torch.zeros((), dtype=x.dtype, device=x.device))
