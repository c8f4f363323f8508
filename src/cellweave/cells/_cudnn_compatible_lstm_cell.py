"""CudnnCompatibleLSTMCell."""

from __future__ import annotations

from typing import Any

from cellweave._checks import check_positive_int
from cellweave._types import DTypeLike
from cellweave.cells._lstm_core import LSTMCore
from cellweave.cells._registry import register
from cellweave.specs import LSTMSpec


@register
class CudnnCompatibleLSTMCell(LSTMCore):
    """One step of what `CudnnLSTM` computes: an LSTM without forget bias, under the names of its checkpoints.

        i, j, f, o = split([x, h] kernel + bias)
        c' = c*sigmoid(f) + sigmoid(i)*tanh(j);  h' = tanh(c')*sigmoid(o)

    Args:
        num_units: Units H.
        reuse: Share existing variables: True, or AUTO_REUSE to create or share. Needs a store.
        name: Name of the cell and its scope; default: scope `cudnn_compatible_lstm_cell`,
            name `cudnn_compatible_lstm_cell_1` and so on.
        dtype: Dtype of the weights; default: the first input's.
    Shapes: inputs `[B, I]`, state `LSTMStateTuple(c, h)` and output `[B, H]`, `kernel` `[I + H, 4H]` in order
        i, j, f, o, `bias` `[4H]`: the sum of cuDNN's two.
    Source: TF1 `tf.contrib.cudnn_rnn.CudnnCompatibleLSTMCell`.
    """

    spec = LSTMCore.spec  # below this class, what changes a step needs its own

    def __init__(
        self, num_units: int, reuse: Any = None, name: str | None = None, dtype: DTypeLike = None, **kwargs: Any
    ) -> None:
        spec = LSTMSpec(check_positive_int("CudnnCompatibleLSTMCell num_units", num_units))
        super().__init__(spec, True, name=name, dtype=dtype, _reuse=reuse, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments as plain data."""
        return {**super().get_config(), "num_units": self._spec.units, "reuse": self._reuse}
