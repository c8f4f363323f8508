"""Layer: TF1's base of cells and wrappers, as an ordinary `nn.Module`."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import nn
from torch._subclasses.fake_tensor import unset_fake_temporarily

from cellweave import _nest
from cellweave._errors import ArgumentError, ArgumentTypeError, ScopeError
from cellweave._shape import TensorShape
from cellweave._types import DTypeLike, ShapeLike, as_dtype, dtype_name
from cellweave.scopes._context import AUTO_REUSE, Branch, VariableScope, check_reuse, frame, opened, undone_on_error
from cellweave.scopes._layer_nodes import LayerNodes
from cellweave.scopes._layer_shown import config_is_ours, shown_arguments
from cellweave.scopes._layer_weights import LayerWeights
from cellweave.scopes._symbols import graph_of, symbols_in
from cellweave.scopes._turn import Turn
from cellweave.scopes._variable_scope import default_scope, named_scope

_Made = TypeVar("_Made", bound="Layer")


def snake_case(name: str) -> str:
    """A class name in snake case, as TF1 writes it: `BasicLSTMCell` gives `basic_lstm_cell`, `_Own` `private__own`."""
    name = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", name)
    name = re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
    return f"private{name}" if name.startswith("_") else name  # no scope's name begins with a line


#: Attributes that a first call or a build changes.
_STATE_OF_BUILDING = (
    "_records", "_inside", "_aliases", "_getters", "_adopted", "_scope", "_outer_scope", "_dtype", "_built",
    "_first_call_done",
)  # fmt: skip

#: Keywords that every Keras layer takes and that change nothing in one that is called by hand or by an unroll.
_WITHOUT_EFFECT = frozenset(
    ["autocast", "batch_input_shape", "batch_size", "dynamic", "implementation", "input_dim", "input_shape"]
)


class _ConstructorSignature:
    """What `inspect.signature` gives of a class: that of its constructor.

    Before 3.11.4 Python by itself gives that of `__new__` for a class that inherits both.
    """

    def __get__(self, instance: Any, owner: Any) -> inspect.Signature:
        if instance is not None:
            raise AttributeError("__signature__")
        signature = inspect.signature(owner.__init__)
        return signature.replace(parameters=list(signature.parameters.values())[1:])


class Layer(LayerNodes, LayerWeights):
    """Base of everything that owns TF1 variables.

    A subclass implements `call(inputs, ...)`, and either `build(input_shape)`, which makes its weights by `add_weight`,
    or makes them by `get_variable` inside `call`. Weights are ordinary parameters; they exist after the first call or
    after `build`, and a `state_dict` may be loaded before either.

    Args:
        trainable: Whether its weights take gradients.
        name: Name of the layer and of its variable scope; default: from the class name.
        dtype: Dtype of its weights; default: that of the first input.
        activity_regularizer: Function from the output to a loss; graph mode only.
    Raises:
        ArgumentError: an activity regularizer in eager mode. ArgumentTypeError: an unknown keyword.
    Source: TF1 `tf.layers.Layer`.
    """

    #: Whether `call` itself may create variables, so that its scope has to be open at every call.
    _call_makes_variables = True
    #: Whether a call forgets the default names that were taken meanwhile in the enclosing scope, its own too.
    _call_forgets_names = False
    #: Whether the first default name is `<class>_1` (TF1) or `<class>` (Keras).
    _first_name_has_number = True
    #: Base of default names where it is not the class's own name in snake case.
    _class_base_name: str | None = None
    _base_name: str
    __signature__ = _ConstructorSignature()

    def __new__(cls: type[_Made], *args: Any, **kwargs: Any) -> _Made:
        """A layer in its first state, so that a subclass whose constructor forgets this one's still works."""
        layer = super().__new__(cls)
        nn.Module.__init__(layer)
        layer._trainable, layer._dtype, layer._reuse = True, None, None
        layer._base_name = cls._class_base_name or snake_case(cls.__name__)
        layer._layer_name, layer._named = layer._base_name, False
        layer._scope, layer._outer_scope, layer._records, layer._adopted = None, None, {}, set()
        layer._inside, layer._aliases, layer._getters = [], {}, {}
        layer._built = layer._first_call_done = False
        layer._turn = Turn()
        layer._activity_regularizer = None
        layer.__dict__.update(layer._fresh_nodes(), _graph=frame.graph)
        return layer

    def __init__(
        self,
        trainable: bool = True,
        name: str | None = None,
        dtype: DTypeLike = None,
        activity_regularizer: Any = None,
        _reuse: Any = None,
        **unknown: Any,
    ) -> None:
        unknown = {key: value for key, value in unknown.items() if key not in _WITHOUT_EFFECT}
        if unknown:
            raise ArgumentTypeError(
                f"{type(self).__name__}: expected only known keywords, got {min(unknown)!r}. Remove it."
            )
        if name is not None and not isinstance(name, str):
            raise ArgumentTypeError(f"{type(self).__name__}: expected a name as a string, got {name!r}.")
        name = name or None  # TF1 takes an empty one for none
        if _reuse not in (None, False, True) and _reuse is not AUTO_REUSE:
            raise ArgumentError(
                f"{type(self).__name__}: expected reuse None, False, True or AUTO_REUSE, got {_reuse!r}."
            )
        self._trainable = bool(trainable)
        self._base_name = self._base_name if name is None else name
        self._named = name is not None
        self._layer_name = self._default_name() if name is None else name
        self._dtype = None if dtype is None else as_dtype(dtype, type(self).__name__)
        self._reuse = _reuse
        self._init_nodes(activity_regularizer)

    def _default_name(self) -> str:
        store = frame.store
        count = 0 if store is None else store.layer_counts.get(self._base_name, 0)
        if store is not None:
            store.layer_counts[self._base_name] = count + 1
        number = count + int(self._first_name_has_number)
        return f"{self._base_name}_{number}" if number else self._base_name

    # Identity

    @property
    def name(self) -> str:
        """Name given, or the class's with a number counted per graph or store, outside of which each is the first."""
        return self._layer_name

    @property
    def where(self) -> str:
        """How errors call the layer: its class, and its name if it was given one."""
        kind = type(self).__name__
        return f"{kind} {self._layer_name!r}" if self._named else kind

    @property
    def scope_name(self) -> str:
        """Path of its variables. Raises ScopeError before the first call or build."""
        if self._scope is None:
            raise ScopeError(f"{self.where}.scope_name: expected a layer that was called or built, got a new one.")
        return self._scope.name

    @property
    def dtype(self) -> str | None:
        """Name of the weights' dtype, None until known."""
        made = next((weight.dtype for weight in self.variables_made() if weight.dtype.is_floating_point), self._dtype)
        return None if made is None else dtype_name(made)

    def scope_branch(self) -> Branch | None:
        """Identity of the automatically named first part of its scope's path, None when it was named."""
        scope = self._scope or self._outer_scope
        return None if scope is None else scope.branch

    def default_dtype(self, dtype: torch.dtype) -> None:
        """Set the weights' dtype where it is not known yet."""
        if self._dtype is None:
            self._dtype = dtype

    @property
    def built(self) -> bool:
        """Whether the weights exist."""
        return self._built

    @built.setter
    def built(self, value: bool) -> None:
        self._built = bool(value)

    @property
    def first_call_done(self) -> bool:
        """Whether a call has succeeded; no variable is made after that."""
        return self._first_call_done

    # Calling and building

    def __call__(self, inputs: Any, *args: Any, scope: Any = None, **kwargs: Any) -> Any:
        """Call the layer: build it if needed, then run `call(inputs, ...)`.

        Args:
            inputs: A tensor or a structure of tensors; symbolic ones record a node.
            scope: A scope or scope name for its variables, at the first call only.
        """
        symbols = symbols_in(inputs, args, kwargs)
        if symbols:
            with graph_of(symbols, self.where).opened(), self._undone_on_error():
                with self._called_in(scope):
                    if not self._built:
                        self._build_from(inputs)
                return self.recorded(symbols, inputs, args, kwargs)
        if self._first_call_done and not self._call_makes_variables:
            return super().__call__(inputs, *args, **kwargs)
        with self._undone_on_error(), self._called_in(scope):
            if not self._built:
                self._build_from(inputs)
            result = super().__call__(inputs, *args, **kwargs)
            self._check_adopted()
            self._first_call_done = True
            return result

    @contextmanager
    def owning(self) -> Iterator[None]:
        """Make this layer the owner of variables made inside, in the scope that was open at its first call.

        For layers that run without `Layer.__call__`: TF1's oldest cells opened their scopes by hand.
        """
        if frame.owner is self:
            yield
            return
        with self._undone_on_error():
            outer = self._outer_scope = self._outer_scope or replace(frame.scope)
            reuse = frame.store is not None and (self._first_call_done or outer.reuse)
            with opened(replace(outer, reuse=reuse), self, reopened=True):
                yield
            self._built = self._first_call_done = True

    def forward(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Run `call`; `nn.Module` hooks act around it."""
        result = self.call(inputs, *args, **kwargs)
        if result is None:
            raise ArgumentError(
                f"{self.where}.call: expected a tensor or a structure of tensors, got None. Return one."
            )
        return result

    def call(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """The layer's own computation. The base returns its inputs."""
        return inputs

    def apply(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]  # TF1's name for a call
        """Call the layer; given a function alone, `nn.Module.apply`: run it on every submodule."""
        if callable(inputs) and not (isinstance(inputs, torch.Tensor) or args or kwargs or symbols_in(inputs)):
            return super().apply(inputs)
        return self(inputs, *args, **kwargs)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """As in `nn.Module`: `.to()`, `.double()` and so on; a dtype that is known already follows."""
        module = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        before = self._dtype or torch.float32
        after = fn(torch.empty(0, dtype=before, device="cpu")).dtype
        if self._dtype is not None or after != before:
            self._dtype = after
        return module

    def build(self, input_shape: ShapeLike) -> None:
        """Make the weights for inputs of this shape (batch first). The base makes none."""
        self._built = True

    def _take_dtype(self, inputs: Any) -> list[Any]:
        """Tensors among the inputs; the first floating one gives the layer its dtype, if that is still open."""
        leaves = [leaf for leaf in _nest.flatten(inputs) if isinstance(getattr(leaf, "dtype", None), torch.dtype)]
        numbers = [leaf.dtype for leaf in leaves if leaf.dtype.is_floating_point or leaf.dtype.is_complex]
        if self._dtype is None and numbers:
            self._dtype = numbers[0]
        return leaves

    def _build_from(self, inputs: Any) -> None:
        leaves = self._take_dtype(inputs)
        device = leaves[0].device if leaves else torch.get_default_device()
        with unset_fake_temporarily(), torch.device(device):  # torch modules made in `build` are real, too
            self.build(_nest.map_structure(lambda leaf: TensorShape(tuple(leaf.shape)), inputs) if leaves else None)
        self._built = True

    def capture_scope(self, scope: Any = None) -> VariableScope:
        """Fix where the layer's variables go, if that is still open: the given scope, or one of its own name."""
        if self._scope is not None:
            return self._scope
        if self._reuse:
            check_reuse(self._reuse, self.where)
        if isinstance(scope, VariableScope):
            check_reuse(scope.reuse, self.where)
            self._scope = replace(scope)
        elif isinstance(scope, str):
            self._scope = named_scope(scope)
        elif scope is not None:
            raise ArgumentTypeError(f"{self.where}: expected scope as a name or a VariableScope, got {scope!r}.")
        else:
            self._scope = default_scope(self._base_name, unique=not self._reuse)
        return self._scope

    @contextmanager
    def _entered(self, scope: Any = None) -> Iterator[VariableScope]:
        known = self._scope is not None
        captured = self.capture_scope(scope)
        if frame.store is None:
            reuse: Any = False
        elif self._first_call_done:
            reuse = True
        else:
            reuse = self._reuse or captured.reuse
        with opened(replace(captured, reuse=reuse), self, reopened=known) as open_scope:
            yield open_scope

    @contextmanager
    def _called_in(self, scope: Any = None) -> Iterator[None]:
        """The layer's scope as a call opens it.

        TF1's `RNNCell` reopens the enclosing scope by its object around a call, and so forgets the names taken inside.
        Outside a store nothing is shared and nothing collides: there they stay taken, so that names stay distinct.
        """
        forgets = self._call_forgets_names and self._scope is None and scope is None and frame.store is not None
        with opened(frame.scope, reopened=True) if forgets else nullcontext(), self._entered(scope):
            yield

    @contextmanager
    def _undone_on_error(self) -> Iterator[None]:
        """Leave nothing half-made behind: forget what a failing first call or build made, here and in layers inside.

        One thread at a time; what looks like a first call outside may no longer be one inside.
        """
        if self._first_call_done:
            yield
            return
        with self._turn:
            if self.first_call_done:  # another thread's was first
                yield
                return
            with undone_on_error(self._undo()):
                yield

    def _undo(self) -> Callable[[], None]:
        """What brings this layer, the store and the counts of names back to where they are now."""
        kept = {name: copy.copy(self.__dict__[name]) for name in _STATE_OF_BUILDING}
        parameters, store = dict(self._parameters), frame.store
        live, counts = frame.counts, dict(frame.counts)  # of the store that is open now, whichever is open later
        stored = set() if store is None else set(store.variables)

        def undo() -> None:
            for record in self._records.values():
                if store is not None and record.full_name not in stored:
                    store.variables.pop(record.full_name, None)
            self.__dict__.update(kept)
            self._parameters.clear()
            self._parameters.update(parameters)
            live.clear()
            live.update(counts)

        return undo

    # Configuration, copies, state

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments as plain data."""
        return {"name": self.name, "trainable": self.trainable, "dtype": self.dtype}

    def extra_repr(self) -> str:
        """For `print(model)`: the sizes and options that `get_config` knows; of users' own configurations nothing."""
        return shown_arguments(self) if config_is_ours(self) else ""

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """A new layer from what `get_config` returned."""
        return cls(**dict(config))

    def compute_output_shape(self, input_shape: ShapeLike) -> Any:
        """Shape of the output for inputs of this shape; a layer that knows it overrides this."""
        raise NotImplementedError(f"{self.where}.compute_output_shape: this layer does not say its output shape.")

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: everything but caches and the recorded graph, which does not outlive its process."""
        return {**self._copied_state(), **self._fresh_nodes()}

    def _copied_state(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in self._not_copied()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._restore_not_copied()

    def _not_copied(self) -> tuple[str, ...]:
        """Names of attributes that are caches: neither copied nor pickled."""
        return ()

    def _restore_not_copied(self) -> None:
        """Set the caches anew after a copy."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """A copy that shares nothing; a layer of a recorded graph shares its graph and variables, as TF1's did."""
        other = type(self).__new__(type(self))
        memo[id(self)] = other
        if self._graph is not None:
            for variable in self._parameters.values():
                memo[id(variable)] = variable
        for key, value in self._copied_state().items():
            other.__dict__[key] = copy.copy(value) if isinstance(value, VariableScope) else copy.deepcopy(value, memo)
        for scope in (other._scope, other._outer_scope):
            if scope is not None:
                scope.branch = copy.deepcopy(scope.branch, memo)
        other._restore_not_copied()
        return other
