"""IndRNNCell."""

from __future__ import annotations

from typing import Any

import torch

from cellweave._checks import check_positive_int
from cellweave._types import DTypeLike
from cellweave.cells._registry import register
from cellweave.cells._spec_cell import SteppedCell
from cellweave.initializers import RandomUniform
from cellweave.ops.common import activation_name, as_activation
from cellweave.ops.indrnn import indrnn_step
from cellweave.specs import IndRNNSpec, WeightSpec


@register
class IndRNNCell(SteppedCell):
    """The independently recurrent network: each unit sees its own state only.

        h' = act(x kernel_w + kernel_u*h + bias)

    Args:
        num_units: Units H.
        activation: A function or its name; default tanh.
        reuse: Share existing variables: True, or AUTO_REUSE to create or share. Needs a store.
        name: Name of the cell and its scope; default: scope `ind_rnn_cell`, name `ind_rnn_cell_1` and so on.
        dtype: Dtype of the weights; default: the first input's.
    Shapes: inputs `[B, I]`, state and output `[B, H]`, `kernel_w` `[I, H]`, `kernel_u` `[1, H]`, `bias` `[H]`.
    Raises:
        ArgumentError: a size that is not positive, an unknown activation.
    Source: Li et al. 2018; TF1 `tf.contrib.rnn.IndRNNCell`.
    """

    _spec: IndRNNSpec
    spec = SteppedCell.spec  # below this class, what changes a step needs its own

    def __init__(
        self,
        num_units: int,
        activation: Any = None,
        reuse: Any = None,
        name: str | None = None,
        dtype: DTypeLike = None,
        **kwargs: Any,
    ) -> None:
        units = check_positive_int("IndRNNCell num_units", num_units)
        spec = IndRNNSpec(units, as_activation(activation, "IndRNNCell"))
        super().__init__(spec, name=name, dtype=dtype, _reuse=reuse, **kwargs)

    def _initializer_of(self, weight: WeightSpec) -> Any:
        if weight.kind == "recurrent_kernel":
            return RandomUniform(-1.0, 1.0)
        return None

    def call(self, inputs: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One step: the new state, as output and as state."""
        self._checked(inputs, state=(state, self._spec.units))
        output = indrnn_step(inputs, state, self.named_weights(), spec=self._spec)
        return output, output

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments as plain data."""
        return {
            **super().get_config(),
            "num_units": self._spec.units,
            "activation": activation_name(self._spec.activation),
            "reuse": self._reuse,
        }
