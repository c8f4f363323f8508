"""What the three whole-sequence modules share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence

from cellweave._errors import ArgumentError, MisfitError
from cellweave._types import dtype_name
from cellweave.nn._additions import Addition, Additions, check_names
from cellweave.nn._entry import Extras, enter, leave
from cellweave.nn._norms import add_norms, reset_norms
from cellweave.nn._plan_table import table_of
from cellweave.nn._run import run_stack
from cellweave.nn._weights import given_weights, parameter
from cellweave.weave import Plan


class RecurrentModule(torch.nn.RNNBase):
    """A stack of recurrent layers with torch.nn's parameters, run on the weave's plans.

    It is a `torch.nn.RNNBase`, not one of torch.nn's final classes: `torch.compile` refuses every instance of those.
    """

    explains_itself = True
    additions = Additions()  # for modules of older pickles
    input_dropout = Addition()
    state_dropout = Addition()
    output_dropout = Addition()
    variational = Addition()
    mask_per_row = Addition()
    mask_per_gate = Addition()
    weight_dropout = Addition()
    zoneout = Addition()
    layer_norm = Addition()
    residual = Addition()
    reset_after = Addition()

    def __init__(self, mode: str, *args: Any, given: Mapping[str, Any], known: type[Any], **kwargs: Any) -> None:
        where = type(self).__name__
        if "proj_size" in given:  # torch.nn raises ValueError too
            raise ArgumentError(f"{where}: expected no proj_size because only an LSTM projects, got one.")
        check_names(where, given, known)
        additions = Additions().changed(where, given)
        super().__init__(mode, *args, **kwargs)
        self.additions = additions
        if self.layer_norm:
            add_norms(self, kwargs.get("device"), kwargs.get("dtype"))
        if self.residual and self.num_layers == 1 and self.input_size != self._output_size():
            raise ArgumentError(
                f"{where}: expected residual=False because no layer's inputs are as wide as its outputs, "
                f"{self.input_size} and {self._output_size()}, got True."
            )

    def _output_size(self) -> int:
        return (self.proj_size or self.hidden_size) * (2 if self.bidirectional else 1)

    def forward(
        self,
        input: Any,  # noqa: A002  # torch.nn's name for it
        hx: Any = None,
        *,
        lengths: Any = None,
        padding_side: str = "right",
        resets: Any = None,
        reset_state: Any = None,
        return_all_states: bool = False,
    ) -> Any:
        """Run the whole sequence; see the class."""
        extras = Extras(lengths, padding_side, resets, reset_state, return_all_states)
        if isinstance(input, PackedSequence) and torch.compiler.is_compiling():
            from cellweave.nn._traced import run_packed

            return run_packed(self, input, hx, extras)
        feed, layout = enter(self, input, hx, extras)
        return leave(self, run_stack(self, feed), layout)

    def plan(
        self,
        input: Any,  # noqa: A002
        hx: Any = None,
        *,
        lengths: Any = None,
        padding_side: str = "right",
        resets: Any = None,
        reset_state: Any = None,
        return_all_states: bool = False,
    ) -> Plan:
        """How a call with these arguments would run. Nothing is run or drawn."""
        feed, _ = enter(self, input, hx, Extras(lengths, padding_side, resets, reset_state, return_all_states))
        return table_of(self, feed)

    def reset_parameters(self) -> None:
        """Draw all weights anew as torch.nn does; gammas become 1, betas 0."""
        super().reset_parameters()
        reset_norms(self)

    def flatten_parameters(self) -> None:
        """Nothing: there is no packed copy of the weights to bring up to date."""

    def check_input(self, input: torch.Tensor, batch_sizes: torch.Tensor | None) -> None:  # noqa: A002
        """Raise as torch.nn does, unless inputs have the weights' dtype and the module's width."""
        weight: torch.Tensor | None = self._parameters.get("weight_ih_l0")
        if weight is None:
            weight = parameter(self, "weight_ih_l0", given_weights(self))
        where = type(self).__name__
        if input.dtype != weight.dtype and not torch._C._is_any_autocast_enabled():
            wanted, got = dtype_name(weight.dtype), dtype_name(input.dtype)
            raise ArgumentError(
                f"{where}: expected inputs of {wanted} as the weights are, got {got}. Convert one of them."
            )
        if input.device != weight.device:
            raise MisfitError(
                f"{where}: expected inputs on {weight.device} as the weights are, got {input.device}. "
                "Move one of them with .to(device)."
            )
        axes = 3 if batch_sizes is None else 2
        if input.dim() != axes or input.shape[-1] != self.input_size:
            wanted = "[..., ..., " if axes == 3 else "[..., "
            raise MisfitError(f"{where}: expected inputs {wanted}{self.input_size}], got {list(input.shape)}.")

    def check_hidden_size(self, hx: torch.Tensor, expected_hidden_size: tuple[int, int, int], msg: str = "") -> None:
        """Raise as torch.nn does, unless a state has this size."""
        if tuple(hx.shape) != expected_hidden_size:
            wanted, got = list(expected_hidden_size), list(hx.shape)
            raise MisfitError(
                f"{type(self).__name__}: expected a state {wanted} (layers * directions, batch, size), got {got}."
            )

    def extra_repr(self) -> str:
        """Torch.nn's arguments, then the additions that differ from their defaults."""
        return ", ".join([super().extra_repr(), *self.additions.differing()])
