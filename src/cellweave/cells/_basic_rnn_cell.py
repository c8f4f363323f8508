"""BasicRNNCell."""

from __future__ import annotations

from typing import Any

import torch

from cellweave._checks import check_positive_int
from cellweave._types import DTypeLike
from cellweave.cells._registry import register
from cellweave.cells._spec_cell import SpecCell
from cellweave.ops.common import activation_name, as_activation
from cellweave.ops.rnn import rnn_step
from cellweave.specs import RNNSpec


@register
class BasicRNNCell(SpecCell):
    """The plain recurrent cell: `h' = act([x, h] kernel + bias)`; the output is the new state.

    Args:
        num_units: Units H.
        activation: A function or its name; default tanh.
        reuse: Share existing variables: True, or AUTO_REUSE to create or share. Needs a store.
        name: Name of the cell and its scope; default: scope `basic_rnn_cell`, name `basic_rnn_cell_1` and so on.
        dtype: Dtype of the weights; default: the first input's.
    Shapes: inputs `[B, I]`, state and output `[B, H]`, `kernel` `[I + H, H]`, `bias` `[H]`.
    Raises:
        ArgumentError: unknown activation, or a dtype that weights cannot have.
    Source: TF1 `tf.nn.rnn_cell.BasicRNNCell`.
    """

    _spec: RNNSpec
    spec = SpecCell.spec  # below this class, what changes a step needs its own

    def __init__(
        self,
        num_units: int,
        activation: Any = None,
        reuse: Any = None,
        name: str | None = None,
        dtype: DTypeLike = None,
        **kwargs: Any,
    ) -> None:
        units = check_positive_int("BasicRNNCell num_units", num_units)
        spec = RNNSpec(units, as_activation(activation, "BasicRNNCell"))
        super().__init__(spec, name=name, dtype=dtype, _reuse=reuse, **kwargs)

    def call(self, inputs: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One step: the new state, as output and as state."""
        self._checked(inputs, state=(state, self._spec.units))
        kernel, bias = self.named_weights().values()
        output = rnn_step(inputs, state, kernel, None, bias, spec=self._spec)
        return output, output

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments as plain data."""
        return {
            **super().get_config(),
            "num_units": self._spec.units,
            "activation": activation_name(self._spec.activation),
            "reuse": self._reuse,
        }
