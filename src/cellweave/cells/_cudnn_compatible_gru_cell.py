"""CudnnCompatibleGRUCell."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from cellweave._checks import check_positive_int
from cellweave._types import DTypeLike
from cellweave.cells._registry import register
from cellweave.cells._spec_cell import SpecCell
from cellweave.initializers import deserialize, serialize
from cellweave.ops.gru import gru_split_step, gru_split_weights
from cellweave.specs import CellSpec, GRUSpec, WeightSpec


@register
class CudnnCompatibleGRUCell(SpecCell):
    """One step of what `CudnnGRU` computes, under the names of its checkpoints: the reset comes after the product.

        r, u = sigmoid([x, h] gates_kernel + gates_bias)
        c = tanh(x W_c + b_c + r*(h R_c + b'_c));  h' = u*h + (1 - u)*c

    `GRUCell` resets before the product: weights of one do not fit the other.

    Args:
        num_units: Units H.
        reuse: Share existing variables: True, or AUTO_REUSE to create or share. Needs a store.
        kernel_initializer: Of all kernels; default: the scope's, else Glorot uniform.
        name: Name of the cell and its scope; default: scope `cudnn_compatible_gru_cell`,
            name `cudnn_compatible_gru_cell_1` and so on.
        dtype: Dtype of the weights; default: the first input's.
    Shapes: inputs `[B, I]`, state and output `[B, H]`, `gates_kernel` `[I + H, 2H]` (reset, update), `gates_bias`
        `[2H]` (starts at one), `candidate_input_projection_kernel` `[I, H]`, `candidate_hidden_projection_kernel`
        `[H, H]`, and a bias `[H]` of each projection.
    Source: TF1 `tf.contrib.cudnn_rnn.CudnnCompatibleGRUCell`.
    """

    _spec: GRUSpec

    def __init__(
        self,
        num_units: int,
        reuse: Any = None,
        kernel_initializer: Any = None,
        name: str | None = None,
        dtype: DTypeLike = None,
        **kwargs: Any,
    ) -> None:
        stored = GRUSpec(check_positive_int("CudnnCompatibleGRUCell num_units", num_units), reset_after=True)
        super().__init__(stored, name=name, dtype=dtype, _reuse=reuse, **kwargs)
        self._run_spec = replace(stored, joined_kernel=False)
        self._kernel_initializer = deserialize(kernel_initializer, "CudnnCompatibleGRUCell")

    def spec(self) -> CellSpec:
        """What a step computes, as data: of weights in the layout of `named_weights`."""
        return self._run_spec

    def named_weights(self) -> dict[str, torch.Tensor]:
        """`kernel` `[I, 3H]`, `recurrent_kernel` `[H, 3H]` and `bias` `[2, 3H]`, put together from its variables."""
        return gru_split_weights(super().named_weights())

    def _initializer_of(self, weight: WeightSpec) -> Any:
        return None if weight.kind == "bias" else self._kernel_initializer

    def call(self, inputs: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One step: the new state, as output and as state."""
        self._checked(inputs, state=(state, self._spec.units))
        weights = self.named_weights()
        output = gru_split_step(inputs, state, *[weights[name] for name in weights], spec=self._run_spec)
        return output, output

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments as plain data."""
        return {
            **super().get_config(),
            "num_units": self._spec.units,
            "kernel_initializer": serialize(self._kernel_initializer),
            "reuse": self._reuse,
        }
