"""Taking masks from their streams in compiled code: an operator that moves the streams at every call."""

from __future__ import annotations

from typing import Any

import torch

from cellweave.layers._traced_plans import plan_of_number
from cellweave.ops.common import BoundMask, signed64
from cellweave.ops.common._ticket import TICKET
from cellweave.scopes import running_loop, session_run
from cellweave.weave import Binding

_LIBRARY: Any = torch.library.Library("cellweave", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define(
    "claim_masks(int[] plans, SymInt rows, SymInt steps, Tensor? lengths, bool grad, Tensor(a!) ticket) "
    "-> (Tensor, Tensor)",
    tags=(torch.Tag.pt2_compliant_tag,),
)
#: seed, seed2, block, stride, whether it rounds by floor, whether its noise is given.
_COLUMNS = 6


def _claim(
    plans: list[int], rows: int, steps: int, lengths: torch.Tensor | None, grad: bool, ticket: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Take the masks of one run of some unrolls, one after the other.

    Args:
        plans: Numbers of the unrolls' plans.
        rows, steps: B and T.
        lengths: `[B]`; masks are drawn for `min(T, max(1, longest row))` steps.
        grad: Whether gradients were enabled around the compiled code: inside of an operator they never are.
        ticket: Written to.
    Returns:
        Places in the streams, int64 `[masks, 6]`, and keep probabilities, float64 `[masks]`.
    Raises:
        ModeError: a backward pass runs the code again and would draw other masks than the first time.
    """
    ticket += 1
    ran = steps if lengths is None or not lengths.numel() else min(steps, max(1, int(lengths.max())))
    bound: list[BoundMask] = []
    with session_run(), torch.set_grad_enabled(grad):
        for number in plans:
            plan = plan_of_number(number)
            if plan.program is None or not plan.program.sites:
                continue
            with running_loop(ran) as loop:
                loop.next_step()
                binding = Binding(plan.program, rows, plan.dtype, plan.device, ran)
                binding.draw()
                bound += binding.masks(plan.masks)
    places = [
        [signed64(m.seed), signed64(m.seed2), signed64(m.block), m.stride, int(m.by_floor), int(m.noise is not None)]
        for m in bound
    ]
    return torch.tensor(places, dtype=torch.int64), torch.tensor([m.keep for m in bound], dtype=torch.float64)


def _shapes(plans: list[int], *_: Any) -> tuple[torch.Tensor, torch.Tensor]:
    masks = sum(len(plan_of_number(number).masks) for number in plans)
    return torch.empty(masks, _COLUMNS, dtype=torch.int64), torch.empty(masks, dtype=torch.float64)


_LIBRARY.impl("claim_masks", _claim, "CPU")
_LIBRARY.impl("claim_masks", _claim, "CUDA")  # where lengths lie there
torch.library.register_fake("cellweave::claim_masks", _shapes, lib=_LIBRARY)


def claim_masks_in_graph(
    plans: list[int], rows: int, steps: int, lengths: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Put the operator into the graph that is being traced; arguments and results are `_claim`'s."""
    streams, keeps = torch.ops.cellweave.claim_masks(plans, rows, steps, lengths, torch.is_grad_enabled(), TICKET)
    return streams, keeps
