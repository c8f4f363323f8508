"""RNN."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cellweave._errors import ArgumentError
from cellweave.nn._additions import Arguments
from cellweave.nn._base import RecurrentModule

if TYPE_CHECKING:
    from typing_extensions import Unpack

_MODES = {"tanh": "RNN_TANH", "relu": "RNN_RELU"}


class RNN(RecurrentModule):
    """LONGDOC"""

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
        if nonlinearity not in _MODES:
            raise ArgumentError(f"RNN: expected nonlinearity 'tanh' or 'relu', got {nonlinearity!r}.")
        super().__init__(
            _MODES[nonlinearity], input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0,
            device, dtype, given=additions, known=Arguments,
        )  # fmt: skip
        self.nonlinearity = nonlinearity
