"""ConvLSTMCell."""

from __future__ import annotations

from typing import Any

import torch

from cellweave._checks import check_number, check_positive_int, check_same_dtype, check_weight_dtype
from cellweave._errors import ArgumentError, ShapeError
from cellweave._shape import TensorShape
from cellweave._types import Nest, ShapeLike, Size, shape_dims
from cellweave.cells._registry import register
from cellweave.cells._rnn_cell import RNNCell
from cellweave.cells._spec_cell import pair_of
from cellweave.initializers import Zeros
from cellweave.ops.convlstm import conv_lstm_step
from cellweave.specs import LSTMStateTuple, SteppedSpec


@register
class ConvLSTMCell(RNNCell):
    """The convolutional long short-term memory: states are images, products are convolutions; channels last.

        i, j, f, o = split(conv([x, h], kernel) + biases)
        c' = sigmoid(f + forget_bias)*c + sigmoid(i)*tanh(j);  h' = tanh(c')*sigmoid(o)

    With `skip_connection` the output is `[h', x]`; the state keeps h' alone, so that the next step can take it. TF1's
    state kept both, and no second step could.

    Args:
        conv_ndims: Axes of the convolution: 1, 2 or 3.
        input_shape: Sizes of one input without the batch, `[*space, I]`.
        output_channels: Channels H.
        kernel_shape: The window, one size per axis.
        use_bias: Add a bias.
        skip_connection: Append the input to the output.
        forget_bias: Added to the forget gate when run, never stored; default 1.
        initializers: Accepted for TF1 callers, without effect.
        name: Name of the cell and its scope; default `conv_lstm_cell`.
        kwargs: `dtype`, `trainable`.
    Shapes: inputs `[B, *space, I]`, state `LSTMStateTuple(c, h)`, each `[B, *space, H]`, output `[B, *space, H]` or
        `[B, *space, H + I]`, `kernel` `[*window, I + H, 4H]`, `biases` `[4H]`.
    Raises:
        ArgumentError: `input_shape` or `kernel_shape` that does not fit `conv_ndims`. ShapeError: other inputs or
            states.
    Source: Shi et al. 2015; TF1 `tf.contrib.rnn.ConvLSTMCell`.
    """

    _call_makes_variables = False

    def __init__(
        self,
        conv_ndims: int,
        input_shape: Any,
        output_channels: int,
        kernel_shape: Any,
        use_bias: bool = True,
        skip_connection: bool = False,
        forget_bias: float = 1.0,
        initializers: Any = None,
        name: str | None = "conv_lstm_cell",
        **kwargs: Any,
    ) -> None:
        where = type(self).__name__
        super().__init__(name=name, **kwargs)
        if conv_ndims not in (1, 2, 3):
            raise ArgumentError(f"{where}: expected conv_ndims 1, 2 or 3, got {conv_ndims!r}.")
        shape, window = [int(size) for size in input_shape], [int(size) for size in kernel_shape]
        if len(shape) != conv_ndims + 1:
            raise ArgumentError(f"{where}: expected input_shape of {conv_ndims + 1} sizes, got {shape}.")
        if len(window) != conv_ndims:
            raise ArgumentError(f"{where}: expected kernel_shape of {conv_ndims} sizes, got {window}.")
        self._conv_ndims, self._input_shape, self._window = conv_ndims, shape, window
        self._channels = check_positive_int(f"{where} output_channels", output_channels)
        self._use_bias, self._skips = bool(use_bias), bool(skip_connection)
        self._forget_bias = check_number(f"{type(self).__name__} forget_bias", forget_bias)

    @property
    def state_size(self) -> Size:
        """Sizes of c and h."""
        size = TensorShape([*self._input_shape[:-1], self._channels])
        return LSTMStateTuple(size, size)

    @property
    def output_size(self) -> Size:
        """Sizes of the output."""
        channels = self._channels + (self._input_shape[-1] if self._skips else 0)
        return TensorShape([*self._input_shape[:-1], channels])

    def spec(self) -> SteppedSpec:
        """Why it runs step by step."""
        return SteppedSpec("no backend knows its recurrence")

    def build(self, input_shape: ShapeLike) -> None:
        """Make the weights for inputs `[B, *space, I]`."""
        if self._built:
            return
        dims = shape_dims(input_shape)
        if len(dims) != self._conv_ndims + 2 or dims[-1] is None:
            raise ShapeError(f"{self.where}: expected inputs [B, {self._sizes(self._input_shape)}], got {list(dims)}.")
        check_weight_dtype(self.where, self._dtype)
        with self._undone_on_error():
            self.add_weight("kernel", [*self._window, dims[-1] + self._channels, 4 * self._channels])
            if self._use_bias:
                self.add_weight("biases", [4 * self._channels], initializer=Zeros(), ignore_scope_initializer=True)
            self._built = True

    def call(self, inputs: torch.Tensor, state: Nest) -> tuple[torch.Tensor, LSTMStateTuple]:
        """One step: the output and the new state."""
        c, h = pair_of(state, self.where)
        sizes = [*self._input_shape[:-1], self._channels]
        self._check("inputs", inputs, self._input_shape)
        self._check("state c", c, sizes)
        self._check("state h", h, sizes)
        kernel, bias = self.weight_in_use("kernel"), self.weight_in_use("biases") if self._use_bias else None
        check_same_dtype(self.where, kernel.dtype, inputs=inputs, c=c, h=h)
        c, h = conv_lstm_step(inputs, c, h, kernel, bias, forget_bias=self._forget_bias)
        return torch.cat([h, inputs], dim=-1) if self._skips else h, LSTMStateTuple(c, h)

    def _check(self, what: str, value: torch.Tensor, sizes: list[int]) -> None:
        if value.dim() != len(sizes) + 1 or list(value.shape[1:]) != sizes:
            raise ShapeError(f"{self.where}: expected {what} [B, {self._sizes(sizes)}], got {list(value.shape)}.")

    @staticmethod
    def _sizes(sizes: list[int]) -> str:
        return ", ".join(map(str, sizes))

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments as plain data."""
        return {
            **super().get_config(),
            "conv_ndims": self._conv_ndims,
            "input_shape": list(self._input_shape),
            "output_channels": self._channels,
            "kernel_shape": list(self._window),
            "use_bias": self._use_bias,
            "skip_connection": self._skips,
            "forget_bias": self._forget_bias,
        }
