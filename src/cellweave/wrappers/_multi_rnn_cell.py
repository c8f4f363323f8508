"""MultiRNNCell."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from cellweave import _nest
from cellweave._errors import ArgumentError, ArgumentTypeError, ShapeError
from cellweave._shape import TensorShape
from cellweave._types import DTypeLike, Nest, ShapeLike, Size, shape_dims
from cellweave.cells import RNNCell, cell_zero_state, plain_zeros, register, require_rnn_cell
from cellweave.scopes import recordable, variable_scope
from cellweave.specs import StackSpec, describe
from cellweave.wrappers._base import build_inside


@register
class MultiRNNCell(RNNCell):
    """Cells on top of each other: each one's output is the next one's input.

    Args:
        cells: A list or tuple of cells, lowest first. The same object twice shares its weights.
        state_is_tuple: State as a tuple with one element per cell, else one tensor `[B, sum of sizes]`.
    Shapes: inputs `[B, I]`, output `[B, output_size of the last cell]`.
    Raises:
        ArgumentError: no cells; `state_is_tuple=False` around a cell whose state is a structure.
        ArgumentTypeError: `cells` is no list or tuple, or holds something that is no recurrent cell.
    Source: TF1 `tf.nn.rnn_cell.MultiRNNCell`.
    """

    _call_makes_variables = False
    _lists_inside = False  # they are the cells' own, at any time
    makes_variables = False

    def __init__(self, cells: Any, state_is_tuple: bool = True, **kwargs: Any) -> None:
        if not cells:
            raise ArgumentError("MultiRNNCell: expected at least one cell, got none.")
        if not isinstance(cells, list | tuple | nn.ModuleList):
            raise ArgumentTypeError(f"MultiRNNCell: expected cells as a list or tuple, got {type(cells).__name__}.")
        for index, cell in enumerate(cells):
            require_rnn_cell(f"MultiRNNCell cells[{index}]", cell)
        super().__init__(**kwargs)
        modules = all(isinstance(cell, nn.Module) for cell in cells)
        self.cells = nn.ModuleList(cells) if modules else list(cells)
        self._state_is_tuple = bool(state_is_tuple)
        if not state_is_tuple:
            for cell in cells:
                if _nest.is_nested(cell.state_size):
                    raise ArgumentError(
                        f"MultiRNNCell: expected cells whose state is one tensor because state_is_tuple=False, "
                        f"got state_size {cell.state_size}."
                    )

    @property
    def state_size(self) -> Size:
        """Tuple of the cells' sizes, or their sum."""
        sizes = tuple(cell.state_size for cell in self.cells)
        return sizes if self._state_is_tuple else sum(_width(size) for size in sizes)

    @property
    def output_size(self) -> Size:
        """The last cell's."""
        return self.cells[-1].output_size

    @recordable
    @plain_zeros
    def zero_state(self, batch_size: Any, dtype: DTypeLike) -> Any:
        """Each cell's own zero state."""
        if not self._state_is_tuple:
            return super().zero_state(batch_size, dtype)
        return tuple(cell_zero_state(cell, batch_size, dtype) for cell in self.cells)

    def call(self, inputs: Nest, state: Nest) -> tuple[Any, Any]:
        """One step through all cells.

        Args:
            inputs: `[B, I]`.
            state: A tuple or list with one element per cell (further ones are ignored), or one tensor.
        Raises:
            ShapeError: one tensor where a tuple is due, or of another width. IndexError: too few elements.
        """
        new_states = []
        position = 0
        for index, cell in enumerate(self.cells):
            part, position = self._part(state, index, cell, position)
            with nullcontext() if self.first_call_done else variable_scope(f"cell_{index}"):
                inputs, new_state = cell(inputs, part)
            new_states.append(new_state)
        return inputs, tuple(new_states) if self._state_is_tuple else torch.cat(new_states, dim=1)

    def spec(self) -> StackSpec:
        """The cells inside, as data. A subclass that changes a step has to give its own."""
        return StackSpec(tuple([describe(cell)[0] for cell in self.cells_inside()]), not self._state_is_tuple)

    def extra_repr(self) -> str:
        """Whether the state is one tensor; the cells stand below."""
        return "" if self._state_is_tuple else "state_is_tuple=False"

    def cells_inside(self) -> list[Any]:
        """The cells, lowest first."""
        modules = self._modules.get("cells")  # the short way: torch looks an attribute up in a slow one
        return list(self.cells) if modules is None else list(modules._modules.values())

    def _part(self, state: Nest, index: int, cell: Any, position: int) -> tuple[Any, int]:
        if self._state_is_tuple:
            if not _nest.is_sequence(state):
                raise ShapeError(
                    f"{self.where}: expected state as a tuple of {len(self.cells)} elements, "
                    f"got {type(state).__name__}."
                )
            return state[index], position
        width = _width(cell.state_size)
        total = self.state_size
        if not isinstance(state, torch.Tensor) or state.dim() != 2 or state.shape[1] != total:
            got = list(state.shape) if isinstance(state, torch.Tensor) else type(state).__name__
            raise ShapeError(f"{self.where}: expected state [B, {total}], got {got}.")
        return state[:, position : position + width], position + width

    def _build_from(self, inputs: Any) -> None:
        """Every cell builds itself at its own first call, from what really reaches it."""
        self._take_dtype(inputs)
        self._built = True

    def build(self, input_shape: ShapeLike) -> None:
        """Build every cell for inputs `[B, I]`, taking each cell's output size as the next one's input size."""
        with self._undone_on_error(), self._entered():
            shape = shape_dims(input_shape)
            for index, cell in enumerate(self.cells):
                with variable_scope(f"cell_{index}"):
                    build_inside(cell, shape, self._dtype)
                if index + 1 < len(self.cells):
                    shape = (shape[0], *TensorShape(cell.output_size).dims)
            self._dtype = self._dtype or next((weight.dtype for weight in self.parameters()), None)
            self._built = True

    def _parts(self, what: str) -> list[Any]:
        return [weight for cell in self.cells for weight in getattr(cell, what, [])]

    @property
    def trainable_weights(self) -> list[Any]:
        """The cells' own trainable weights, cell by cell."""
        return self._parts("trainable_weights") if self.trainable else []

    @property
    def non_trainable_weights(self) -> list[Any]:
        """The cells' other weights; after all their trainable ones when the stack is not trainable."""
        others = self._parts("non_trainable_weights")
        return others if self.trainable else [*self._parts("trainable_weights"), *others]


def _width(size: Size) -> int:
    dims = TensorShape(size).dims
    if len(dims) != 1 or dims[0] is None:
        raise ArgumentError(
            f"MultiRNNCell: expected states of one known axis because state_is_tuple=False, got {size}."
        )
    return dims[0]
