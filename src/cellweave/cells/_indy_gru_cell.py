"""IndyGRUCell."""

from __future__ import annotations

from typing import Any

import torch

from cellweave._checks import check_positive_int
from cellweave._types import DTypeLike
from cellweave.cells._registry import register
from cellweave.cells._spec_cell import SteppedCell
from cellweave.initializers import RandomUniform, deserialize, serialize
from cellweave.ops.common import activation_name, as_activation
from cellweave.ops.indrnn import indy_gru_step
from cellweave.specs import IndyGRUSpec, WeightSpec


@register
class IndyGRUCell(SteppedCell):
    """The gated recurrent unit whose units see their own state only.

        r, u = sigmoid(x gates_kernel_w + gates_kernel_u*[h, h] + gates_bias)
        k = act(x candidate_kernel + candidate_kernel_u*(r*h) + candidate_bias);  h' = u*h + (1 - u)*k

    Args:
        num_units: Units H.
        activation: A function or its name; default tanh.
        reuse: Share existing variables: True, or AUTO_REUSE to create or share. Needs a store.
        kernel_initializer: Of what the inputs meet; default: the scope's, else Glorot uniform.
        bias_initializer: Of both biases; default: ones for the gates, zeros for the candidate.
        name: Name of the cell and its scope; default: scope `indy_gru_cell`, name `indy_gru_cell_1` and so on.
        dtype: Dtype of the weights; default: the first input's.
    Shapes: inputs `[B, I]`, state and output `[B, H]`, `gates_kernel_w` `[I, 2H]` (reset, update), `gates_kernel_u`
        `[1, 2H]`, `gates_bias` `[2H]`, `candidate_kernel` `[I, H]`, `candidate_kernel_u` `[1, H]`, `candidate_bias`
        `[H]`.
    Raises:
        ArgumentError: a size that is not positive, an unknown activation.
    Source: Li et al. 2018; TF1 `tf.contrib.rnn.IndyGRUCell`.
    """

    _spec: IndyGRUSpec
    spec = SteppedCell.spec  # below this class, what changes a step needs its own

    def __init__(
        self,
        num_units: int,
        activation: Any = None,
        reuse: Any = None,
        kernel_initializer: Any = None,
        bias_initializer: Any = None,
        name: str | None = None,
        dtype: DTypeLike = None,
        **kwargs: Any,
    ) -> None:
        units = check_positive_int("IndyGRUCell num_units", num_units)
        spec = IndyGRUSpec(units, as_activation(activation, "IndyGRUCell"))
        super().__init__(spec, name=name, dtype=dtype, _reuse=reuse, **kwargs)
        self._kernel_initializer = deserialize(kernel_initializer, "IndyGRUCell")
        self._bias_initializer = deserialize(bias_initializer, "IndyGRUCell")

    def _initializer_of(self, weight: WeightSpec) -> Any:
        if weight.kind == "recurrent_kernel":
            return RandomUniform(-1.0, 1.0)
        return self._bias_initializer if weight.kind == "bias" else self._kernel_initializer

    def call(self, inputs: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One step: the new state, as output and as state."""
        self._checked(inputs, state=(state, self._spec.units))
        output = indy_gru_step(inputs, state, self.named_weights(), spec=self._spec)
        return output, output

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments as plain data."""
        return {
            **super().get_config(),
            "num_units": self._spec.units,
            "activation": activation_name(self._spec.activation),
            "kernel_initializer": serialize(self._kernel_initializer),
            "bias_initializer": serialize(self._bias_initializer),
            "reuse": self._reuse,
        }
