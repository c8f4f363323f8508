"""TimeReversedFusedRNN."""

from __future__ import annotations

from typing import Any

from cellweave._errors import ArgumentTypeError
from cellweave._types import DTypeLike, Nest
from cellweave.layers._bidirectional_rnn import check_within
from cellweave.layers._fused_rnn_cell import FusedRNNCell
from cellweave.layers._sequence import as_lengths, reverse_sequence
from cellweave.scopes import VariableScope, recordable


class TimeReversedFusedRNN(FusedRNNCell):
    """Runs a fused cell backwards in time; its outputs stand at the inputs that they belong to.

    Each row's first `sequence_length[b]` steps are read from their end. A list of steps is turned as a whole, also
    where rows have lengths of their own: as in TF1.

    Args:
        cell: A fused cell: `LSTMBlockFusedCell`, `FusedRNNCellAdaptor`, or anything that is called like them.
    Shapes: inputs `[T, B, I]` or a list of T tensors `[B, I]`; outputs in the same form.
    Raises:
        ArgumentTypeError: `cell` cannot be called. In a call: as the cell; ArgumentError: lengths outside 0..T.
    Source: TF1 `tf.contrib.rnn.TimeReversedFusedRNN`.
    """

    cell: Any

    def __init__(self, cell: Any) -> None:
        super().__init__()
        if not callable(cell):
            raise ArgumentTypeError(f"TimeReversedFusedRNN: expected a fused cell, got {cell!r}.")
        self.cell = cell

    def forward(
        self,
        inputs: Any,
        initial_state: Nest = None,
        dtype: DTypeLike = None,
        sequence_length: Any = None,
        scope: str | VariableScope | None = None,
    ) -> tuple[Any, Any]:
        """Run the fused cell over the turned sequence."""
        turned = _turned(inputs, sequence_length)
        outputs, state = self.cell(
            turned, initial_state=initial_state, dtype=dtype, sequence_length=sequence_length, scope=scope
        )
        return _turned(outputs, sequence_length), state


@recordable
def _turned(values: Any, sequence_length: Any) -> Any:
    if isinstance(values, list):
        return values[::-1]
    lengths = as_lengths(sequence_length, values.shape[1], "TimeReversedFusedRNN")
    check_within(lengths, values.shape[0], "TimeReversedFusedRNN")
    return reverse_sequence(values, lengths)
