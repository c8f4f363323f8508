"""GRUCell."""

from __future__ import annotations

from typing import Any

import torch

from cellweave.nn._single_step import SingleStep


class GRUCell(SingleStep, torch.nn.GRUCell):
    """`torch.nn.GRUCell`: one step with the same arguments, parameters, start values, results and errors.

    It is a `torch.nn.GRUCell`, run on cellweave's plans. For many steps a whole-sequence module or a `Stream` is
    faster.

    Args:
        input_size, hidden_size, bias, device, dtype: As of `torch.nn.GRUCell`.
        reset_after: By keyword: False: the reset gate meets h before the product, as in `GRU`. Default True.
        zoneout, layer_norm: By keyword: as of `GRU`; the latter with parameters `norm_weight`, `norm_bias`, and
            with `reset_after` `norm_weight_h`, `norm_bias_h`.

    A call takes inputs `[B, I]` or `[I]` and a state h `[B, H]` or `[H]` (default: zeros), and returns the new state.

    Raises:
        The types of exceptions that torch.nn raises for the same mistakes: ShapeError (ValueError), MisfitError
        (RuntimeError), RuntimeError.
    Numerics: as torch.nn up to rounding.
    Source: `torch.nn.GRUCell`; Krueger et al. 2017 for zoneout, Ba et al. 2016 for layer normalization.
    """

    mode = "GRU"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        reset_after: bool = True,
        zoneout: float | tuple[float, float] = 0.0,
        layer_norm: bool = False,
    ) -> None:
        torch.nn.GRUCell.__init__(self, input_size, hidden_size, bias, device, dtype)
        self._take({"reset_after": reset_after, "zoneout": zoneout, "layer_norm": layer_norm}, device, dtype)
