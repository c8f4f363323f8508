"""GRUCell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from cellweave.nn._additions import GRUArguments
from cellweave.nn._single_step import SingleStep

if TYPE_CHECKING:
    from typing_extensions import Unpack


class GRUCell(SingleStep, torch.nn.GRUCell):
    """`torch.nn.GRUCell`: one step with the same arguments, parameters, start values, results and errors.

    It is a `torch.nn.GRUCell`, run on cellweave's plans. For many steps a whole-sequence module or a `Stream` is
    faster.

    Args:
        input_size, hidden_size, bias, device, dtype: As of `torch.nn.GRUCell`.
        reset_after: By keyword only: False: the reset gate meets h before the product, as in `GRU`. Default True.
        input_dropout, state_dropout, output_dropout, variational, mask_per_row, mask_per_gate, weight_dropout,
            zoneout, layer_norm, residual: By keyword only: as of `GRU`, with a sequence of calls in place of one.
            Layer normalization has parameters `norm_weight`, `norm_bias`, and with `reset_after` `norm_weight_h`,
            `norm_bias_h`.

    A call takes and returns what one of `LSTMCell` does, with h `[B, H]` or `[H]` in place of `(h, c)`. Sequences
    begin, and masks change, as described there.

    Raises:
        As `LSTMCell`.
    Numerics: as torch.nn up to rounding.
    Source: `torch.nn.GRUCell`; for the additions as `LSTM`.
    """

    mode = "GRU"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        **additions: Unpack[GRUArguments],
    ) -> None:
        torch.nn.GRUCell.__init__(self, input_size, hidden_size, bias, device, dtype)
        self._take(additions, GRUArguments, device, dtype)
