"""What the three single-step modules share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from cellweave._errors import MisfitError, ShapeError
from cellweave.nn._additions import Addition, Additions
from cellweave.nn._norms import add_norms, reset_norms
from cellweave.nn._plan_table import table_of
from cellweave.nn._run import Feed, run_stack
from cellweave.weave import Plan


class SingleStep:
    """One step of a recurrence with the parameters of torch.nn's cell, whose subclass each user of this is."""

    explains_itself = True
    additions = Additions()
    zoneout = Addition()
    layer_norm = Addition()
    reset_after = Addition()
    # A stack of one layer, as the runs see it.
    num_layers, bidirectional, proj_size, dropout = 1, False, 0, 0.0
    mode: str
    input_size: int
    hidden_size: int

    def _take(self, given: Mapping[str, Any], device: Any, dtype: Any) -> None:
        self.additions = Additions().changed(type(self).__name__, given)
        if self.layer_norm:
            add_norms(self, device, dtype)

    def forward(self, input: torch.Tensor, hx: Any = None) -> Any:  # noqa: A002  # torch.nn's name for it
        """One step; see the class."""
        feed, batched = self._entered(input, hx)
        state = run_stack(self, feed).state
        found = tuple([leaf[0] if batched else leaf[0, 0] for leaf in state])
        return found if self.mode == "LSTM" else found[0]

    def plan(
        self,
        input: torch.Tensor,  # noqa: A002
        hx: Any = None,
        *,
        lengths: Any = None,
        resets: Any = None,
        reset_state: Any = None,
    ) -> Plan:
        """How a call would run. Nothing is run. A single step has no lengths and no resets."""
        if lengths is not None or resets is not None or reset_state is not None:
            raise MisfitError(f"{type(self).__name__}: expected no lengths and no resets of a single step, got some.")
        return table_of(self, self._entered(input, hx)[0])

    def reset_parameters(self) -> None:
        """Draw all weights anew as torch.nn does; gammas become 1, betas 0."""
        super().reset_parameters()  # type: ignore[misc]  # of torch.nn's cell
        reset_norms(self)

    def extra_repr(self) -> str:
        """Torch.nn's arguments, then the additions that differ from their defaults."""
        return str(super().extra_repr()) + self.additions.shown()  # type: ignore[misc]  # of torch.nn's cell

    def _entered(self, inputs: torch.Tensor, hx: Any) -> tuple[Feed, bool]:
        """The feed of a step, checked as torch.nn does."""
        where = type(self).__name__
        if inputs.dim() not in (1, 2):
            raise ShapeError(f"{where}: expected inputs [B, {self.input_size}], got {list(inputs.shape)}.")
        batched = inputs.dim() == 2
        leaves = () if hx is None else (hx[0], hx[1]) if self.mode == "LSTM" else (hx,)
        if any([leaf.dim() not in (1, 2) for leaf in leaves]):  # noqa: C419  # a trace takes a list
            raise ShapeError(f"{where}: expected a state [B, {self.hidden_size}], got {_shapes(leaves)}.")
        x = inputs if batched else inputs[None]
        leaves = leaves if batched else tuple([leaf[None] for leaf in leaves])
        if x.shape[1] != self.input_size:
            raise MisfitError(f"{where}: expected inputs [B, {self.input_size}], got {list(inputs.shape)}.")
        if any([tuple(leaf.shape) != (x.shape[0], self.hidden_size) for leaf in leaves]):  # noqa: C419
            raise MisfitError(f"{where}: expected a state {[x.shape[0], self.hidden_size]}, got {_shapes(leaves)}.")
        state = tuple([leaf[None] for leaf in leaves]) if len(leaves) > 0 else None
        return Feed(x[None], state, None, None, None, False, False), batched


def _shapes(leaves: tuple[torch.Tensor, ...]) -> list[list[int]]:
    return [list(leaf.shape) for leaf in leaves]
