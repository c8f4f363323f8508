"""IntersectionRNNCell."""

from __future__ import annotations

from typing import Any

import torch

from cellweave._checks import check_number, check_positive_int
from cellweave._errors import ShapeError
from cellweave.cells._registry import register
from cellweave.cells._spec_cell import SteppedCell
from cellweave.initializers import deserialize, serialize
from cellweave.ops.common import activation_name, as_activation
from cellweave.ops.intersection import intersection_step
from cellweave.specs import IntersectionSpec, WeightSpec


@register
class IntersectionRNNCell(SteppedCell):
    """The intersection RNN, or +RNN: gates through time and through depth, for deep stacks.

        a, k, d, y = split([x, h] kernel + bias);  a = sigmoid(a + forget_bias);  d = sigmoid(d + forget_bias)
        h' = a*h + (1 - a)*tanh(k);  output = d*x + (1 - d)*act(y)

    Inputs of another width than the units are projected first, `x in_projection_kernel + in_projection_bias`.

    Args:
        num_units: Units H.
        num_in_proj: Whether inputs of another width may be projected: None or 0: they may not. Its size has no effect.
        initializer: Of the kernels; default: the scope's, else Glorot uniform.
        forget_bias: Added to both gates when run, never stored; default 1.
        y_activation: Of y; a function or its name; default relu.
        reuse: Share existing variables: True, or AUTO_REUSE to create or share. Needs a store.
        kwargs: `name`, `dtype`, `trainable`.
    Shapes: inputs `[B, I]`, state and output `[B, H]`, `kernel` `[2H, 4H]`, `bias` `[4H]`, `in_projection_kernel`
        `[I, H]`, `in_projection_bias` `[H]`.
    Raises:
        ArgumentError: a size that is not positive, an unknown activation. ShapeError: I is not H, and no `num_in_proj`.
    Source: Collins et al. 2017; TF1 `tf.contrib.rnn.IntersectionRNNCell`.
    """

    _spec: IntersectionSpec
    _call_forgets_names = True  # a plain `RNNCell` in TF1
    _stepped_because = "its output is not its state"
    spec = SteppedCell.spec  # below this class, what changes a step needs its own

    def __init__(
        self,
        num_units: int,
        num_in_proj: int | None = None,
        initializer: Any = None,
        forget_bias: float = 1.0,
        y_activation: Any = "relu",
        reuse: Any = None,
        **kwargs: Any,
    ) -> None:
        where = "IntersectionRNNCell"
        units = check_positive_int(f"{where} num_units", num_units)
        activation = as_activation("relu" if y_activation is None else y_activation, where)
        spec = IntersectionSpec(units, activation, check_number("IntersectionRNNCell forget_bias", forget_bias))
        super().__init__(spec, _reuse=reuse, **kwargs)
        self._num_in_proj = num_in_proj
        self._initializer = deserialize(initializer, where)

    def _initializer_of(self, weight: WeightSpec) -> Any:
        return None if weight.kind == "bias" else self._initializer

    def _make_weights(self, depth: int) -> None:
        if depth != self._spec.units and not self._num_in_proj:
            raise ShapeError(
                f"{self.where}: expected inputs [B, {self._spec.units}], as wide as its units, got depth {depth}. "
                "Give num_in_proj to project them."
            )
        if depth == self._spec.units:
            self._input_weight, self._other_rows = "kernel", self._spec.units
        super()._make_weights(depth)

    def named_weights(self) -> dict[str, torch.Tensor]:
        """The weights by the names of the spec, those of the projection where it has one."""
        projects = self._input_weight != "kernel"
        names = self._weight_names if projects else self._weight_names[2:]
        return {name: getattr(self, attribute) for name, attribute in names}

    def _weight_attributes(self) -> tuple[str, ...]:
        return ()  # whether there is a projection, the width of the inputs decides

    def call(self, inputs: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One step: the output and the new state."""
        self._checked(inputs, state=(state, self._spec.units))
        return intersection_step(inputs, state, self.named_weights(), spec=self._spec)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments as plain data."""
        return {
            **super().get_config(),
            "num_units": self._spec.units,
            "num_in_proj": self._num_in_proj,
            "initializer": serialize(self._initializer),
            "forget_bias": self._spec.forget_bias,
            "y_activation": activation_name(self._spec.activation),
            "reuse": self._reuse,
        }
