"""UGRNNCell."""

from __future__ import annotations

from typing import Any

import torch

from cellweave._checks import check_number, check_positive_int
from cellweave.cells._registry import register
from cellweave.cells._spec_cell import SteppedCell
from cellweave.initializers import deserialize, serialize
from cellweave.ops.common import activation_name, as_activation
from cellweave.ops.ugrnn import ugrnn_step
from cellweave.specs import UGRNNSpec, WeightSpec


@register
class UGRNNCell(SteppedCell):
    """The update gate RNN: one gate between a plain cell's new state and the old one.

        g, k = split([x, h] kernel + bias);  g = sigmoid(g + forget_bias);  h' = g*h + (1 - g)*act(k)

    Args:
        num_units: Units H.
        initializer: Of the kernel; default: the scope's, else Glorot uniform.
        forget_bias: Added to the gate when run, never stored; default 1.
        activation: A function or its name; default tanh.
        reuse: Share existing variables: True, or AUTO_REUSE to create or share. Needs a store.
        kwargs: `name`, `dtype`, `trainable`.
    Shapes: inputs `[B, I]`, state and output `[B, H]`, `kernel` `[I + H, 2H]`, gate columns first, `bias` `[2H]`.
    Raises:
        ArgumentError: a size that is not positive, an unknown activation.
    Source: Collins et al. 2017; TF1 `tf.contrib.rnn.UGRNNCell`.
    """

    _call_forgets_names = True  # a plain `RNNCell` in TF1
    _spec: UGRNNSpec
    spec = SteppedCell.spec  # below this class, what changes a step needs its own

    def __init__(
        self,
        num_units: int,
        initializer: Any = None,
        forget_bias: float = 1.0,
        activation: Any = "tanh",
        reuse: Any = None,
        **kwargs: Any,
    ) -> None:
        units = check_positive_int("UGRNNCell num_units", num_units)
        spec = UGRNNSpec(
            units, as_activation(activation, "UGRNNCell"), check_number("UGRNNCell forget_bias", forget_bias)
        )
        super().__init__(spec, _reuse=reuse, **kwargs)
        self._initializer = deserialize(initializer, "UGRNNCell")

    def _initializer_of(self, weight: WeightSpec) -> Any:
        return None if weight.kind == "bias" else self._initializer

    def call(self, inputs: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One step: the new state, as output and as state."""
        self._checked(inputs, state=(state, self._spec.units))
        output = ugrnn_step(inputs, state, *self.named_weights().values(), spec=self._spec)
        return output, output

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments as plain data."""
        return {
            **super().get_config(),
            "num_units": self._spec.units,
            "initializer": serialize(self._initializer),
            "forget_bias": self._spec.forget_bias,
            "activation": activation_name(self._spec.activation),
            "reuse": self._reuse,
        }
