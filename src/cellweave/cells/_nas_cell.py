"""NASCell."""

from __future__ import annotations

from typing import Any

import torch

from cellweave._checks import check_positive_int
from cellweave._types import Nest
from cellweave.cells._registry import register
from cellweave.cells._spec_cell import SteppedCell, pair_of
from cellweave.ops.nas import nas_step
from cellweave.specs import LSTMStateTuple, NASSpec


@register
class NASCell(SteppedCell):
    """The recurrent cell that neural architecture search found.

    Eight parts of `x kernel` and of `m recurrent_kernel + bias` meet in a fixed tree of tanh, sigmoid and relu:

        a0, a2, a5, a7 = sigmoid(x + s);  a1 = relu(x1 + s1);  a3 = relu(x3*s3);  a4, a6 = tanh(x + s)
        c' = tanh(tanh(a0*a1) + c)*tanh(a2 + a3)
        m' = tanh(c'*tanh(tanh(a4*a5) + sigmoid(a6 + a7))), times projection_weights

    Args:
        num_units: Units H.
        num_proj: Width P of the projected output; None: no projection.
        use_bias: Add a bias to what comes from the state.
        reuse: Share existing variables: True, or AUTO_REUSE to create or share. Needs a store.
        kwargs: `name`, `dtype`, `trainable`.
    Shapes: inputs `[B, I]`, output `[B, P]` (P = H without projection), state `LSTMStateTuple(c [B, H], m [B, P])`,
        `recurrent_kernel` `[P, 8H]`, `kernel` `[I, 8H]`, `bias` `[8H]`, `projection_weights` `[H, P]`.
    Raises:
        ArgumentError: a size that is not positive.
    Source: Zoph & Le 2017; TF1 `tf.contrib.rnn.NASCell`.
    """

    _spec: NASSpec
    spec = SteppedCell.spec  # below this class, what changes a step needs its own

    def __init__(
        self, num_units: int, num_proj: int | None = None, use_bias: bool = False, reuse: Any = None, **kwargs: Any
    ) -> None:
        units = check_positive_int("NASCell num_units", num_units)
        width = None if num_proj is None else check_positive_int("NASCell num_proj", num_proj)
        super().__init__(NASSpec(units, width, bool(use_bias)), _reuse=reuse, **kwargs)

    def call(self, inputs: torch.Tensor, state: Nest) -> tuple[torch.Tensor, LSTMStateTuple]:
        """One step: m' and the new state."""
        c, m = pair_of(state, self.where)
        self._checked(inputs, **{"state c": (c, self._spec.units), "state m": (m, self._spec.output_size)})
        c, m = nas_step(inputs, c, m, self.named_weights())
        return m, LSTMStateTuple(c, m)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments as plain data."""
        return {
            **super().get_config(),
            "num_units": self._spec.units,
            "num_proj": self._spec.projection,
            "use_bias": self._spec.use_bias,
            "reuse": self._reuse,
        }
