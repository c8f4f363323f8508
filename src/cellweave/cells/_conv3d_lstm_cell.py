"""Conv3DLSTMCell."""

from __future__ import annotations

from typing import Any

from cellweave.cells._conv_lstm_cell import ConvLSTMCell
from cellweave.cells._registry import register


@register
class Conv3DLSTMCell(ConvLSTMCell):
    """The convolutional long short-term memory over three axes of space.

    Args:
        name: Name of the cell and its scope; default `conv_3d_lstm_cell`.
        kwargs: The arguments of `ConvLSTMCell` after `conv_ndims`, by name.
    Source: Shi et al. 2015; TF1 `tf.contrib.rnn.Conv3DLSTMCell`.
    """

    def __init__(self, name: str | None = "conv_3d_lstm_cell", **kwargs: Any) -> None:
        kwargs.pop("conv_ndims", None)  # a config has it
        super().__init__(conv_ndims=3, name=name, **kwargs)
