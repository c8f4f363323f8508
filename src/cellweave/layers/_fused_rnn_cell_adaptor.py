"""FusedRNNCellAdaptor."""

from __future__ import annotations

from typing import Any

import torch

from cellweave._types import DTypeLike, Nest
from cellweave.cells import require_rnn_cell
from cellweave.layers._dynamic_rnn import dynamic_rnn
from cellweave.layers._fused_rnn_cell import FusedRNNCell, in_form_of, stacked
from cellweave.layers._static_rnn import static_rnn
from cellweave.scopes import VariableScope


class FusedRNNCellAdaptor(FusedRNNCell):
    """Makes a fused cell of a cell: `layer(inputs, initial_state, dtype, sequence_length, scope)`, time major.

    Args:
        cell: Any recurrent cell.
        use_dynamic_rnn: Unroll by `dynamic_rnn`, else by `static_rnn`.
    Shapes: inputs `[T, B, I]` or a list of T tensors `[B, I]`; outputs in the same form.
    Raises:
        ArgumentTypeError: no cell. In a call: as the unroll.
    Source: TF1 `tf.contrib.rnn.FusedRNNCellAdaptor`.
    """

    cell: Any

    def __init__(self, cell: Any, use_dynamic_rnn: bool = False) -> None:
        super().__init__()
        require_rnn_cell("FusedRNNCellAdaptor", cell)
        self.cell = cell
        self._use_dynamic_rnn = bool(use_dynamic_rnn)

    def forward(
        self,
        inputs: Any,
        initial_state: Nest = None,
        dtype: DTypeLike = None,
        sequence_length: Any = None,
        scope: str | VariableScope | None = None,
    ) -> tuple[Any, Any]:
        """Run the cell over a sequence; variables go below `scope`, default "rnn"."""
        if self._use_dynamic_rnn:
            outputs, state = dynamic_rnn(
                self.cell, stacked(inputs), sequence_length, initial_state, dtype, time_major=True, scope=scope
            )
            return in_form_of(inputs, outputs), state
        steps = inputs if isinstance(inputs, list) else list(inputs.unbind(0))
        outputs, state = static_rnn(self.cell, steps, initial_state, dtype, sequence_length, scope)
        return outputs if isinstance(inputs, list) else torch.stack(outputs), state
