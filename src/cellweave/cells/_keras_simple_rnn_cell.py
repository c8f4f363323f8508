"""Keras-style SimpleRNNCell."""

from __future__ import annotations

from typing import Any

import torch

from cellweave._types import DTypeLike, Nest
from cellweave.cells._keras_cell import KerasCell, positive_units
from cellweave.cells._registry import register
from cellweave.ops.common import as_activation
from cellweave.ops.rnn import rnn_step
from cellweave.specs import RNNSpec


@register
class SimpleRNNCell(KerasCell):
    """`h' = act(x kernel + bias + h recurrent_kernel)`, with its state as `[h]` or h.

    Args:
        units: Units H.
        activation: A function or its name; None: none.
        use_bias: Whether there is a bias.
        kernel_initializer, recurrent_initializer, bias_initializer: Default Glorot uniform, orthogonal, zeros.
        kernel_regularizer, ..., bias_constraint: Functions of the weight.
        dropout, recurrent_dropout: Only 0; use `RNNCellDropoutWrapper`.
        name, dtype, trainable: As `Layer`; dtype defaults to float32.
    Shapes: inputs `[B, I]`, state and output `[B, H]`, `kernel` `[I, H]`, `recurrent_kernel` `[H, H]`, `bias` `[H]`.
    Source: Keras `SimpleRNNCell`.
    """

    _spec: RNNSpec
    spec = KerasCell.spec  # below this class, what changes a step needs its own

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        name: str | None = None,
        dtype: DTypeLike = None,
        trainable: bool = True,
        **kwargs: Any,
    ) -> None:
        act = as_activation("linear" if activation is None else activation, "SimpleRNNCell")
        spec = RNNSpec(positive_units("SimpleRNNCell", units), act, joined_kernel=False, use_bias=bool(use_bias))
        super().__init__(
            spec, kernel_initializer, recurrent_initializer, bias_initializer, dropout, recurrent_dropout,
            {"kernel": kernel_regularizer, "recurrent_kernel": recurrent_regularizer, "bias": bias_regularizer},
            {"kernel": kernel_constraint, "recurrent_kernel": recurrent_constraint, "bias": bias_constraint},
            name, dtype, trainable, **kwargs,
        )  # fmt: skip

    def call(self, inputs: torch.Tensor, states: Nest) -> tuple[torch.Tensor, Any]:
        """One step: h', and the new state as a list if it came as one."""
        h = self._only_state(states)
        self._checked(inputs, state=(h, self._spec.units))
        new_h = rnn_step(inputs, h, self.kernel, self.recurrent_kernel, self._optional_bias(), spec=self._spec)
        return new_h, [new_h] if isinstance(states, list | tuple) else new_h

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments as plain data."""
        return {**self._common_config({"activation": self._spec.activation}), **self._tail_config()}
