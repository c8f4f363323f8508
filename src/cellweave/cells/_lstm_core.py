"""What TF1's two LSTM cells share: the step, and the state as a pair or as one tensor."""

from __future__ import annotations

from typing import Any

import torch

from cellweave._errors import ShapeError
from cellweave._types import Nest, Size
from cellweave.cells._spec_cell import SpecCell, pair_of
from cellweave.ops.lstm import lstm_step
from cellweave.specs import LSTMSpec, LSTMStateTuple

# A pair of tensors, and nothing that could run: `torch.load` reads saved states as it reads saved weights.
torch.serialization.add_safe_globals([LSTMStateTuple])


class LSTMCore(SpecCell):
    """Base of the LSTM cells; not for users."""

    _spec: LSTMSpec

    def __init__(self, spec: LSTMSpec, state_is_tuple: bool, **kwargs: Any) -> None:
        super().__init__(spec, **kwargs)
        self._state_is_tuple = bool(state_is_tuple)

    @property
    def state_size(self) -> Size:
        """`LSTMStateTuple(H, P)`, or H + P when the state is one tensor."""
        return self._spec.state_size if self._state_is_tuple else sum(self._spec.state_size)

    def call(self, inputs: torch.Tensor, state: Nest) -> tuple[torch.Tensor, Any]:
        """One step.

        Args:
            inputs: `[B, I]`.
            state: `(c, h)`, each `[B, size]`; or `[B, H + P]` with c first.
        Returns:
            h' `[B, P]` and the new state.
        """
        c, h = self._split(state)
        self._checked(inputs, **{"state c": (c, self._spec.units), "state h": (h, self._spec.output_size)})
        new_c, new_h = lstm_step(inputs, c, h, self.named_weights(), spec=self._spec)
        return new_h, LSTMStateTuple(new_c, new_h) if self._state_is_tuple else torch.cat([new_c, new_h], dim=1)

    def _split(self, state: Nest) -> tuple[Any, Any]:
        if self._state_is_tuple:
            return pair_of(state, self.where)
        width = sum(self._spec.state_size)
        if not isinstance(state, torch.Tensor) or state.dim() != 2 or state.shape[1] != width:
            got = list(state.shape) if isinstance(state, torch.Tensor) else type(state).__name__
            raise ShapeError(f"{self.where}: expected state [B, {width}] (c, then h), got {got}.")
        return state[:, : self._spec.units], state[:, self._spec.units :]
