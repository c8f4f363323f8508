"""One direction of one layer of a cuDNN layer, as a cell: what the weave runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from cellweave._types import Nest, Size
from cellweave.cells import RNNCell
from cellweave.ops.gru import gru_split_step
from cellweave.ops.lstm import lstm_step
from cellweave.ops.rnn import rnn_step
from cellweave.specs import CellSpec, GRUSpec, LSTMSpec, LSTMStateTuple

if TYPE_CHECKING:
    from cellweave.layers._cudnn_rnn import CudnnRNN


class CudnnDirection(RNNCell):
    """A cell whose weights are its owner's."""

    _call_makes_variables = False
    makes_variables = False
    _owner: CudnnRNN

    def __init__(self, owner: CudnnRNN, cell: CellSpec, place: int) -> None:
        super().__init__(name=f"direction_{place}")
        self.__dict__["_owner"] = owner  # past nn.Module, in whose tree the owner is its parent
        self._cell, self._place = cell, place
        self._built = self._first_call_done = True

    @property
    def first_call_done(self) -> bool:
        """Whether the owner's weights exist."""
        return self._owner.built

    @property
    def state_size(self) -> Size:
        """Units, or `LSTMStateTuple` of them."""
        return self._cell.state_size

    @property
    def output_size(self) -> Size:
        """Units."""
        return self._cell.output_size

    def spec(self) -> CellSpec:
        """What a step computes, as data."""
        return self._cell

    def named_weights(self) -> dict[str, torch.Tensor]:
        """`kernel`, `recurrent_kernel`, `bias`, put together from the owner's parameters."""
        return self._owner.weights_of(self._place)

    def call(self, inputs: torch.Tensor, state: Nest) -> tuple[torch.Tensor, Any]:
        """One step."""
        return one_step(inputs, state, self.named_weights(), self._cell)


def one_step(
    inputs: torch.Tensor, state: Nest, weights: Mapping[str, torch.Tensor], spec: CellSpec
) -> tuple[torch.Tensor, Any]:
    """One step of a recurrence with separate kernels: output and new state."""
    if isinstance(spec, LSTMSpec):
        c, h = lstm_step(inputs, state[0], state[1], weights, spec=spec)
        return h, LSTMStateTuple(c, h)
    kernels = weights["kernel"], weights["recurrent_kernel"], weights["bias"]
    if isinstance(spec, GRUSpec):
        h = gru_split_step(inputs, state, *kernels, spec=spec)
    else:
        h = rnn_step(inputs, state, *kernels, spec=spec)
    return h, h
