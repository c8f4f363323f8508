"""Unrolls that compiled code leaves as they are."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.utils import _pytree as pytree

from cellweave.specs import LSTMStateTuple

_Function = TypeVar("_Function", bound=Callable[..., Any])

#: The functions marked, by name.
marked: dict[str, Callable[..., Any]] = {}

pytree._register_namedtuple(LSTMStateTuple, serialized_type_name="cellweave.LSTMStateTuple")  # for saved exports


def runs_outside_graphs(function: _Function) -> _Function:
    """Make torch.compile leave a function as it is: compiled code stops, calls it, and goes on."""
    name = function.__name__
    marked[name] = function

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_dynamo_compiling():
            from cellweave.layers._untraced import untraced

            return untraced[name](*args, **kwargs)
        return function(*args, **kwargs)

    return call  # type: ignore[return-value]
