"""Creating one variable, or finding it again: in its layer, or in the open store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch._subclasses.fake_tensor import unset_fake_temporarily

from cellweave._errors import ArgumentError, ScopeError, ShapeError
from cellweave._types import as_dtype, dtype_name, shape_dims
from cellweave.scopes._context import AUTO_REUSE, frame
from cellweave.scopes._initializers import GlorotUniform, Zeros, as_tensor_of, deserialize

if TYPE_CHECKING:
    from cellweave.scopes._store import VariableStore


@dataclass
class VariableRequest:
    """What was asked for; `get_variable` and `Layer.add_weight` both make one."""

    name: str
    shape: Any = None
    dtype: Any = None
    initializer: Any = None
    regularizer: Any = None
    trainable: bool | None = None
    partitioner: Any = None
    constraint: Any = None
    ignore_scope_initializer: bool = False


#: Initializers that are values, not functions that make one.
_VALUES = (torch.Tensor, np.ndarray, np.generic, list, tuple, int, float)
#: What a scope gives its variables unless they are asked for with their own.
_INHERITED = ("dtype", "regularizer", "partitioner", "constraint")


@dataclass
class VariableRecord:
    """What a layer knows of one of its variables.

    Attributes:
        full_name: TF1 name without `:0`.
        attribute: Name of the parameter in the layer.
        trainable: As it was created; the layer's own `trainable` comes on top.
        regularizer, constraint: Functions of the variable, or None.
        pieces: Slices along axis 0 in a TF1 checkpoint.
    """

    full_name: str
    attribute: str
    trainable: bool = True
    regularizer: Any = None
    constraint: Any = None
    pieces: int = 1


def requested(request: VariableRequest, custom_getter: Any = None) -> nn.Parameter:
    """The variable, with the open scope's defaults, by way of a custom getter where there is one."""
    scope = frame.scope
    defaults = {key: getattr(scope, key) for key in _INHERITED if getattr(request, key) is None}
    if request.initializer is None and not request.ignore_scope_initializer:
        defaults["initializer"] = scope.initializer
    if isinstance(defaults.get("initializer", request.initializer), _VALUES):
        defaults.pop("dtype", None)  # a value brings its own
    elif frame.owner is not None and defaults.get("dtype", request.dtype) is None:
        defaults["dtype"] = frame.owner.dtype
    request = replace(request, **defaults)
    getter = scope.custom_getter if custom_getter is None else custom_getter
    if getter is None:
        return create_or_get(request)
    made = by_getter(request, getter, create_or_get)
    if frame.owner is not None:
        frame.owner.note_getter(request, getter, made)
    return made  # type: ignore[no-any-return]


def by_getter(request: VariableRequest, getter: Any, make: Callable[[VariableRequest], Any]) -> Any:
    """What a custom getter gives for a request; `make` stands for TF1's own getter."""

    def inner(name: str, **changes: Any) -> Any:
        return make(replace(request, name=name, **changes))

    given = {key: value for key, value in vars(request).items() if key != "ignore_scope_initializer"}
    return getter(inner, **given)


def create_or_get(request: VariableRequest) -> nn.Parameter:
    """The variable that the request names, by the rules of the open store or of the layer that owns it."""
    owner, store = frame.owner, frame.store
    own = owner.find_variable(request.name) if owner is not None else None
    if own is not None:
        if owner is not None and owner.first_call_done:
            _check_same(request, own)
            return own
        if store is None:
            raise ScopeError(_exists(request.name))
    elif owner is not None and owner.first_call_done:
        raise ScopeError(
            f"get_variable: expected {request.name!r} to exist because its layer is built, got no such variable. "
            "Create all variables in the first call."
        )
    variable, shared = (_new(request), False) if store is None else _from_store(request, store)
    if owner is not None:
        variable = owner.own_variable(request, variable, shared=shared)
        for layer in frame.around:
            layer.note_inside(owner, request.name)
    if frame.graph is not None and request.regularizer is not None and not shared:
        frame.graph.regularized.append((owner, request.name, variable, request.regularizer))
    return variable


def _from_store(request: VariableRequest, store: VariableStore) -> tuple[nn.Parameter, bool]:
    reuse = frame.scope.reuse
    existing = store.variables.get(request.name)
    if existing is None:
        if reuse is True:
            raise ScopeError(
                f"get_variable: expected {request.name!r} in the store because reuse=True, got no such variable. "
                "Create it first, or use reuse=AUTO_REUSE."
            )
        created = store.variables[request.name] = _new(request)
        return created, False
    if reuse is not True and reuse is not AUTO_REUSE:
        raise ScopeError(_exists(request.name))
    _check_same(request, existing)
    return existing, True


def _exists(name: str) -> str:
    return (
        f"get_variable: expected a new variable {name!r}, got one that exists already. "
        "Use another scope or name, call the same cell object again, or share it with reuse=True."
    )


def _check_same(request: VariableRequest, existing: nn.Parameter) -> None:
    if request.shape is not None and _full_shape(request) != tuple(existing.shape):
        raise ShapeError(
            f"get_variable: expected {request.name!r} of shape {list(existing.shape)} because it exists, "
            f"got {list(_full_shape(request))}."
        )
    dtype = request.dtype
    if dtype is not None and as_dtype(dtype) != existing.dtype:
        raise ScopeError(
            f"get_variable: expected {request.name!r} of dtype {dtype_name(existing.dtype)} because it exists, "
            f"got {dtype_name(as_dtype(dtype))}."
        )


def _full_shape(request: VariableRequest) -> tuple[int, ...]:
    dims = shape_dims(request.shape)
    if any(dim is None for dim in dims):
        raise ShapeError(f"get_variable: expected a known shape for {request.name!r}, got {list(dims)}.")
    return tuple(dim for dim in dims if dim is not None)


def _as_value(value: Any) -> torch.Tensor:
    """A tensor in the dtype that TF1 gives a value: an array's own; float32 and, where they fit, int32 for Python's."""
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        return torch.as_tensor(value)
    seen = torch.as_tensor(value, device="cpu")
    dtype = torch.float32 if seen.is_floating_point() else seen.dtype
    if dtype == torch.int64 and bool((seen == seen.to(torch.int32)).all()):
        dtype = torch.int32
    return torch.as_tensor(value, dtype=dtype)


def _new(request: VariableRequest) -> nn.Parameter:
    initializer = deserialize(request.initializer, request.name)
    fixed = _as_value(initializer) if isinstance(initializer, _VALUES) else None
    initializer = initializer if fixed is None else fixed
    own = torch.float32 if fixed is None else fixed.dtype
    resolved = own if request.dtype is None else as_dtype(request.dtype)
    if request.shape is None and fixed is None:
        raise ArgumentError(f"get_variable: expected a shape for the new variable {request.name!r}, got None.")
    shape = tuple(fixed.shape) if request.shape is None and fixed is not None else _full_shape(request)
    takes_gradient = resolved.is_floating_point or resolved.is_complex
    if initializer is None:
        initializer = GlorotUniform() if takes_gradient else Zeros()
    trainable = request.trainable is not False and takes_gradient
    # a real variable, also where the first call runs on stand-ins, under inference mode or in a function transform
    with unset_fake_temporarily(), torch.inference_mode(False), temporarily_clear_interpreter_stack():
        with torch.no_grad():
            value = as_tensor_of(initializer, shape, resolved, request.name)
        return nn.Parameter(value, requires_grad=trainable)
