"""AttentionCellWrapper."""

from __future__ import annotations

from typing import Any

import torch

from cellweave import _nest
from cellweave._checks import check_matrix, check_positive_int
from cellweave._errors import ArgumentError, ArgumentTypeError, ShapeError
from cellweave._shape import TensorShape
from cellweave._types import DTypeLike, Nest, ShapeLike, Size, shape_dims
from cellweave.cells import RNNCell, plain_zeros, register
from cellweave.initializers import Zeros
from cellweave.scopes import recordable
from cellweave.specs import SteppedSpec
from cellweave.wrappers._base import build_inside
from cellweave.wrappers._owning_wrapper import OwningWrapper


@register
class AttentionCellWrapper(OwningWrapper):
    """Lets a cell look back at its own last outputs.

        x' = [x, a] kernel + bias;  y, s' = cell(x', s)
        weights = softmax over the window of sum(attn_v*tanh(w attn_w + s' attention_kernel + attention_bias))
        a' = the window's outputs w, weighted;  output = [y, a'] attn_output_projection_kernel + ..._bias

    The output enters the window, from which the oldest one goes.

    Args:
        cell: Any recurrent cell whose outputs are `[B, O]`.
        attn_length: Outputs L in the window.
        attn_size: Width A of an output; default: the cell's.
        attn_vec_size: Width V of the hidden layer; default: A.
        input_size: Width of what the cell reads; default: that of the inputs.
        state_is_tuple: State as `(the cell's, a, window)`, else one tensor with these columns.
        reuse: Share existing variables: True, or AUTO_REUSE to create or share. Needs a store.
        kwargs: `name`, `dtype`, `trainable`.
    Shapes: inputs `[B, I]`, output `[B, A]`, state `(the cell's, [B, A], [B, L*A])`, `kernel` `[I + A, input_size]`,
        `attention_attn_w` `[1, 1, A, V]`, `attention_attn_v` `[V]`, `attention_kernel` `[state's width, V]`,
        `attn_output_projection_kernel` `[O + A, A]`, and biases.
    Raises:
        ArgumentTypeError: no cell. ArgumentError: a size that is not positive; `state_is_tuple=False` around a cell
            whose state is a structure.
    Source: Cheng et al. 2016; TF1 `tf.contrib.rnn.AttentionCellWrapper`.
    """

    def __init__(
        self,
        cell: Any,
        attn_length: int,
        attn_size: int | None = None,
        attn_vec_size: int | None = None,
        input_size: int | None = None,
        state_is_tuple: bool = True,
        reuse: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(cell, reuse, **kwargs)
        where = "AttentionCellWrapper"
        if _nest.is_nested(cell.state_size) and not state_is_tuple:
            raise ArgumentError(
                f"{where}: expected a cell whose state is one tensor because state_is_tuple=False, "
                f"got state_size {cell.state_size}."
            )
        self._length = check_positive_int(f"{where} attn_length", attn_length)
        size = _width(cell.output_size) if attn_size is None else attn_size
        self._size = check_positive_int(f"{where} attn_size", size)
        hidden = self._size if attn_vec_size is None else attn_vec_size
        self._hidden = check_positive_int(f"{where} attn_vec_size", hidden)
        self._input_size, self._state_is_tuple = input_size, bool(state_is_tuple)

    @property
    def state_size(self) -> Size:
        """The cell's, A and L*A; or their sum."""
        sizes = (self.cell.state_size, self._size, self._size * self._length)
        return sizes if self._state_is_tuple else sum(_width(size) for size in sizes)

    @property
    def output_size(self) -> Size:
        """A."""
        return self._size

    def spec(self) -> SteppedSpec:
        """Why it runs step by step."""
        return SteppedSpec("it looks back at its own outputs")

    @recordable
    @plain_zeros
    def zero_state(self, batch_size: Any, dtype: DTypeLike) -> Any:
        """Zeros: the cell's, of a and of the window."""
        return RNNCell.zero_state(self, batch_size, dtype)

    def build(self, input_shape: ShapeLike) -> None:
        """Make all weights for inputs `[B, I]`."""
        if not self._built:
            dims = shape_dims(input_shape)
            with self._undone_on_error(), self._entered():
                self._linear("", (dims[-1] or 0) + self._size, self._input_size or dims[-1] or 0)
                build_inside(self.cell, (dims[0], self._input_size or dims[-1]), self._dtype)
                self._make_rest()
                self._built = True

    def _linear(self, prefix: str, rows: int, columns: int) -> None:
        self.add_weight(f"{prefix}kernel", [rows, columns])
        self.add_weight(f"{prefix}bias", [columns], initializer=Zeros(), ignore_scope_initializer=True)

    def _make_rest(self) -> None:
        """The weights that TF1 makes after the cell's."""
        self.add_weight("attention/attn_w", [1, 1, self._size, self._hidden])
        self.add_weight("attention/attn_v", [self._hidden])
        self._linear("attention/", sum(_width(size) for size in _nest.flatten(self.cell.state_size)), self._hidden)
        self._linear("attn_output_projection/", _width(self.cell.output_size) + self._size, self._size)

    def _parts(self, own: list[Any], inside: list[Any]) -> list[Any]:
        return [*own[:2], *inside, *own[2:]]

    def call(self, inputs: torch.Tensor, state: Nest, **kwargs: Any) -> tuple[Any, Any]:
        """One step: the output, and the cell's new state with what it looked at and the window."""
        check_matrix(self.where, "inputs", inputs, None)
        inner, attention, window = self._split(state)
        window = window.reshape(-1, self._length, self._size)
        first = not self.first_call_done
        if first:
            self._linear("", inputs.shape[1] + self._size, self._input_size or inputs.shape[1])
        seen = torch.cat([inputs, attention], dim=1) @ self.kernel + self.bias
        output, inner = self.cell(seen, inner, **kwargs)
        if first:
            self._make_rest()
        attention = self._look(torch.cat(_nest.flatten(inner), dim=1), window)
        output = torch.cat([output, attention], dim=1) @ self.attn_output_projection_kernel
        output = output + self.attn_output_projection_bias
        window = torch.cat([window[:, 1:], output[:, None]], dim=1).flatten(1)
        new_state = (inner, attention, window)
        return output, new_state if self._state_is_tuple else torch.cat(new_state, dim=1)

    def _look(self, query: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
        """The window's outputs `[B, L, A]`, weighted: `[B, A]`."""
        asked = (query @ self.attention_kernel + self.attention_bias)[:, None]
        scores = (self.attention_attn_v * torch.tanh(window @ self.attention_attn_w[0, 0] + asked)).sum(dim=2)
        return (torch.softmax(scores, dim=1)[:, :, None] * window).sum(dim=1)

    def _split(self, state: Nest) -> tuple[Any, Any, Any]:
        if self._state_is_tuple:
            if not _nest.is_sequence(state):
                raise ArgumentTypeError(f"{self.where}: expected state as a tuple, got {type(state).__name__}.")
            if len(state) != 3:
                raise ShapeError(f"{self.where}: expected state of 3 elements, got {len(state)}.")
            return state[0], state[1], state[2]
        check_matrix(self.where, "state", state, self.state_size)
        inner = _width(self.cell.state_size)
        parts: tuple[Any, ...] = state.split([inner, self._size, self._size * self._length], dim=1)
        return parts[0], parts[1], parts[2]

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments as plain data; the cell as `{"class_name", "config"}`."""
        return {
            **super().get_config(),
            "attn_length": self._length,
            "attn_size": self._size,
            "attn_vec_size": self._hidden,
            "input_size": self._input_size,
            "state_is_tuple": self._state_is_tuple,
        }


def _width(size: Size) -> int:
    dims = TensorShape(size).dims
    if len(dims) != 1 or dims[0] is None:
        raise ArgumentError(f"AttentionCellWrapper: expected sizes of one known axis, got {size}.")
    return dims[0]
