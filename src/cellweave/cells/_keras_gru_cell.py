"""Keras-style GRUCell."""

from __future__ import annotations

from typing import Any

from cellweave._checks import check_positive_int
from cellweave._types import DTypeLike
from cellweave.cells._keras_cell import KerasCell, keras_activation
from cellweave.cells._registry import register
from cellweave.ops.gru import gru_split_step
from cellweave.specs import GRUSpec


@register
class GRUCell(KerasCell):
    """The gated recurrent unit with separate kernels; gates in order update, reset, candidate.

        z, r = sigmoid(x W + h R + b);  z keeps the old state:  h' = z*h + (1 - z)*c
        reset_after=True:  c = act(x W_c + b_c + r*(h R_c + b'_c))        (cuDNN's form)
        reset_after=False: c = act(x W_c + b_c + (r*h) R_c)

    Args:
        units: Units H.
        activation, recurrent_activation: Functions or names; None: none.
        use_bias: Whether there is a bias.
        kernel_initializer, recurrent_initializer, bias_initializer: Default Glorot uniform, orthogonal, zeros.
        kernel_regularizer, ..., bias_constraint: Functions of the weight.
        dropout, recurrent_dropout: Only 0; use `RNNCellDropoutWrapper`.
        implementation: Accepted for Keras callers, without effect.
        reset_after: Where the reset gate acts; default True.
        name, dtype, trainable: As `Layer`; dtype defaults to float32.
    Shapes: inputs `[B, I]`, state and output `[B, H]`, `kernel` `[I, 3H]`, `recurrent_kernel` `[H, 3H]`, `bias`
        `[2, 3H]` (inputs' row, then the state's), or `[3H]` with `reset_after=False`.
    Source: Cho et al. 2014; Keras `GRUCell`.
    """

    _spec: GRUSpec
    _step = staticmethod(gru_split_step)
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
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        reset_after: bool = True,
        implementation: int = 2,
        name: str | None = None,
        dtype: DTypeLike = None,
        trainable: bool = True,
        **kwargs: Any,
    ) -> None:
        spec = GRUSpec(
            check_positive_int("GRUCell units", units),
            keras_activation(activation, "GRUCell"),
            keras_activation(recurrent_activation, "GRUCell"),
            reset_after=bool(reset_after),
            gate_order="urc",
            joined_kernel=False,
            use_bias=bool(use_bias),
        )
        super().__init__(
            spec, kernel_initializer, recurrent_initializer, bias_initializer, dropout, recurrent_dropout,
            {"kernel": kernel_regularizer, "recurrent_kernel": recurrent_regularizer, "bias": bias_regularizer},
            {"kernel": kernel_constraint, "recurrent_kernel": recurrent_constraint, "bias": bias_constraint},
            name, dtype, trainable, **kwargs,
        )  # fmt: skip
        self._implementation = implementation

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments as plain data."""
        more = {"implementation": self._implementation, "reset_after": self._spec.reset_after}
        return {**super().get_config(), **more}
