"""What a cell draws for a sequence and keeps from call to call."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch.nn import functional as F

from cellweave._errors import ModeError
from cellweave.nn._masks import draw_seeds
from cellweave.nn._plans import StackPlan
from cellweave.nn._weights import parameter
from cellweave.ops.common import note_draw
from cellweave.weave import is_transformed

_WEIGHT = "weight_hh"


class SequenceDraws(NamedTuple):
    """A sequence's random numbers and how far it has come; tensors throughout, so that a graph has no numbers to guard.

    Attributes:
        like: Empty, `[B, 0]`: rows, dtype and device of the inputs that it was drawn for.
        seeds: One for each mask, int64 on the CPU.
        step: How many steps were made before, int64 `[]` on the CPU.
        dropped: What the recurrent weights are multiplied by; None: nothing.
    """

    like: torch.Tensor
    seeds: torch.Tensor
    step: torch.Tensor
    dropped: torch.Tensor | None


def next_draws(cell: Any, plan: StackPlan, x: torch.Tensor) -> SequenceDraws:
    """What the next step of a cell's sequence draws on; a new sequence's where none has begun.

    The order of draws is that of a layer's call: dropped weights, then seeds.

    Args:
        x: Inputs `[1, B, I]`.
    Raises:
        ModeError: the draws could not be kept: an export, samples of `torch.func.vmap` that differ, or a part of a
            model that is computed again without `repeated_masks`, or in compiled code.
    """
    traced = torch.compiler.is_compiling()
    if not traced:
        note_draw(id(cell), lambda: cell.draws, lambda draws: setattr(cell, "draws", draws))
    elif torch.compiler.is_exporting():
        raise ModeError(
            f"{type(cell).__name__}: expected nothing random to act because an exported program keeps no masks between "
            "its calls, got a cell in training mode. Call .eval() on it."
        )
    else:
        from cellweave.nn._traced_draws import refuse_repeats_in_graph

        refuse_repeats_in_graph()
    held: SequenceDraws | None = cell.draws
    if held is None or not _fits(cell, held, x):
        held = _kept(cell, _drawn(cell, plan, x))
    after = SequenceDraws(held.like, held.seeds, held.step + 1, held.dropped)
    cell.draws = after if traced else _kept(cell, after)
    return held


def _fits(cell: Any, held: SequenceDraws, x: torch.Tensor) -> bool:
    like, dropped = held.like, held.dropped
    if like.shape[0] != x.shape[1] or like.dtype != x.dtype or like.device != x.device:
        return False
    if dropped is None:
        return True
    weight = parameter(cell, _WEIGHT)
    return dropped.dtype == weight.dtype and dropped.device == weight.device


def _drawn(cell: Any, plan: StackPlan, x: torch.Tensor) -> SequenceDraws:
    dropped = None
    if plan.weight_dropout > 0:
        dropped = _dropped(parameter(cell, _WEIGHT).detach(), plan.weight_dropout)
    seeds = draw_seeds(plan.masks) if plan.masks > 0 else torch.zeros(0, dtype=torch.int64, device="cpu")
    like = torch.empty((x.shape[1], 0), dtype=x.dtype, device=x.device)
    return SequenceDraws(like, seeds, torch.zeros((), dtype=torch.int64, device="cpu"), dropped)


def _dropped(weight: torch.Tensor, rate: float) -> torch.Tensor:
    if torch.compiler.is_compiling():
        return F.dropout(torch.ones_like(weight), rate)
    with torch.inference_mode(False):  # it is kept, and a later call may want gradients
        if not is_transformed():
            return F.dropout(torch.ones_like(weight), rate)
        # Weights may be one for each sample of vmap, which share the mask unless it says otherwise.
        return F.dropout(torch.ones(weight.shape, dtype=weight.dtype, device=weight.device), rate)


def _kept(cell: Any, draws: SequenceDraws) -> SequenceDraws:
    """The same draws outside of the transforms of `torch.func`, which would otherwise take them along at their end."""
    if torch.compiler.is_compiling() or not is_transformed():
        return draws
    found = [None if tensor is None else _unwrapped(tensor) for tensor in draws]
    if any(tensor is not None and torch._C._functorch.is_batchedtensor(tensor) for tensor in found):
        raise ModeError(
            f"{type(cell).__name__}: expected masks that all samples of vmap share, got some for each. Give vmap "
            'randomness="same".'
        )
    return SequenceDraws(*found)  # type: ignore[arg-type]  # only `dropped` may be None


def _unwrapped(tensor: torch.Tensor) -> torch.Tensor:
    while torch._C._functorch.is_gradtrackingtensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor
