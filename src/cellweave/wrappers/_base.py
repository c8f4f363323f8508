"""What wrappers of cells share, in TF1's form and in TF2's."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from cellweave._errors import ArgumentError, MemberError
from cellweave._types import DTypeLike, Nest, ShapeLike, Size
from cellweave.cells import (
    RNNCell,
    cell_config,
    cell_from_config,
    cell_zero_state,
    layer_call,
    plain_zeros,
    require_rnn_cell,
)
from cellweave.cells._rnn_cell import KerasStates
from cellweave.scopes import (
    Layer,
    VariableScope,
    get_variable_scope,
    graph_of,
    recordable,
    session_run,
    symbols_in,
    variable_scope,
)


class Wrapper(RNNCell):
    """A cell around a cell: what both forms of wrappers have, and what their kinds of behavior build on."""

    cell: Any
    _lists_inside = False  # each form says itself which of the cell's weights are its own

    @property
    def wrapped_cell(self) -> Any:
        """The cell inside."""
        inside = self._modules.get("cell")  # the short way: torch looks an attribute up in a slow one
        return self.cell if inside is None else inside

    @property
    def state_size(self) -> Size:
        """The cell's."""
        return self.cell.state_size

    @property
    def output_size(self) -> Size:
        """The cell's."""
        return self.cell.output_size

    def _step(self, inputs: Nest, state: Nest, **kwargs: Any) -> tuple[Any, Any]:
        """One step of the cell inside; each form reaches it in its own way."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments as plain data; the cell as `{"class_name", "config"}`."""
        return {**super().get_config(), "cell": cell_config(self.cell)}

    def extra_repr(self) -> str:
        """As of any layer; nothing around a cell that has no configuration."""
        return super().extra_repr() if isinstance(self.cell, Layer) else ""

    @classmethod
    def _loaded(
        cls, arguments: dict[str, Any], custom_objects: Mapping[str, Any] | None, safe_mode: bool
    ) -> dict[str, Any]:
        """The constructor's arguments, functions rebuilt from what the config holds of them."""
        return arguments


class FromCellObject(Wrapper):
    """A wrapper whose `from_config` takes a cell object, not a cell's config: as TF1's do."""

    config_needs_cell_object = True

    @recordable
    @plain_zeros
    def zero_state(self, batch_size: Any, dtype: DTypeLike) -> Any:
        """The cell's zero state."""
        return cell_zero_state(self.cell, batch_size, dtype)

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None, safe_mode: bool = True
    ) -> Any:
        """A new wrapper; `config["cell"]` must have been replaced by a cell object.

        Args:
            config: What `get_config` returned, with the cell in place.
            custom_objects: The caller's own functions by name.
            safe_mode: Refuse to run marshalled code that the config holds.
        Raises:
            ArgumentError: the cell is not a cell object, or there is marshalled code in safe mode.
        """
        if isinstance(config.get("cell"), Mapping) or "cell" not in config:
            raise ArgumentError(
                f"{cls.__name__}.from_config: expected config['cell'] as a cell object, got {config.get('cell')!r}. "
                "Build the cell first and put it there."
            )
        return cls(**cls._loaded(dict(config), custom_objects, safe_mode))


class CellWrapper(FromCellObject):
    """Base of TF1's wrappers: no scope, no weights and no `built` of its own; all of that is the cell's.

    Args:
        cell: Any recurrent cell.
    Raises:
        ArgumentTypeError: `cell` is no recurrent cell.
    """

    makes_variables = False

    def __init__(self, cell: Any, dtype: DTypeLike = None, **kwargs: Any) -> None:
        require_rnn_cell(type(self).__name__, cell)
        super().__init__(dtype=dtype, **kwargs)
        self.cell = cell

    @layer_call
    def __call__(  # type: ignore[override]  # a cell's second argument is its state
        self, inputs: Nest, state: Nest, scope: Any = None, **kwargs: Any
    ) -> Any:
        """Run one step; `scope` is handed to the cell inside."""
        if scope is not None:
            kwargs["scope"] = scope
        symbols = symbols_in(inputs, state)
        if symbols:
            with graph_of(symbols, self.where).opened(), self._undone_on_error():
                return self.recorded(symbols, inputs, (state,), kwargs)
        with session_run():
            return nn.Module.__call__(self, inputs, state, **kwargs)

    def _step(self, inputs: Nest, state: Nest, **kwargs: Any) -> tuple[Any, Any]:
        """One step of the cell inside."""
        return self.cell(inputs, state, **kwargs)  # type: ignore[no-any-return]

    def build(self, input_shape: ShapeLike) -> None:
        """Build the cell inside for inputs `[B, I]`; the wrapper itself is never built."""
        build_inside(self.cell, input_shape, self._dtype)


class KerasCellWrapper(KerasStates, Wrapper):
    """Base of TF2's wrappers: a layer whose variables are the cell's.

    A Keras-style cell's are called by the wrapper's own name. A cell of TF1 keeps its name, and a stack has none: its
    `call` runs in the scope around the wrapper, past the scope that its `__call__` would open.

    Args:
        cell: Anything with `call(inputs, state)`, `state_size` and `output_size`.
    Raises:
        MemberError: `cell` has no `call`. ArgumentTypeError: an unknown keyword.
    """

    _first_name_has_number = False
    is_keras_cell = False
    _call_forgets_names = False
    _around: VariableScope | None = None

    def __init__(self, cell: Any, dtype: DTypeLike = None, **kwargs: Any) -> None:
        if not hasattr(cell, "call"):
            raise MemberError(
                f"{type(self).__name__}: expected a cell with a method call(inputs, state), got {cell!r}."
            )
        super().__init__(dtype="float32" if dtype is None else dtype, **kwargs)
        self.cell = cell
        if not self._trainable:
            self.trainable = False

    def _step(self, inputs: Nest, state: Nest, **kwargs: Any) -> tuple[Any, Any]:
        """One step of the cell inside, past its own `__call__`: the variables are this wrapper's."""
        if not self._keeps_its_name or not self.cell._call_makes_variables:
            return self.cell.call(inputs, state, **kwargs)  # type: ignore[no-any-return]
        with variable_scope(self._around):
            return self.cell.call(inputs, state, **kwargs)  # type: ignore[no-any-return]

    @property
    def _call_makes_variables(self) -> bool:  # type: ignore[override]  # fixed for each class of most layers
        """Whether the cell's `call` makes variables; most cells make theirs when they are built."""
        return getattr(self.cell, "_call_makes_variables", True)

    @property
    def _keeps_its_name(self) -> bool:
        """Whether the cell inside is one of TF1's."""
        return (
            isinstance(self.cell, RNNCell)
            and not isinstance(self.cell, KerasCellWrapper)
            and not getattr(self.cell, "is_keras_cell", False)
        )

    def capture_scope(self, scope: Any = None) -> VariableScope:
        """As of any layer; a cell of TF1 inside takes its name in the scope around."""
        if self._scope is None:
            self._settle(get_variable_scope())
        return super().capture_scope(scope)

    def _settle(self, around: VariableScope) -> None:
        """Remember the scope around this wrapper, and let what is inside take its name there."""
        self._around = around
        cell = self.cell
        if isinstance(cell, KerasCellWrapper):
            cell._settle(around)
        elif self._keeps_its_name and cell.makes_variables:
            with cell._entered():  # the name counts as taken
                pass
        elif self._keeps_its_name and not isinstance(cell, CellWrapper):
            cell.capture_scope(around)

    def build(self, input_shape: ShapeLike) -> None:
        """Build the cell inside for inputs `[B, I]`; a Keras-style cell's variables get this wrapper's name."""
        if not self._built:
            with self._undone_on_error(), self._entered() as scope:
                if isinstance(self.cell, KerasCellWrapper):
                    Layer.capture_scope(self.cell, scope)
                elif isinstance(self.cell, Layer) and self.cell.makes_variables:
                    self.cell.capture_scope(scope)
                with variable_scope(self._around) if self._keeps_its_name else nullcontext():
                    build_inside(self.cell, input_shape, self._dtype)
                self._built = True

    @property
    def trainable_weights(self) -> list[Any]:
        """The cell's and those made in the wrapper itself."""
        return [*super().trainable_weights, *getattr(self.cell, "trainable_weights", [])] if self.trainable else []

    @property
    def non_trainable_weights(self) -> list[Any]:
        """The cell's and those made in the wrapper itself; all of them when the wrapper is not trainable."""
        inside = getattr(self.cell, "non_trainable_weights" if self.trainable else "weights", [])
        return [*super().non_trainable_weights, *inside]

    @property
    def trainable(self) -> bool:
        """Whether the weights take gradients; setting it sets the cell's too."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        Layer.trainable.fset(self, value)  # type: ignore[attr-defined]
        if isinstance(self.cell, Layer):
            self.cell.trainable = value

    @property
    def losses(self) -> list[Any]:
        """Regularization losses of the cell and of what was added here."""
        return [*super().losses, *getattr(self.cell, "losses", [])]

    @recordable
    @plain_zeros
    def zero_state(self, batch_size: Any, dtype: DTypeLike) -> Any:
        """The cell's `zero_state`; Keras-style cells have none (AttributeError)."""
        return self.cell.zero_state(batch_size, dtype)

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None, safe_mode: bool = True
    ) -> Any:
        """A new wrapper around a new cell.

        Args:
            config: What `get_config` returned.
            custom_objects: The caller's own classes and functions by name.
            safe_mode: Refuse to run marshalled code that the config holds.
        Raises:
            ArgumentError: an unknown cell class, or marshalled code in safe mode.
        """
        arguments = dict(config)
        if isinstance(arguments.get("cell"), Mapping):
            arguments["cell"] = cell_from_config(arguments["cell"], custom_objects, cls.__name__, safe_mode=safe_mode)
        return cls(**cls._loaded(arguments, custom_objects, safe_mode))


def build_inside(cell: Any, input_shape: ShapeLike, dtype: torch.dtype | None) -> None:
    """Build a wrapped cell; one that does not know its dtype yet takes the wrapper's."""
    if isinstance(cell, Layer):
        if dtype is not None:
            cell.default_dtype(dtype)
        cell.build(input_shape)
    elif callable(getattr(cell, "build", None)):
        cell.build(input_shape)
