"""LSTMCell."""

from __future__ import annotations

import torch

from cellweave.nn._single_step import SingleStep


class LSTMCell(SingleStep, torch.nn.LSTMCell):
    """`torch.nn.LSTMCell`: one step with the same arguments, parameters, start values, results and errors.

    It is a `torch.nn.LSTMCell`, run on cellweave's plans. For many steps a whole-sequence module or a `Stream` is
    faster.

    Args:
        input_size, hidden_size, bias, device, dtype: As of `torch.nn.LSTMCell`.

    A call takes inputs `[B, I]` or `[I]` and a state `(h, c)`, each `[B, H]` or `[H]` (default: zeros), and returns
    the new state.

    Raises:
        The types of exceptions that torch.nn raises for the same mistakes: ShapeError (ValueError), MisfitError
        (RuntimeError), RuntimeError.
    Numerics: as torch.nn up to rounding.
    Source: `torch.nn.LSTMCell`.
    """

    mode = "LSTM"
