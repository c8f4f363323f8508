"""RNNCell."""

from __future__ import annotations

from typing import Any

import torch

from cellweave._errors import MisfitError
from cellweave.nn._single_step import SingleStep

_MODES = {"tanh": "RNN_TANH", "relu": "RNN_RELU"}


class RNNCell(SingleStep, torch.nn.RNNCell):
    """`torch.nn.RNNCell`: one step with the same arguments, parameters, start values, results and errors.

    It is a `torch.nn.RNNCell`, run on cellweave's plans. For many steps a whole-sequence module or a `Stream` is
    faster.

    Args:
        input_size, hidden_size, bias, nonlinearity, device, dtype: As of `torch.nn.RNNCell`.
        zoneout, layer_norm: By keyword: as of `RNN`; the latter with parameters `norm_weight` and `norm_bias`.

    A call takes inputs `[B, I]` or `[I]` and a state h `[B, H]` or `[H]` (default: zeros), and returns the new state.

    Raises:
        The types of exceptions that torch.nn raises for the same mistakes: ShapeError (ValueError), MisfitError
        (RuntimeError), RuntimeError.
    Numerics: as torch.nn up to rounding.
    Source: `torch.nn.RNNCell`; Krueger et al. 2017 for zoneout, Ba et al. 2016 for layer normalization.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: Any = None,
        *,
        zoneout: float | tuple[float, float] = 0.0,
        layer_norm: bool = False,
    ) -> None:
        torch.nn.RNNCell.__init__(self, input_size, hidden_size, bias, nonlinearity, device, dtype)
        self._take({"zoneout": zoneout, "layer_norm": layer_norm}, device, dtype)

    @property
    def mode(self) -> str:  # type: ignore[override]
        """As torch.nn calls the recurrence."""
        if self.nonlinearity not in _MODES:  # torch.nn too finds out at the call
            raise MisfitError(f"RNNCell: expected nonlinearity 'tanh' or 'relu', got {self.nonlinearity!r}.")
        return _MODES[self.nonlinearity]
