"""Whether modules are still what steps were prepared from: asked at every step, so it has to cost next to nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from operator import is_
from typing import Any

import torch
from torch import nn

from cellweave.weave._backend import asked_backend
from cellweave.weave._tree import hooks_of


class Watch:
    """What prepared steps rest on.

    It sees parameters that were replaced or written to, hooks, other modules inside, attributes of modules that hold
    others, a cell that says something else of itself or whose weights, where it makes them itself, become others, and
    another `use_backend`. It does not see numbers that are written to parameters through `.data`.

    Args:
        modules: All modules that a step runs.
        cells: Those of them whose `spec()` was relied on.
    """

    def __init__(self, modules: Iterable[nn.Module], cells: Iterable[Any] = ()) -> None:
        modules = list(modules)
        self._asked = asked_backend()
        #: (the dict that holds a parameter, its name there, the parameter, its version, where its numbers lie)
        self._weights: list[tuple[dict[str, Any], str, torch.Tensor, int, int]] = [
            (module._parameters, name, weight, weight._version, weight.data_ptr())
            for module in modules
            for name, weight in module._parameters.items()
            if weight is not None
        ]
        self._empty: list[Any] = [hooks for module in modules for hooks in hooks_of(module)]
        self._empty += [module._modules for module in modules if not module._modules]
        self._same = [
            (home, tuple(home.values()))
            for module in modules
            if module._modules
            for home in (vars(module), module._modules)
        ]
        cells = list(cells)
        self._told = [(vars(cell), len(vars(cell)), cell.spec, cell.spec()) for cell in cells]
        seen = {id(weight) for _, _, weight, _, _ in self._weights}
        self._made = [(cell.named_weights, made) for cell in cells if (made := _made_weights(cell, seen)) is not None]

    def holds(self) -> bool:
        """Whether nothing of it has changed."""
        for home, name, weight, version, address in self._weights:
            if home.get(name) is not weight or weight._version != version or weight.data_ptr() != address:
                return False
        if any(self._empty) or asked_backend() != self._asked:
            return False
        for own, size, tell, spec in self._told:
            if len(own) != size or ((now := tell()) is not spec and now != spec):
                return False
        for home, values in self._same:
            if len(home) != len(values) or not all(map(is_, home.values(), values)):
                return False
        return not self._made or all(_are_same(tell(), made) for tell, made in self._made)


def _made_weights(cell: Any, seen: set[int]) -> dict[str, torch.Tensor] | None:
    """A cell's weights as they are, copies of those that are no watched parameters; None: all are, always.

    Users' cells may make theirs of anything: attributes, buffers, other variables through a scope's `custom_getter`.
    """
    weights = cell.named_weights()
    watched = {name: id(weight) in seen for name, weight in weights.items()}
    if all(watched.values()) and _is_the_librarys(type(cell).named_weights):
        return None
    return {name: weight if watched[name] else weight.detach().clone() for name, weight in weights.items()}


def _is_the_librarys(method: Callable[..., Any]) -> bool:
    return method.__module__.partition(".")[0] == __name__.partition(".")[0]


def _are_same(weights: Mapping[str, torch.Tensor], made: Mapping[str, torch.Tensor]) -> bool:
    """Whether weights have the numbers that they had."""
    for name, before in made.items():
        now = weights.get(name)
        if now is not before and (now is None or now.dtype != before.dtype or not torch.equal(now, before)):
            return False
    return True


def can_watch(modules: Iterable[nn.Module]) -> bool:
    """Whether a `Watch` sees writes to all parameters: those made in inference mode count none."""
    return not any(weight.is_inference() for module in modules for weight in module.parameters(recurse=False))
