"""BasicLSTMCell."""

from __future__ import annotations

from typing import Any

from cellweave._checks import check_number, check_positive_int
from cellweave._types import DTypeLike
from cellweave.cells._lstm_core import LSTMCore
from cellweave.cells._registry import register
from cellweave.ops.common import activation_name, as_activation
from cellweave.specs import LSTMSpec


@register
class BasicLSTMCell(LSTMCore):
    """The long short-term memory without options.

        i, j, f, o = split([x, h] kernel + bias)
        c' = c*sigmoid(f + forget_bias) + sigmoid(i)*act(j);  h' = act(c')*sigmoid(o)

    Args:
        num_units: Units H.
        forget_bias: Added to the forget gate when run, never stored; default 1.
        state_is_tuple: State as `LSTMStateTuple(c, h)`, else one tensor `[B, 2H]` with c first.
        activation: A function or its name; default tanh.
        reuse: Share existing variables: True, or AUTO_REUSE to create or share. Needs a store.
        name: Name of the cell and its scope; default: scope `basic_lstm_cell`, name `basic_lstm_cell_1` and so on.
        dtype: Dtype of the weights; default: the first input's.
    Shapes: inputs `[B, I]`, output `[B, H]`, `kernel` `[I + H, 4H]` in order i, j, f, o, `bias` `[4H]`.
    Raises:
        ArgumentError: unknown activation, or a dtype that weights cannot have.
    Source: Hochreiter & Schmidhuber 1997; TF1 `tf.nn.rnn_cell.BasicLSTMCell`.
    """

    spec = LSTMCore.spec  # below this class, what changes a step needs its own

    def __init__(
        self,
        num_units: int,
        forget_bias: float = 1.0,
        state_is_tuple: bool = True,
        activation: Any = None,
        reuse: Any = None,
        name: str | None = None,
        dtype: DTypeLike = None,
        **kwargs: Any,
    ) -> None:
        units = check_positive_int("BasicLSTMCell num_units", num_units)
        spec = LSTMSpec(
            units,
            as_activation(activation, "BasicLSTMCell"),
            forget_bias=check_number("BasicLSTMCell forget_bias", forget_bias),
        )
        super().__init__(spec, state_is_tuple, name=name, dtype=dtype, _reuse=reuse, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments as plain data."""
        return {
            **super().get_config(),
            "num_units": self._spec.units,
            "forget_bias": self._spec.forget_bias,
            "state_is_tuple": self._state_is_tuple,
            "activation": activation_name(self._spec.activation),
            "reuse": self._reuse,
        }
