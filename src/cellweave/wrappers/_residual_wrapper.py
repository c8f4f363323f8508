"""ResidualWrapper."""

from __future__ import annotations

from typing import Any

from cellweave.cells import register
from cellweave.wrappers._base import CellWrapper
from cellweave.wrappers._residual import ResidualBehavior


@register
class ResidualWrapper(ResidualBehavior, CellWrapper):
    """Adds a cell's inputs to its outputs; the state passes through.

    Args:
        cell: Any recurrent cell.
        residual_fn: `residual_fn(inputs, outputs)`; default: the sum, leaf by leaf, of equal shapes. With a function of
            your own the sizes may differ; `output_size` stays the cell's.
    Raises:
        ArgumentTypeError: no cell, or a `residual_fn` that cannot be called. In a call, ShapeError: shapes differ.
    Source: Wu et al. 2016; TF1 `tf.nn.rnn_cell.ResidualWrapper`.
    """

    def __init__(self, cell: Any, residual_fn: Any = None, **kwargs: Any) -> None:
        super().__init__(cell, **kwargs)
        self._init_residual(residual_fn)
