"""Keras-style LSTMCell."""

from __future__ import annotations

from typing import Any

import torch

from cellweave._checks import check_positive_int
from cellweave._types import DTypeLike, Nest, Size
from cellweave.cells._keras_cell import KerasCell, keras_activation
from cellweave.cells._registry import register
from cellweave.cells._spec_cell import pair_of
from cellweave.ops.lstm import lstm_step
from cellweave.specs import LSTMSpec


@register
class LSTMCell(KerasCell):
    """The long short-term memory with separate kernels; gates in order i, f, j (candidate), o; state `[h, c]`.

        i, f, j, o = split(x kernel + h recurrent_kernel + bias)
        c' = sigmoid(f)*c + sigmoid(i)*act(j);  h' = sigmoid(o)*act(c')

    Args:
        units: Units H.
        activation, recurrent_activation: Functions or names; None: none.
        use_bias: Whether there is a bias.
        kernel_initializer, recurrent_initializer, bias_initializer: Default Glorot uniform, orthogonal, zeros.
        unit_forget_bias: The stored bias starts at one for the forget gate; default True.
        kernel_regularizer, ..., bias_constraint: Functions of the weight.
        dropout, recurrent_dropout: Only 0; use `RNNCellDropoutWrapper`.
        implementation: Accepted for Keras callers, without effect.
        name, dtype, trainable: As `Layer`; dtype defaults to float32.
    Shapes: inputs `[B, I]`, states and output `[B, H]`, `kernel` `[I, 4H]`, `recurrent_kernel` `[H, 4H]`, `bias`
        `[4H]`.
    Source: Hochreiter & Schmidhuber 1997; Keras `LSTMCell`.
    """

    _spec: LSTMSpec
    state_order = "hc"
    spec = KerasCell.spec  # below this class, what changes a step needs its own

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        implementation: int = 2,
        name: str | None = None,
        dtype: DTypeLike = None,
        trainable: bool = True,
        **kwargs: Any,
    ) -> None:
        spec = LSTMSpec(
            check_positive_int("LSTMCell units", units),
            keras_activation(activation, "LSTMCell"),
            keras_activation(recurrent_activation, "LSTMCell"),
            gate_order="ifjo",
            joined_kernel=False,
            use_bias=bool(use_bias),
            unit_forget_bias=bool(unit_forget_bias),
        )
        super().__init__(
            spec, kernel_initializer, recurrent_initializer, bias_initializer, dropout, recurrent_dropout,
            {"kernel": kernel_regularizer, "recurrent_kernel": recurrent_regularizer, "bias": bias_regularizer},
            {"kernel": kernel_constraint, "recurrent_kernel": recurrent_constraint, "bias": bias_constraint},
            name, dtype, trainable, **kwargs,
        )  # fmt: skip
        self._implementation = implementation

    @property
    def state_size(self) -> Size:
        """`[H, H]`: h, then c."""
        return [self._spec.units, self._spec.units]

    def call(self, inputs: torch.Tensor, states: Nest) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """One step: h', and `[h', c']`."""
        h, c = pair_of(states, self.where)
        self._checked(inputs, **{"state h": (h, self._spec.units), "state c": (c, self._spec.units)})
        weights = {"kernel": self.kernel, "recurrent_kernel": self.recurrent_kernel}
        if self._spec.use_bias:
            weights["bias"] = self.bias
        new_c, new_h = lstm_step(inputs, c, h, weights, spec=self._spec)
        return new_h, [new_h, new_c]

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments as plain data."""
        more = {"unit_forget_bias": self._spec.unit_forget_bias, "implementation": self._implementation}
        return {**super().get_config(), **more}
