"""RNNCell."""

from __future__ import annotations

import torch

from cellweave._errors import MisfitError
from cellweave.nn._single_step import SingleStep

_MODES = {"tanh": "RNN_TANH", "relu": "RNN_RELU"}


class RNNCell(SingleStep, torch.nn.RNNCell):
    """LONGDOC"""

    @property
    def mode(self) -> str:  # type: ignore[override]
        """As torch.nn calls the recurrence."""
        if self.nonlinearity not in _MODES:  # torch.nn too finds out at the call
            raise MisfitError(f"RNNCell: expected nonlinearity 'tanh' or 'relu', got {self.nonlinearity!r}.")
        return _MODES[self.nonlinearity]
