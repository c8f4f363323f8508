"""SRUCell."""

from __future__ import annotations

from typing import Any

import torch

from cellweave._checks import check_positive_int
from cellweave.cells._registry import register
from cellweave.cells._spec_cell import SteppedCell
from cellweave.ops.common import activation_name, as_activation
from cellweave.ops.sru import sru_step
from cellweave.specs import SRUSpec


@register
class SRUCell(SteppedCell):
    """The simple recurrent unit: its state meets no matrix.

        z, f, r, x~ = split(x kernel);  f, r = sigmoid([f, r] + bias)
        c' = f*c + (1 - f)*z;  output = r*act(c') + (1 - r)*x~

    Args:
        num_units: Units H.
        activation: A function or its name; default tanh.
        reuse: Share existing variables: True, or AUTO_REUSE to create or share. Needs a store.
        name: Name of the cell and its scope; default: scope `sru_cell`, name `sru_cell_1` and so on.
        kwargs: `dtype`, `trainable`.
    Shapes: inputs `[B, I]`, output `[B, H]`, state c `[B, H]`, `kernel` `[I, 4H]` in order z, f, r, x~, `bias` `[2H]`.
    Raises:
        ArgumentError: a size that is not positive, an unknown activation.
    Source: Lei et al. 2017; TF1 `tf.contrib.rnn.SRUCell`.
    """

    _spec: SRUSpec
    _stepped_because = "its output is not its state"
    spec = SteppedCell.spec  # below this class, what changes a step needs its own

    def __init__(
        self, num_units: int, activation: Any = None, reuse: Any = None, name: str | None = None, **kwargs: Any
    ) -> None:
        units = check_positive_int("SRUCell num_units", num_units)
        super().__init__(SRUSpec(units, as_activation(activation, "SRUCell")), name=name, _reuse=reuse, **kwargs)

    def call(self, inputs: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One step: the output and the new state."""
        self._checked(inputs, state=(state, self._spec.units))
        return sru_step(inputs, state, *self.named_weights().values(), spec=self._spec)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments as plain data."""
        return {
            **super().get_config(),
            "num_units": self._spec.units,
            "activation": activation_name(self._spec.activation),
            "reuse": self._reuse,
        }
