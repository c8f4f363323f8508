"""LSTM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from cellweave.nn._additions import Arguments
from cellweave.nn._base import RecurrentModule

if TYPE_CHECKING:
    from typing_extensions import Unpack


class LSTM(RecurrentModule):
    """LONGDOC"""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
        **additions: Unpack[Arguments],
    ) -> None:
        super().__init__(
            "LSTM", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size, device,
            dtype, given=additions, known=Arguments,
        )  # fmt: skip

    get_expected_cell_size = torch.nn.LSTM.get_expected_cell_size
    check_forward_args = torch.nn.LSTM.check_forward_args  # type: ignore[assignment]  # so it is in torch.nn
    permute_hidden = torch.nn.LSTM.permute_hidden  # type: ignore[assignment]
