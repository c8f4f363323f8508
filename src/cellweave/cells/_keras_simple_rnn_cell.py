"""Keras-style SimpleRNNCell."""

from __future__ import annotations

from typing import Any

from cellweave._checks import check_positive_int
from cellweave._types import DTypeLike
from cellweave.cells._keras_cell import KerasCell, keras_activation
from cellweave.cells._registry import register
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
    _step = staticmethod(rnn_step)
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
        spec = RNNSpec(
            check_positive_int("SimpleRNNCell units", units),
            keras_activation(activation, "SimpleRNNCell"),
            joined_kernel=False,
            use_bias=bool(use_bias),
        )
        super().__init__(
            spec, kernel_initializer, recurrent_initializer, bias_initializer, dropout, recurrent_dropout,
            {"kernel": kernel_regularizer, "recurrent_kernel": recurrent_regularizer, "bias": bias_regularizer},
            {"kernel": kernel_constraint, "recurrent_kernel": recurrent_constraint, "bias": bias_constraint},
            name, dtype, trainable, **kwargs,
        )  # fmt: skip
