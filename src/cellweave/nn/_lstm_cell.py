"""LSTMCell."""

from __future__ import annotations

from typing import Any

import torch

from cellweave.nn._single_step import SingleStep


class LSTMCell(SingleStep, torch.nn.LSTMCell):
    """`torch.nn.LSTMCell`: one step with the same arguments, parameters, start values, results and errors.

    It is a `torch.nn.LSTMCell`, run on cellweave's plans. For many steps a whole-sequence module or a `Stream` is
    faster.

    Args:
        input_size, hidden_size, bias, device, dtype: As of `torch.nn.LSTMCell`.
        zoneout, layer_norm: By keyword: as of `LSTM`; the latter with parameters `norm_weight`, `norm_bias`,
            `norm_weight_c`, `norm_bias_c`.

    A call takes inputs `[B, I]` or `[I]` and a state `(h, c)`, each `[B, H]` or `[H]` (default: zeros), and returns
    the new state.

    Raises:
        The types of exceptions that torch.nn raises for the same mistakes: ShapeError (ValueError), MisfitError
        (RuntimeError), RuntimeError.
    Numerics: as torch.nn up to rounding.
    Source: `torch.nn.LSTMCell`; Krueger et al. 2017 for zoneout, Ba et al. 2016 for layer normalization.
    """

    mode = "LSTM"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        zoneout: float | tuple[float, float] = 0.0,
        layer_norm: bool = False,
    ) -> None:
        torch.nn.LSTMCell.__init__(self, input_size, hidden_size, bias, device, dtype)
        self._take({"zoneout": zoneout, "layer_norm": layer_norm}, device, dtype)
