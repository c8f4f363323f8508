"""What may be loaded and saved: a module, a pair of cells, or several modules by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from cellweave._errors import ArgumentTypeError


class Parts(nn.Module):
    """Modules under names, for parts that no one module holds."""


def as_model(where: str, given: Any) -> nn.Module:
    """The module that was given, or one that holds what was given.

    Args:
        where: How errors call the caller.
        given: A module; a mapping from names to such things; a pair (fw, bw); in these, lists, whose elements
            are called `cell_0`, `cell_1`, ...
    Raises:
        ArgumentTypeError: anything else.
    """
    if isinstance(given, nn.Module):
        return given
    if isinstance(given, Mapping):
        named = dict(given)
    elif isinstance(given, tuple) and len(given) == 2:
        named = dict(zip(("fw", "bw"), given, strict=True))
    elif isinstance(given, list | tuple) and given:
        named = {f"cell_{index}": part for index, part in enumerate(given)}
    else:
        raise ArgumentTypeError(
            f"{where}: expected a module, a pair (fw, bw) or a dict of modules, got {type(given).__name__}."
        )
    parts = Parts()
    for name, part in named.items():
        if not isinstance(name, str) or not name or "." in name or hasattr(parts, name):
            raise ArgumentTypeError(f"{where}: expected names of modules as strings without dots, got {name!r}.")
        parts.add_module(name, as_model(where, part))
    return parts
