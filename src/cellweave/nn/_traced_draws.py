"""Compiled steps that draw: an operator that refuses those which a backward pass would make again with other masks."""

from __future__ import annotations

from typing import Any

import torch

from cellweave.ops.common import refuse_repeats
from cellweave.ops.common._ticket import TICKET

_LIBRARY: Any = torch.library.Library("cellweave", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define("refuse_repeats(bool grad, Tensor(a!) ticket) -> ()", tags=(torch.Tag.pt2_compliant_tag,))


def _refuse(grad: bool, ticket: torch.Tensor) -> None:
    ticket += 1
    refuse_repeats(grad=grad)


def _nothing(*_: Any) -> None:
    pass


_LIBRARY.impl("refuse_repeats", _refuse, "CPU")
torch.library.register_fake("cellweave::refuse_repeats", _nothing, lib=_LIBRARY)


def refuse_repeats_in_graph() -> None:
    """Put the operator into the graph that is being traced."""
    torch.ops.cellweave.refuse_repeats(torch.is_grad_enabled(), TICKET)
