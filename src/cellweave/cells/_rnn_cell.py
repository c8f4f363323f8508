"""RNNCell: the contract of every recurrent cell."""

from __future__ import annotations

import functools
import itertools
import math
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch

from cellweave import _nest
from cellweave._errors import ArgumentError, ArgumentTypeError
from cellweave._shape import TensorShape
from cellweave._types import DTypeLike, Nest, Size, as_dtype, dtype_name
from cellweave.scopes import Layer, is_probing, recordable, session_run, symbols_in

_Function = TypeVar("_Function", bound=Callable[..., Any])
_Made = TypeVar("_Made", bound="StepLayer")


def layer_call(function: _Function) -> _Function:
    """Mark a `__call__` that ends in `Layer.__call__`."""
    function.__dict__["ends_in_layer_call"] = True
    return function


def plain_zeros(function: _Function) -> _Function:
    """Mark a method that gives nothing but zeros in the sizes of `state_size`."""
    function.__dict__["gives_zeros"] = True
    return function


_numbers = itertools.count(1)
_by_number: weakref.WeakValueDictionary[int, StepLayer] = weakref.WeakValueDictionary()


def cell_of_number(number: int) -> StepLayer | None:
    """The cell or wrapper with this number, None when it is gone."""
    return _by_number.get(number)


class StepLayer(Layer):
    """A layer that runs one time step: `layer(inputs, state) -> (output, new_state)`."""

    #: Its number in this process, by which compiled code finds it.
    _cell_number: int
    #: Which of its two states comes first, for a cell whose spec is an LSTM's: "ch" or "hc".
    state_order = "ch"

    def __new__(cls: type[_Made], *args: Any, **kwargs: Any) -> _Made:
        """A cell with a number of its own."""
        cell = super().__new__(cls, *args, **kwargs)
        cell._take_number()
        return cell

    def _take_number(self) -> None:
        self.__dict__["_cell_number"] = next(_numbers)
        _by_number[self._cell_number] = self

    @layer_call
    def __call__(  # type: ignore[override]  # a cell's second argument is its state
        self, inputs: Nest, state: Nest, scope: Any = None, **kwargs: Any
    ) -> Any:
        """Run one step.

        Args:
            inputs: `[B, I]`, or what the cell takes.
            state: State in the structure of `state_size`, each leaf `[B, size]`. Not modified.
            scope: Scope for the variables in place of the cell's own name, at the first call only.
        Returns:
            output `[B, output_size]` and the new state.
        """
        with session_run():
            return super().__call__(inputs, state, scope=scope, **kwargs)

    def _not_copied(self) -> tuple[str, ...]:
        return ("_cell_number",)

    def _restore_not_copied(self) -> None:
        self._take_number()

    @property
    def has_unchecked_weights(self) -> bool:
        """Whether a `state_dict` came before the first call, which has not looked for unused entries yet."""
        return bool(self._adopted)

    @property
    def state_size(self) -> Size:
        """Sizes of the state: an int, a TensorShape, or a structure of them."""
        raise NotImplementedError(f"{self.where}.state_size: a cell must say its state's sizes.")

    @property
    def output_size(self) -> Size:
        """Size of the output."""
        raise NotImplementedError(f"{self.where}.output_size: a cell must say its output's size.")


def _owning(function: Callable[..., Any]) -> Callable[..., Any]:
    """A hand-written `__call__` whose cell owns the variables that it makes; module hooks do not act on it."""

    @layer_call
    @functools.wraps(function)
    def call(self: Any, inputs: Nest, state: Nest, *args: Any, **kwargs: Any) -> Any:
        symbols = symbols_in(inputs, state)
        if symbols:
            return self.recorded(symbols, inputs, (state, *args), kwargs)
        with session_run(), self.owning():
            return function(self, inputs, state, *args, **kwargs)

    return call


class RNNCell(StepLayer):
    """One time step of a recurrent network: `cell(inputs, state) -> (output, new_state)`.

    A subclass gives `state_size`, `output_size` and `call(inputs, state)`, and makes its weights in `build` or, by
    `get_variable`, in `call`.

    Args:
        trainable: Whether its weights take gradients.
        name: Name of the cell and of its variable scope; default: from the class name.
        dtype: Dtype of its weights; default: that of the first input.
    Source: TF1 `tf.nn.rnn_cell.RNNCell`.
    """

    _call_forgets_names = True
    _lists_inside = True
    _zero_state: tuple[Any, Any] | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Take over a `__call__` written by hand, as TF1's oldest cells did, so that the cell owns its variables."""
        super().__init_subclass__(**kwargs)
        own = cls.__dict__.get("__call__")
        if own is not None and not getattr(own, "ends_in_layer_call", False):
            cls.__call__ = _owning(own)  # type: ignore[method-assign]

    def __init__(self, trainable: bool = True, name: str | None = None, dtype: DTypeLike = None, **kwargs: Any) -> None:
        super().__init__(trainable=trainable, name=name, dtype=dtype, **kwargs)
        self._restore_not_copied()

    @recordable
    @plain_zeros
    def zero_state(self, batch_size: Any, dtype: DTypeLike) -> Any:
        """A state of zeros, each leaf `[batch_size, size]`.

        Args:
            batch_size: Rows: an int, a float that is a whole number, a scalar tensor; or leading axes, a sequence, a
                TensorShape, a 1-D tensor or array.
            dtype: Any dtype.
        Returns:
            Tensors in the structure of `state_size`. On the CPU the last result is kept and returned again while
            nobody writes into it.
        Raises:
            ArgumentError: the batch size is None, negative, not whole, or has two axes or more.
        """
        rows = batch_shape(batch_size, f"{self.where}.zero_state")
        resolved = as_dtype(dtype, f"{self.where}.zero_state")
        if is_probing():
            return zeros_of(self.state_size, rows, resolved)
        device = next((p.device for p in self.parameters()), None)
        if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack():  # traces and fakes keep nothing
            return zeros_of(self.state_size, rows, resolved, device)
        device = torch.get_default_device() if device is None else device
        key = (repr(self.state_size), rows, resolved, device)
        if self._zero_state is not None and self._zero_state[0] == key and _still_zeros(self._zero_state[1]):
            return self._zero_state[1]
        state = zeros_of(self.state_size, rows, resolved, device)
        self._zero_state = (key, state) if _still_zeros(state) else None
        return state

    @recordable
    @plain_zeros
    def get_initial_state(self, inputs: Nest = None, batch_size: Any = None, dtype: DTypeLike = None) -> Any:
        """The zero state for some inputs, or for a batch size and dtype.

        Args:
            inputs: `[B, ...]`; gives batch size, dtype and device.
            batch_size, dtype: Required without inputs; must agree with them otherwise.
        Raises:
            ArgumentError: something is missing or disagrees.
        """
        return initial_state(self, inputs, batch_size, dtype)

    def _not_copied(self) -> tuple[str, ...]:
        return (*super()._not_copied(), "_zero_state")

    def _restore_not_copied(self) -> None:
        super()._restore_not_copied()
        self._zero_state = None


def initial_state(cell: Any, inputs: Nest, batch_size: Any, dtype: DTypeLike) -> Any:
    """What `get_initial_state` gives for any cell with a `zero_state`."""
    where = f"{getattr(cell, 'where', type(cell).__name__)}.get_initial_state"
    if inputs is None:
        if batch_size is None or dtype is None:
            raise ArgumentError(f"{where}: expected inputs, or both batch_size and dtype, got neither.")
        return cell.zero_state(batch_size, dtype)
    first = _first_tensor(inputs, where)
    if batch_size is not None and batch_shape(batch_size, where) != (first.shape[0],):
        raise ArgumentError(f"{where}: expected batch_size {first.shape[0]} as in inputs, got {batch_size}.")
    if dtype is not None and as_dtype(dtype, where) != first.dtype:
        raise ArgumentError(
            f"{where}: expected dtype {dtype_name(first.dtype)} as in inputs, got {dtype_name(as_dtype(dtype, where))}."
        )
    with torch.device(first.device):
        return cell.zero_state(first.shape[0], first.dtype)


def _first_tensor(inputs: Nest, where: str) -> Any:
    first = next(iter(_nest.flatten(inputs)), None)
    if not isinstance(getattr(first, "dtype", None), torch.dtype):
        raise ArgumentTypeError(f"{where}: expected inputs [B, ...] as tensors, got {inputs!r}.")
    return first


def batch_shape(batch_size: Any, where: str) -> tuple[int, ...]:
    """The leading axes that a batch size stands for."""
    if isinstance(batch_size, np.ndarray):
        batch_size = torch.as_tensor(batch_size)
    if isinstance(batch_size, torch.Tensor) and batch_size.dim() > 0:
        if batch_size.dim() > 1:
            raise ArgumentError(
                f"{where}: expected batch_size as a number or a vector, got shape {list(batch_size.shape)}."
            )
        return tuple(_whole(value, where) for value in batch_size.tolist())
    if isinstance(batch_size, torch.Tensor):
        batch_size = batch_size.item()
    if isinstance(batch_size, list | tuple | TensorShape):
        return tuple(_whole(value, where) for value in batch_size)
    return (_whole(batch_size, where),)


def _whole(value: Any, where: str) -> int:
    if isinstance(value, torch.SymInt):  # of an export that takes any number of rows
        return value  # type: ignore[return-value]
    if type(value) is int and value >= 0:  # also a symbol of compiled code, which has no other members to ask for
        return value
    number = isinstance(value, float) or (hasattr(value, "__index__") and not isinstance(value, bool))
    if not number or (isinstance(value, float) and not (math.isfinite(value) and value.is_integer())) or value < 0:
        raise ArgumentError(f"{where}: expected batch_size as a whole number >= 0, got {value!r}.")
    return int(value)


def zeros_of(size: Size, rows: tuple[int, ...], dtype: torch.dtype, device: torch.device | None = None) -> Any:
    """Zeros `[*rows, size]` for each leaf of a size."""

    def zeros(leaf: Any) -> torch.Tensor:
        dims = TensorShape(leaf).dims
        if any(dim is None for dim in dims):
            raise ArgumentError(f"zero_state: expected known sizes, got {list(dims)}.")
        return torch.zeros((*rows, *[int(dim or 0) for dim in dims]), dtype=dtype, device=device)

    return _nest.map_structure(zeros, size)


def _still_zeros(state: Nest) -> bool:
    """Whether a state may be handed out again: plain CPU tensors that nobody wrote into, not even past autograd."""
    for leaf in _nest.flatten(state):
        plain = type(leaf) is torch.Tensor and not torch._C._functorch.is_functorch_wrapped_tensor(leaf)
        if not plain or leaf.device.type != "cpu" or leaf.is_inference() or leaf.requires_grad or leaf.any():
            return False
    return True


#: Classes all of whose objects act as cells.
_cell_classes: weakref.WeakSet[type] = weakref.WeakSet()


def require_rnn_cell(where: str, cell: Any) -> None:
    """Raise ArgumentTypeError unless `cell` acts as a recurrent cell."""
    kind = type(cell)
    if kind in _cell_classes:
        return
    if issubclass(kind, StepLayer) and {"zero_state", "get_initial_state"} & set(dir(kind)):
        _cell_classes.add(kind)
        return
    members = set(dir(cell))
    missing = [name for name in ("output_size", "state_size") if name not in members]
    if not members & {"zero_state", "get_initial_state"}:
        missing.append("zero_state or get_initial_state")
    if missing or not callable(cell) or isinstance(cell, type):
        lacking = f" (it has no {', no '.join(missing)})" if missing else ""
        got = f"{kind.__module__}.{kind.__qualname__}" if isinstance(cell, torch.nn.Module) else repr(cell)
        raise ArgumentTypeError(f"{where}: expected a recurrent cell, got {got}{lacking}.")


def cell_zero_state(cell: Any, batch_size: Any, dtype: DTypeLike) -> Any:
    """The zero state of any cell-like object, by whichever method it has."""
    if hasattr(cell, "zero_state"):
        return cell.zero_state(batch_size, dtype)
    return cell.get_initial_state(inputs=None, batch_size=batch_size, dtype=dtype)


class KerasStates:
    """How Keras's cells make the states that they start from."""

    @recordable
    @plain_zeros
    def get_initial_state(self: Any, inputs: Nest = None, batch_size: Any = None, dtype: DTypeLike = None) -> Any:
        """Zeros per `state_size`; batch size and dtype come from `inputs` if given, else both are required.

        Raises:
            ArgumentError: one is missing.
        """
        where = f"{self.where}.get_initial_state"
        device = None
        if inputs is not None:
            first = _first_tensor(inputs, where)
            batch_size, dtype, device = first.shape[0], first.dtype, first.device
        if batch_size is None or dtype is None:
            raise ArgumentError(f"{where}: expected inputs, or both batch_size and dtype, got neither.")
        return zeros_of(self.state_size, batch_shape(batch_size, where), as_dtype(dtype, where), device)
