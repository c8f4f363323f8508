"""GRUCell."""

from __future__ import annotations

from typing import Any

import torch

from cellweave._checks import check_positive_int
from cellweave._types import DTypeLike
from cellweave.cells._registry import register
from cellweave.cells._spec_cell import SpecCell
from cellweave.initializers import deserialize, serialize
from cellweave.ops.common import activation_name, as_activation
from cellweave.ops.gru import gru_step
from cellweave.specs import GRUSpec, WeightSpec


@register
class GRUCell(SpecCell):
    """The gated recurrent unit with the reset gate before the candidate's product.

        r, u = sigmoid([x, h] gates_kernel + gates_bias);  c = act([x, r*h] candidate_kernel + candidate_bias)
        h' = u*h + (1 - u)*c

    The update gate u keeps the old state. Its weights do not fit a cuDNN or `torch.nn` GRU.

    Args:
        num_units: Units H.
        activation: Of the candidate; a function or its name; default tanh.
        reuse: Share existing variables: True, or AUTO_REUSE to create or share. Needs a store.
        kernel_initializer: Of both kernels; default: the scope's, else Glorot uniform.
        bias_initializer: Of both biases; default: ones for the gates, zeros for the candidate.
        name: Name of the cell and its scope; default: scope `gru_cell`, name `gru_cell_1` and so on.
        dtype: Dtype of the weights; default: the first input's.
    Shapes: inputs `[B, I]`, state and output `[B, H]`, `gates_kernel` `[I + H, 2H]` (reset, update), `gates_bias`
        `[2H]`, `candidate_kernel` `[I + H, H]`, `candidate_bias` `[H]`.
    Raises:
        ArgumentError: unknown activation, or a dtype that weights cannot have.
    Source: Cho et al. 2014; TF1 `tf.nn.rnn_cell.GRUCell`.
    """

    _spec: GRUSpec
    spec = SpecCell.spec  # below this class, what changes a step needs its own

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
        units = check_positive_int("GRUCell num_units", num_units)
        spec = GRUSpec(units, as_activation(activation, "GRUCell"))
        super().__init__(spec, name=name, dtype=dtype, _reuse=reuse, **kwargs)
        self._kernel_initializer = deserialize(kernel_initializer, "GRUCell")
        self._bias_initializer = deserialize(bias_initializer, "GRUCell")

    def _initializer_of(self, weight: WeightSpec) -> Any:
        return self._bias_initializer if weight.kind == "bias" else self._kernel_initializer

    def call(self, inputs: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One step: the new state, as output and as state."""
        self._checked(inputs, state=(state, self._spec.units))
        output = gru_step(inputs, state, *self.named_weights().values(), spec=self._spec)
        return output, output

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments as plain data."""
        return {
            **super().get_config(),
            "num_units": self._spec.units,
            "kernel_initializer": serialize(self._kernel_initializer),
            "bias_initializer": serialize(self._bias_initializer),
            "activation": activation_name(self._spec.activation),
            "reuse": self._reuse,
        }
