"""variable_scope and get_variable, with TF1's rules for names and reuse."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import nn

from cellweave._errors import ArgumentError, ArgumentTypeError, ScopeError
from cellweave._types import DTypeLike, ShapeLike
from cellweave.scopes._context import Branch, VariableScope, check_reuse, frame, opened, unique_name
from cellweave.scopes._variables import VariableRequest, requested

#: What TensorFlow takes for a name; at the root it begins with a letter, a digit or a dot.
_CHARACTERS = re.compile(r"[A-Za-z0-9_.\\/>-]*")
_AT_ROOT = re.compile(r"[A-Za-z0-9.]")


def get_variable_scope() -> VariableScope:
    """The variable scope that is open here."""
    return frame.scope


def named_scope(name: str, **changes: Any) -> VariableScope:
    """The scope `name` below the open one; slashes make levels. An empty one adds nothing but the slash before it."""
    if name:
        _check_name("variable_scope", name)
    return frame.scope.child(name, **changes)


def _check_name(where: str, name: str) -> None:
    """Raise unless TensorFlow takes this name in the scope that is open: checkpoints hold nothing else."""
    if not _CHARACTERS.fullmatch(name) or not (frame.scope.name or _AT_ROOT.match(name)):
        start = "" if frame.scope.name else ", that begins with a letter, a digit or a dot"
        raise ArgumentError(f"{where}: expected a name of letters, digits and any of _.\\/>-{start}, got {name!r}.")


def default_scope(default_name: str, *, unique: bool = True, **changes: Any) -> VariableScope:
    """The scope that TF1 gives a default name: made unique in the open scope unless `unique` is False."""
    scope = named_scope(unique_name(default_name) if unique else default_name, **changes)
    if frame.store is None and not frame.scope.name:
        scope.branch = Branch()
    return scope


@contextmanager
def variable_scope(
    name_or_scope: str | VariableScope | None,
    default_name: str | None = None,
    values: Any = None,
    initializer: Any = None,
    regularizer: Any = None,
    caching_device: Any = None,
    partitioner: Any = None,
    custom_getter: Any = None,
    reuse: Any = None,
    dtype: DTypeLike = None,
    use_resource: Any = None,
    constraint: Any = None,
    auxiliary_name_scope: bool = True,
) -> Iterator[VariableScope]:
    """Open a scope: variables and layers made inside get its path and defaults.

    Args:
        name_or_scope: A name below the open scope, or a scope object to open again at its own path. An empty name is
            the root at the root, and below "a" the scope "a/", whose variables are "a//v".
        default_name: Used when the name is None; made unique with `_1`, `_2`, ...
        initializer, regularizer, constraint, partitioner, custom_getter, dtype: Defaults inside; None inherits.
        reuse: True: existing names only; AUTO_REUSE: create or share; None or False: inherited. Needs a store.
        values, caching_device, use_resource, auxiliary_name_scope: Accepted for TF1 callers, without effect.
    Raises:
        ScopeError: `reuse` outside a store, or with a default name. ArgumentError: a name or a reuse that TF1 does not
            take. ArgumentTypeError: neither name given.
    Source: TF1 `tf.variable_scope`.
    """
    check_reuse(reuse, "variable_scope")
    given = {
        "initializer": initializer,
        "regularizer": regularizer,
        "partitioner": partitioner,
        "custom_getter": custom_getter,
        "dtype": dtype,
        "constraint": constraint,
        "reuse": reuse or None,
    }
    changes = {key: value for key, value in given.items() if value is not None}
    outer = (name_or_scope if isinstance(name_or_scope, VariableScope) else frame.scope).custom_getter
    if custom_getter is not None and outer is not None:
        changes["custom_getter"] = lambda getter, *args, **kwargs: custom_getter(
            functools.partial(outer, getter), *args, **kwargs
        )
    if isinstance(name_or_scope, VariableScope):
        check_reuse(name_or_scope.reuse, "variable_scope")
        with opened(replace(name_or_scope, **changes), reopened=True) as scope:
            yield scope
        return
    if name_or_scope is not None:
        if not isinstance(name_or_scope, str):
            raise ArgumentTypeError(f"variable_scope: expected a name or a VariableScope, got {name_or_scope!r}.")
        scope = named_scope(name_or_scope, **changes)
    elif default_name is not None:
        if reuse:
            raise ScopeError("variable_scope: expected a name because reuse was asked for, got only a default name.")
        scope = default_scope(default_name, **changes)
    else:
        raise ArgumentTypeError("variable_scope: expected a name, a scope or a default name, got None.")
    with opened(scope):
        yield scope


def get_variable(
    name: str,
    shape: ShapeLike | None = None,
    dtype: DTypeLike = None,
    initializer: Any = None,
    regularizer: Any = None,
    trainable: bool | None = None,
    collections: Any = None,
    caching_device: Any = None,
    partitioner: Any = None,
    validate_shape: bool = True,
    use_resource: Any = None,
    custom_getter: Any = None,
    constraint: Any = None,
) -> nn.Parameter:
    """Create or get the variable `name` of the open scope.

    Inside a layer's `call` the variable belongs to that layer: it is made at the first call and found again later. In a
    store it is kept under its full name. Outside both, every call makes a new, unnamed parameter.

    Args:
        name: Suffix below the open scope; slashes make levels.
        shape: Sizes in elements; None takes them from an initializer that is a tensor.
        dtype: Default: the scope's, else float32.
        initializer: See `cellweave.initializers`; default: the scope's, else Glorot uniform (zeros for integers).
        regularizer: Function from the variable to a scalar loss, or None.
        trainable: Whether it takes gradients; default True.
        partitioner: Number of slices along axis 0 in a TF1 checkpoint; numerically neutral.
        custom_getter: Called as `custom_getter(getter, name=..., ...)` in place of the getter.
        constraint: Function from the variable to its constrained value; see `apply_constraints`.
        collections, caching_device, validate_shape, use_resource: Accepted for TF1 callers, without effect.
    Raises:
        ScopeError: the name exists and is not to be reused, or is to be reused and does not exist.
        ScopeError, ShapeError: the existing variable has another dtype, another shape.
    Source: TF1 `tf.get_variable`.
    """
    _check_name("get_variable", name)
    request = VariableRequest(
        name=f"{frame.scope.name}/{name}" if frame.scope.name else name,
        shape=shape,
        dtype=dtype,
        initializer=initializer,
        regularizer=regularizer,
        trainable=trainable,
        partitioner=partitioner,
        constraint=constraint,
    )
    return requested(request, custom_getter)
