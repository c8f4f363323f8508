"""RNNCell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from cellweave._errors import MisfitError
from cellweave.nn._additions import Arguments
from cellweave.nn._rnn import MODES
from cellweave.nn._single_step import SingleStep

if TYPE_CHECKING:
    from typing_extensions import Unpack


class RNNCell(SingleStep, torch.nn.RNNCell):
    """`torch.nn.RNNCell`: one step with the same arguments, parameters, start values, results and errors.

    It is a `torch.nn.RNNCell`, run on cellweave's plans. For many steps a whole-sequence module or a `Stream` is
    faster.

    Args:
        input_size, hidden_size, bias, nonlinearity, device, dtype: As of `torch.nn.RNNCell`.
        input_dropout, state_dropout, output_dropout, variational, mask_per_row, mask_per_gate, weight_dropout,
            zoneout, layer_norm, residual: By keyword only: as of `RNN`, with a sequence of calls in place of one.
            Layer normalization has parameters `norm_weight` and `norm_bias`.

    A call takes and returns what one of `LSTMCell` does, with h `[B, H]` or `[H]` in place of `(h, c)`. Sequences
    begin, and masks change, as described there.

    Raises:
        As `LSTMCell`.
    Numerics: as torch.nn up to rounding.
    Source: `torch.nn.RNNCell`; for the additions as `LSTM`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: Any = None,
        **additions: Unpack[Arguments],
    ) -> None:
        torch.nn.RNNCell.__init__(self, input_size, hidden_size, bias, nonlinearity, device, dtype)
        self._take(additions, Arguments, device, dtype)

    @property
    def mode(self) -> str:  # type: ignore[override]
        """As torch.nn calls the recurrence."""
        if self.nonlinearity not in MODES:  # torch.nn too finds out at the call
            raise MisfitError(f"RNNCell: expected nonlinearity 'tanh' or 'relu', got {self.nonlinearity!r}.")
        return MODES[self.nonlinearity]
