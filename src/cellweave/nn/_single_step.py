"""What the three single-step modules share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from cellweave._errors import ArgumentError, MisfitError, ShapeError
from cellweave.nn._additions import Addition, Additions, check_names
from cellweave.nn._cell_masks import SequenceDraws
from cellweave.nn._entry import check_kind, refuse_one_tensor, require_tensor, state_leaves
from cellweave.nn._norms import add_norms, reset_norms
from cellweave.nn._plan_table import table_of
from cellweave.nn._run import Feed, run_stack
from cellweave.nn._weights import parameter
from cellweave.weave import Plan


class CellAddition(Addition):
    """One of them as an attribute of a cell, whose random numbers belong to the values that they were drawn for."""

    def __set__(self, module: Any, value: Any) -> None:
        """Another value, checked."""
        before = module.additions
        super().__set__(module, value)
        if module.additions != before:
            module.reset_masks()


class SingleStep:
    """One step of a recurrence with the parameters of torch.nn's cell, whose subclass each user of this is."""

    explains_itself = True
    additions = Additions()
    input_dropout = CellAddition()
    state_dropout = CellAddition()
    output_dropout = CellAddition()
    variational = CellAddition()
    mask_per_row = CellAddition()
    mask_per_gate = CellAddition()
    weight_dropout = CellAddition()
    zoneout = CellAddition()
    layer_norm = CellAddition()
    residual = CellAddition()
    reset_after = CellAddition()
    draws: SequenceDraws | None = None
    # A stack of one layer, as the runs see it.
    num_layers, bidirectional, proj_size, dropout = 1, False, 0, 0.0
    mode: str
    input_size: int
    hidden_size: int
    training: bool

    def _take(self, given: Mapping[str, Any], known: type[Any], device: Any, dtype: Any) -> None:
        where = type(self).__name__
        check_names(where, given, known)
        self.additions = Additions().changed(where, given)
        if self.layer_norm:
            add_norms(self, device, dtype)
        if self.residual and self.input_size != self.hidden_size:
            raise ArgumentError(
                f"{where}: expected residual=False because its inputs are not as wide as its output, "
                f"{self.input_size} and {self.hidden_size}, got True."
            )

    def forward(
        self,
        input: torch.Tensor,  # noqa: A002  # torch.nn's name for it
        hx: Any = None,
        *,
        return_output: bool = False,
    ) -> Any:
        """One step; see the class."""
        if not return_output and (self.output_dropout > 0 or self.residual):
            raise ArgumentError(
                f"{type(self).__name__}: expected return_output=True because output_dropout and residual act on the "
                "output alone, which is then not the new h, got False. The call returns (output, state)."
            )
        feed, batched = self._entered(input, hx)
        ran = run_stack(self, feed)
        found = tuple([leaf[0] if batched else leaf[0, 0] for leaf in ran.state])
        state = found if self.mode == "LSTM" else found[0]
        if not return_output:
            return state
        return (ran.outputs[0] if batched else ran.outputs[0, 0]), state

    def reset_masks(self) -> None:
        """Start a new sequence: the next call in training mode draws masks and dropped weights anew."""
        self.draws = None

    def train(self, mode: bool = True) -> Any:
        """Set the mode as torch.nn does; a change of it starts a new sequence."""
        if mode != self.training:
            self.reset_masks()
        return super().train(mode)  # type: ignore[misc]  # of torch.nn's cell

    def plan(
        self,
        input: torch.Tensor,  # noqa: A002
        hx: Any = None,
        *,
        lengths: Any = None,
        resets: Any = None,
        reset_state: Any = None,
    ) -> Plan:
        """How a call would run. Nothing is run or drawn. A single step has no lengths and no resets."""
        if lengths is not None or resets is not None or reset_state is not None:
            raise MisfitError(f"{type(self).__name__}: expected no lengths and no resets of a single step, got some.")
        return table_of(self, self._entered(input, hx)[0])

    def reset_parameters(self) -> None:
        """Draw all weights anew as torch.nn does; gammas become 1, betas 0."""
        super().reset_parameters()  # type: ignore[misc]  # of torch.nn's cell
        reset_norms(self)

    def extra_repr(self) -> str:
        """Torch.nn's arguments, then the additions that differ from their defaults."""
        return ", ".join([super().extra_repr(), *self.additions.differing()])  # type: ignore[misc]  # of torch.nn's cell

    def _entered(self, inputs: torch.Tensor, hx: Any) -> tuple[Feed, bool]:
        """The feed of a step, checked as torch.nn does."""
        where = type(self).__name__
        require_tensor(self, inputs)
        if inputs.dim() not in (1, 2):
            raise ShapeError(f"{where}: expected inputs [B, {self.input_size}], got {list(inputs.shape)}.")
        batched = inputs.dim() == 2
        leaves = state_leaves(self, hx) or ()
        if any([leaf.dim() not in (1, 2) for leaf in leaves]):  # noqa: C419  # a trace takes a list
            raise ShapeError(f"{where}: expected a state [B, {self.hidden_size}], got {_shapes(leaves)}.")
        refuse_one_tensor(self, hx)
        x = inputs if batched else inputs[None]
        leaves = leaves if batched else tuple([leaf[None] for leaf in leaves])
        if x.shape[1] != self.input_size:
            raise MisfitError(f"{where}: expected inputs [B, {self.input_size}], got {list(inputs.shape)}.")
        if any([tuple(leaf.shape) != (x.shape[0], self.hidden_size) for leaf in leaves]):  # noqa: C419
            raise MisfitError(f"{where}: expected a state {[x.shape[0], self.hidden_size]}, got {_shapes(leaves)}.")
        check_kind(self, "inputs", (inputs,), parameter(self, "weight_ih"), "weights")
        check_kind(self, "a state", leaves, inputs, "inputs")
        state = tuple([leaf[None] for leaf in leaves]) if len(leaves) > 0 else None
        return Feed(x[None], state, None, None, None, False, False), batched


def _shapes(leaves: tuple[torch.Tensor, ...]) -> list[list[int]]:
    return [list(leaf.shape) for leaf in leaves]
