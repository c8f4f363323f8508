"""GRUCell."""

from __future__ import annotations

from typing import Any

import torch

from cellweave.nn._single_step import SingleStep


class GRUCell(SingleStep, torch.nn.GRUCell):
    """LONGDOC"""

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
    ) -> None:
        torch.nn.GRUCell.__init__(self, input_size, hidden_size, bias, device, dtype)
        self._take({"reset_after": reset_after})
