"""Structures: tuples, lists, namedtuples and dicts of leaves, in TF1's flatten order.

Depth first in element order, dicts by sorted key. A TensorShape or a torch.Size is a leaf, as a tensor is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeGuard

import torch

from cellweave._errors import ArgumentError, ArgumentTypeError, StructureError
from cellweave._types import Nest


def is_nested(value: Any) -> TypeGuard[Any]:
    """Whether `value` is a structure rather than a leaf."""
    return isinstance(value, tuple | list | Mapping) and not isinstance(value, torch.Size)


def is_sequence(value: Any) -> bool:
    """Whether `value` is a tuple, list or namedtuple (not a dict)."""
    return isinstance(value, tuple | list) and not isinstance(value, torch.Size)


def _is_namedtuple(value: Any) -> bool:
    return isinstance(value, tuple) and hasattr(value, "_fields")


def children(value: Nest) -> list[Any]:
    """The elements one level down, in flatten order."""
    if isinstance(value, Mapping):
        return [value[key] for key in sorted(value)]
    return list(value)


def rebuild(like: Nest, items: Sequence[Any]) -> Any:
    """One level of the structure `like`, holding `items` in flatten order."""
    if isinstance(like, Mapping):
        by_key = dict(zip(sorted(like), items, strict=True))
        return type(like)((key, by_key[key]) for key in like)  # type: ignore[call-arg]
    if _is_namedtuple(like):
        return type(like)(*items)
    return type(like)(items)


def _walk(value: Nest) -> Iterator[Any]:
    if not is_nested(value):
        yield value
        return
    for child in children(value):
        yield from _walk(child)


def flatten(value: Nest) -> list[Any]:
    """The leaves of `value` in flatten order; a leaf alone gives a list of one."""
    return list(_walk(value))


def _pack(like: Nest, leaves: Iterator[Any]) -> Any:
    if not is_nested(like):
        return next(leaves)
    return rebuild(like, [_pack(child, leaves) for child in children(like)])


def pack(like: Nest, leaves: Sequence[Any]) -> Any:
    """A structure like `like` whose leaves are `leaves`."""
    expected = len(flatten(like))
    if expected != len(leaves):
        raise ArgumentError(f"pack: expected {expected} leaves for {describe(like)}, got {len(leaves)}.")
    return _pack(like, iter(leaves))


def map_structure(function: Callable[..., Any], *structures: Nest) -> Any:
    """Apply `function` to matching leaves of equal structures."""
    first = structures[0]
    for other in structures[1:]:
        same_structure(first, other, "map_structure")
    columns = zip(*(flatten(structure) for structure in structures), strict=True)
    return _pack(first, iter([function(*leaves) for leaves in columns]))


def _same_kind(a: Any, b: Any) -> bool:
    if _is_namedtuple(a) or _is_namedtuple(b):
        return (
            _is_namedtuple(a) and _is_namedtuple(b) and type(a).__name__ == type(b).__name__ and a._fields == b._fields
        )
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return True
    return type(a) is type(b)


def same_structure(expected: Nest, got: Nest, where: str, *, check_types: bool = True) -> None:
    """Raise unless both structures are alike.

    Raises:
        ArgumentTypeError: a level has another type (a list is not a tuple). ArgumentError: another number of elements.
        StructureError: a leaf where a structure is due, or the other way round.
    """
    if is_nested(expected) != is_nested(got):
        raise StructureError(f"{where}: expected structure {describe(expected)}, got {describe(got)}.")
    if not is_nested(expected):
        return
    if check_types and not _same_kind(expected, got):
        raise ArgumentTypeError(f"{where}: expected structure {describe(expected)}, got {describe(got)}.")
    if isinstance(expected, Mapping) and isinstance(got, Mapping) and set(expected) != set(got):
        raise ArgumentError(f"{where}: expected keys {sorted(expected)}, got {sorted(got)}.")
    mine, theirs = children(expected), children(got)
    if len(mine) != len(theirs):
        raise ArgumentError(f"{where}: expected {len(mine)} elements as in {describe(expected)}, got {describe(got)}.")
    for a, b in zip(mine, theirs, strict=True):
        same_structure(a, b, where, check_types=check_types)


def retyped(like: Nest, value: Nest) -> Any:
    """`value` in the types of `like`, down to where one of them is no sequence, or has another length."""
    if not (is_sequence(like) and is_sequence(value) and len(like) == len(value)):
        return value
    return rebuild(like, [retyped(a, b) for a, b in zip(like, value, strict=True)])


def describe(value: Nest) -> str:
    """A one-line picture of a structure with `*` for each leaf, such as `(LSTMStateTuple(c=*, h=*), *)`."""
    if not is_nested(value):
        return "*"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {describe(value[key])}" for key in sorted(value)) + "}"
    if _is_namedtuple(value):
        fields = ", ".join(f"{name}={describe(item)}" for name, item in zip(value._fields, value, strict=True))
        return f"{type(value).__name__}({fields})"
    inner = ", ".join(describe(item) for item in value)
    if isinstance(value, list):
        return f"[{inner}]"
    return f"({inner},)" if len(value) == 1 else f"({inner})"
