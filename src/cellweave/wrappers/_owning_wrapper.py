"""What contrib's wrappers with weights of their own share."""

from __future__ import annotations

from typing import Any

import torch

from cellweave._types import ShapeLike, shape_dims
from cellweave.cells import require_rnn_cell
from cellweave.initializers import Zeros
from cellweave.ops.common import activation_function, activation_name, as_activation
from cellweave.wrappers._base import FromCellObject, build_inside


class OwningWrapper(FromCellObject):
    """Base of wrappers that have a scope and weights of their own; the cell's scope lies in theirs.

    Args:
        cell: Any recurrent cell.
    Raises:
        ArgumentTypeError: `cell` is no recurrent cell.
    """

    _call_makes_variables = False
    #: Whether the cell makes its variables before the wrapper makes its own.
    _cell_comes_first = False

    def __init__(self, cell: Any, reuse: Any = None, **kwargs: Any) -> None:
        require_rnn_cell(type(self).__name__, cell)
        super().__init__(_reuse=reuse, **kwargs)
        self.cell = cell

    def _build_from(self, inputs: Any) -> None:
        """The cell builds itself at its own first call, from what really reaches it."""
        self._take_dtype(inputs)
        self._built = True

    def build(self, input_shape: ShapeLike) -> None:
        """Make the wrapper's weights and the cell's for inputs `[B, I]`."""
        if not self._built:
            with self._undone_on_error(), self._entered():
                dims = shape_dims(input_shape)
                if not self._cell_comes_first:
                    self._make_weights(dims)
                build_inside(self.cell, self._inner_shape(dims), self._dtype)
                if self._cell_comes_first:
                    self._make_weights(dims)
                self._built = True

    def _make_weights(self, dims: tuple[int | None, ...]) -> None:
        """Make the weights for inputs of this shape, where they are not there yet."""
        raise NotImplementedError

    def _inner_shape(self, dims: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Shape of the cell's inputs."""
        return dims

    def _parts(self, own: list[Any], inside: list[Any]) -> list[Any]:
        return [*inside, *own] if self._cell_comes_first else [*own, *inside]

    @property
    def trainable_weights(self) -> list[Any]:
        """The wrapper's and the cell's, in the order in which they are made."""
        own = super().trainable_weights
        return self._parts(own, getattr(self.cell, "trainable_weights", [])) if self.trainable else []

    @property
    def non_trainable_weights(self) -> list[Any]:
        """The others; all of them when the wrapper is not trainable."""
        inside = getattr(self.cell, "non_trainable_weights" if self.trainable else "weights", [])
        return self._parts(super().non_trainable_weights, inside)


class ProjectionBehavior(OwningWrapper):
    """A linear map `act(x kernel + bias)` before or behind the cell."""

    _width: int

    def _init_projection(self, width: int, activation: Any) -> None:
        self._width = width
        where = type(self).__name__
        self._activation = "linear" if activation is None else as_activation(activation, where)
        if isinstance(self._activation, torch.nn.Module):
            self.activation_module = self._activation  # so that its parameters are the wrapper's too

    def _make_linear(self, depth: int | None, dtype: torch.dtype | None = None) -> None:
        if "kernel" in self._parameters and "kernel" not in self._adopted:
            return
        self.add_weight("kernel", [depth, self._width], dtype)
        self.add_weight("bias", [self._width], dtype, initializer=Zeros(), ignore_scope_initializer=True)

    def _project(self, x: torch.Tensor) -> torch.Tensor:
        return activation_function(self._activation)(x @ self.weight_in_use("kernel") + self.weight_in_use("bias"))

    def _activation_config(self) -> str | None:
        return None if self._activation == "linear" else activation_name(self._activation)

    def _weight_attributes(self) -> tuple[str, ...]:
        return ("kernel", "bias")
