"""GRU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cellweave.nn._additions import GRUArguments
from cellweave.nn._base import RecurrentModule

if TYPE_CHECKING:
    from typing_extensions import Unpack


class GRU(RecurrentModule):
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
        device: Any = None,
        dtype: Any = None,
        **additions: Unpack[GRUArguments],
    ) -> None:
        super().__init__(
            "GRU", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0, device, dtype,
            given=additions, known=GRUArguments,
        )  # fmt: skip
