"""GRU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cellweave.nn._additions import GRUArguments
from cellweave.nn._base import RecurrentModule

if TYPE_CHECKING:
    from typing_extensions import Unpack


class GRU(RecurrentModule):
    """`torch.nn.GRU` with additions: the same arguments, parameters, start values, results and errors.

        r, z = sigmoid(x W + b + h R + b'), each with its rows of the weights, in the order r, z, n
        n = tanh(x W + b + r*(h R + b'));  h' = (1 - z)*n + z*h

    It is a `torch.nn.RNNBase`, but no `torch.nn.GRU`, every instance of which `torch.compile` refuses.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device, dtype: As of
            `torch.nn.GRU`. The others by keyword only:
        reset_after: False: `n = tanh(x W + b + (r*h) R + b')`, as Cho et al. 2014 and TF1 have it, with the same
            parameters. Default True.
        input_dropout, state_dropout, output_dropout, variational, mask_per_row, mask_per_gate, weight_dropout,
            zoneout, layer_norm, residual: As of `LSTM`, without c. With `reset_after` the two summands of n are
            normalized each by itself: `n(x W + b) + r*n(h R + b')`, the second with `norm_weight_h_l0`,
            `norm_bias_h_l0`.

    A call takes and returns what one of `LSTM` does, with h `[L * D, B, H]` in place of `(h, c)`.

    Raises:
        As `LSTM`.
    Numerics: as `LSTM`.
    Source: Cho et al. 2014; `torch.nn.GRU`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
        **additions: Unpack[GRUArguments],
    ) -> None:
        super().__init__(
            "GRU", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device=device,
            dtype=dtype, given=additions, known=GRUArguments,
        )  # fmt: skip
