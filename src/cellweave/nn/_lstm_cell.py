"""LSTMCell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from cellweave.nn._additions import Arguments
from cellweave.nn._single_step import SingleStep

if TYPE_CHECKING:
    from typing_extensions import Unpack


class LSTMCell(SingleStep, torch.nn.LSTMCell):
    """`torch.nn.LSTMCell`: one step with the same arguments, parameters, start values, results and errors.

    It is a `torch.nn.LSTMCell`, run on cellweave's plans. For many steps a whole-sequence module or a `Stream` is
    faster.

    Args:
        input_size, hidden_size, bias, device, dtype: As of `torch.nn.LSTMCell`.
        input_dropout, state_dropout, output_dropout, variational, mask_per_row, mask_per_gate, weight_dropout,
            zoneout, layer_norm, residual: By keyword only: as of `LSTM`, with a sequence of calls in place of one.
            Layer normalization has parameters `norm_weight`, `norm_bias`, `norm_weight_c`, `norm_bias_c`.

    A call takes:

        input: `[B, I]` or `[I]`.
        hx: `(h, c)`, each `[B, H]` or `[H]`. Default: zeros.
        return_output: By keyword: return the output too, as it is after `output_dropout` and `residual` and before
            `state_dropout`. It has to be asked for where one of the first two is set. Default False.

    and returns the new state `(h, c)`; or `(output, (h, c))`.

    A sequence begins at the first call in training mode: of all, after `reset_masks()`, after a change between
    `train()` and `eval()` or of an addition, or with another number of rows, dtype or device. That call draws what one
    of `LSTM` draws, in its order, from the generator as it stands; later calls draw nothing. Dropped weights and
    the masks of `variational=True` stay the same from call to call; those of `variational=False` and of zoneout differ,
    each call being the sequence's next step. A loop over steps thus has the masks, and up to rounding the numbers and
    gradients, of an `LSTM` under the same seed. Copies and pickles go on where the cell stood; a `state_dict` holds
    nothing of it.

    Raises:
        The types of exceptions that torch.nn raises for the same mistakes: ShapeError (ValueError), MisfitError
        (RuntimeError), RuntimeError. For additions: ArgumentError (ValueError), TypeError. ModeError (RuntimeError): an
        export while masks act, samples of `torch.func.vmap` with masks of their own, or a second run by activation
        checkpointing without `repeated_masks`.
    Numerics: as torch.nn up to rounding.
    Source: `torch.nn.LSTMCell`; for the additions as `LSTM`.
    """

    mode = "LSTM"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        **additions: Unpack[Arguments],
    ) -> None:
        torch.nn.LSTMCell.__init__(self, input_size, hidden_size, bias, device, dtype)
        self._take(additions, Arguments, device, dtype)
