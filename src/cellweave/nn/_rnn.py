"""RNN."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cellweave._errors import ArgumentError
from cellweave.nn._additions import Arguments
from cellweave.nn._base import RecurrentModule

if TYPE_CHECKING:
    from typing_extensions import Unpack

#: What torch.nn calls the recurrence, by `nonlinearity`.
MODES = {"tanh": "RNN_TANH", "relu": "RNN_RELU"}


class RNN(RecurrentModule):
    """`torch.nn.RNN` with additions: the same arguments, parameters, start values, results and errors.

        h' = tanh(x W + b + h R + b'), or relu

    It is a `torch.nn.RNNBase`, but no `torch.nn.RNN`, every instance of which `torch.compile` refuses.

    Args:
        input_size, hidden_size, num_layers, nonlinearity, bias, batch_first, dropout, bidirectional, device, dtype: As
            of `torch.nn.RNN`. The others by keyword only:
        input_dropout, state_dropout, output_dropout, variational, mask_per_row, mask_per_gate, weight_dropout,
            zoneout, layer_norm, residual: As of `LSTM`, without c.

    A call takes and returns what one of `LSTM` does, with h `[L * D, B, H]` in place of `(h, c)`.

    Raises:
        As `LSTM`.
    Numerics: as `LSTM`.
    Source: Elman 1990; `torch.nn.RNN`.
    """

    nonlinearity: str

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
        **additions: Unpack[Arguments],
    ) -> None:
        if nonlinearity not in MODES:
            raise ArgumentError(f"RNN: expected nonlinearity 'tanh' or 'relu', got {nonlinearity!r}.")
        super().__init__(
            MODES[nonlinearity], input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            device=device, dtype=dtype, given=additions, known=Arguments,
        )  # fmt: skip
        self.nonlinearity = nonlinearity
