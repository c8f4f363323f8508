"""LSTMBlockFusedCell."""

from __future__ import annotations

from typing import Any

import torch

from cellweave import _nest
from cellweave._errors import ArgumentError, ArgumentTypeError, ShapeError
from cellweave._types import DTypeLike, Nest, ShapeLike, shape_dims
from cellweave.cells import LSTMBlockCell
from cellweave.layers._bidirectional_rnn import check_within
from cellweave.layers._dynamic_rnn import dynamic_rnn
from cellweave.layers._fused_rnn_cell import in_form_of, stacked
from cellweave.layers._sequence import as_lengths
from cellweave.scopes import Layer
from cellweave.specs import LSTMStateTuple


class LSTMBlockFusedCell(Layer):
    """A whole LSTM layer in one call: `layer(inputs, initial_state, dtype, sequence_length)`, time major.

    Each step is that of `LSTMBlockCell`. No unroll, and no scope `rnn`, stands around it: its variables are
    `lstm_fused_cell/kernel` and so on. As a module it holds them in `cell`.

    Args:
        num_units: Units H.
        forget_bias: Added to the forget gate when run, never stored; default 1.
        cell_clip: Bound on c; None, 0 and negative values: none.
        use_peephole: Diagonal weights from c to the gates.
        reuse: Share existing variables: True, or AUTO_REUSE to create or share. Needs a store.
        dtype: Dtype of the weights; default: the first input's.
        name: Name of the layer and its scope; default `lstm_fused_cell`.
    Shapes: inputs `[T, B, I]` or a list of T tensors `[B, I]`; outputs `[T, B, H]` in the same form; weights as those
        of `LSTMBlockCell`.
    Raises:
        ArgumentError: a size that is not positive. In a call: neither `initial_state` nor `dtype`; lengths outside
            0..T. ShapeError: sizes disagree, a state that is no pair.
    Source: TF1 `tf.contrib.rnn.LSTMBlockFusedCell`.
    """

    makes_variables = False

    def __init__(
        self,
        num_units: int,
        forget_bias: float = 1.0,
        cell_clip: float | None = None,
        use_peephole: bool = False,
        reuse: Any = None,
        dtype: DTypeLike = None,
        name: str | None = "lstm_fused_cell",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, dtype=dtype, _reuse=reuse, **kwargs)
        self.cell = LSTMBlockCell(num_units, forget_bias, cell_clip, use_peephole, name=name, dtype=dtype)
        self.cell.trainable = self._trainable

    @property
    def num_units(self) -> int:
        """Units."""
        return int(self.cell.output_size)

    def build(self, input_shape: ShapeLike) -> None:
        """Make the weights.

        Args:
            input_shape: `[T, B, I]`, or a list of `[B, I]`; T and B may be None.
        Raises:
            ShapeError: another number of axes, or I unknown.
        """
        if not self._built:
            is_list = isinstance(input_shape, list) and not all(isinstance(dim, int | None) for dim in input_shape)
            dims = shape_dims(input_shape[0] if is_list else input_shape)
            if len(dims) != (2 if is_list else 3):
                raise ShapeError(f"{self.where}: expected inputs [T, B, I], got {list(dims)}.")
            with self._undone_on_error(), self._entered() as scope:
                self.cell.capture_scope(scope)
                if self._dtype is not None:
                    self.cell.default_dtype(self._dtype)
                self.cell.build(dims[-2:])
                self._built = True

    def call(
        self, inputs: Any, initial_state: Nest = None, dtype: DTypeLike = None, sequence_length: Any = None
    ) -> tuple[Any, Any]:
        """Run over a sequence.

        Args:
            inputs: `[T, B, I]`, or a list of T tensors `[B, I]`.
            initial_state: `(c, h)`, each `[B, H]`; default: zeros of `dtype`.
            dtype: Dtype of the zero state; required without `initial_state`.
            sequence_length: Steps per row, `[B]`, each in 0..T; default: T.
        Returns:
            outputs in the form of the inputs, zero past a row's end, and `LSTMStateTuple(c, h)` after its last step.
        """
        x = stacked(inputs)
        if not isinstance(x, torch.Tensor):
            raise ArgumentTypeError(f"{self.where}: expected inputs [T, B, I], got {type(inputs).__name__}.")
        if x.dim() != 3:
            raise ShapeError(f"{self.where}: expected inputs [T, B, I], got {list(x.shape)}.")
        if initial_state is None:
            if dtype is None:
                raise ArgumentError(f"{self.where}: expected initial_state or dtype, got neither.")
        elif not _nest.is_sequence(initial_state) or len(initial_state) != 2:
            raise ShapeError(f"{self.where}: expected initial_state as a pair (c, h), got {initial_state!r}.")
        else:
            initial_state = LSTMStateTuple(*initial_state)
        lengths = as_lengths(sequence_length, x.shape[1], self.where)
        check_within(lengths, x.shape[0], self.where)
        outputs, state = dynamic_rnn(self.cell, x, lengths, initial_state, dtype, time_major=True)
        return in_form_of(inputs, outputs), state

    @property
    def trainable_weights(self) -> list[Any]:
        """Kernel, bias and peepholes."""
        return self.cell.trainable_weights if self.trainable else []

    @property
    def non_trainable_weights(self) -> list[Any]:
        """None of them, or all where the layer is not trainable."""
        return self.cell.non_trainable_weights if self.trainable else self.cell.weights

    @property
    def trainable(self) -> bool:
        """Whether the weights take gradients."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._trainable = self.cell.trainable = bool(value)
