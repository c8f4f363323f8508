"""IndyLSTMCell."""

from __future__ import annotations

from typing import Any

import torch

from cellweave._checks import check_number, check_positive_int
from cellweave._types import DTypeLike, Nest
from cellweave.cells._registry import register
from cellweave.cells._spec_cell import SteppedCell, pair_of
from cellweave.initializers import RandomUniform, deserialize, serialize
from cellweave.ops.common import activation_name, as_activation
from cellweave.ops.indrnn import indy_lstm_step
from cellweave.specs import IndyLSTMSpec, LSTMStateTuple, WeightSpec


@register
class IndyLSTMCell(SteppedCell):
    """The long short-term memory whose units see their own state only.

        i, j, f, o = split(x kernel_w + kernel_u*[h, h, h, h] + bias)
        c' = c*sigmoid(f + forget_bias) + sigmoid(i)*act(j);  h' = act(c')*sigmoid(o)

    Args:
        num_units: Units H.
        forget_bias: Added to the forget gate when run, never stored; default 1.
        activation: A function or its name; default tanh.
        reuse: Share existing variables: True, or AUTO_REUSE to create or share. Needs a store.
        kernel_initializer: Of what the inputs meet; default: the scope's, else Glorot uniform.
        bias_initializer: Of the bias; default: zeros.
        name: Name of the cell and its scope; default: scope `indy_lstm_cell`, name `indy_lstm_cell_1` and so on.
        dtype: Dtype of the weights; default: the first input's.
    Shapes: inputs `[B, I]`, output `[B, H]`, state `LSTMStateTuple(c, h)`, `kernel_w` `[I, 4H]`, `kernel_u` `[1, 4H]`,
        `bias` `[4H]`.
    Raises:
        ArgumentError: a size that is not positive, an unknown activation.
    Source: Gonnet & Deselaers 2019; TF1 `tf.contrib.rnn.IndyLSTMCell`.
    """

    _spec: IndyLSTMSpec
    spec = SteppedCell.spec  # below this class, what changes a step needs its own

    def __init__(
        self,
        num_units: int,
        forget_bias: float = 1.0,
        activation: Any = None,
        reuse: Any = None,
        kernel_initializer: Any = None,
        bias_initializer: Any = None,
        name: str | None = None,
        dtype: DTypeLike = None,
        **kwargs: Any,
    ) -> None:
        units = check_positive_int("IndyLSTMCell num_units", num_units)
        spec = IndyLSTMSpec(
            units, as_activation(activation, "IndyLSTMCell"), check_number("IndyLSTMCell forget_bias", forget_bias)
        )
        super().__init__(spec, name=name, dtype=dtype, _reuse=reuse, **kwargs)
        self._kernel_initializer = deserialize(kernel_initializer, "IndyLSTMCell")
        self._bias_initializer = deserialize(bias_initializer, "IndyLSTMCell")

    def _initializer_of(self, weight: WeightSpec) -> Any:
        if weight.kind == "recurrent_kernel":
            return RandomUniform(-1.0, 1.0)
        return self._bias_initializer if weight.kind == "bias" else self._kernel_initializer

    def call(self, inputs: torch.Tensor, state: Nest) -> tuple[torch.Tensor, LSTMStateTuple]:
        """One step: h' and the new state."""
        c, h = pair_of(state, self.where)
        self._checked(inputs, **{"state c": (c, self._spec.units), "state h": (h, self._spec.units)})
        c, h = indy_lstm_step(inputs, c, h, self.named_weights(), spec=self._spec)
        return h, LSTMStateTuple(c, h)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments as plain data."""
        return {
            **super().get_config(),
            "num_units": self._spec.units,
            "forget_bias": self._spec.forget_bias,
            "activation": activation_name(self._spec.activation),
            "kernel_initializer": serialize(self._kernel_initializer),
            "bias_initializer": serialize(self._bias_initializer),
            "reuse": self._reuse,
        }
