"""Structures of states, walked without the library's own helpers: tests judge those."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any


def _is_level(value: Any) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, tuple | list) and type(value).__module__ != "torch")


def flatten(value: Any) -> list[Any]:
    """Leaves depth first in element order, dicts by sorted key."""
    if not _is_level(value):
        return [value]
    items: Iterable[Any] = [value[k] for k in sorted(value)] if isinstance(value, Mapping) else value
    return [leaf for item in items for leaf in flatten(item)]


def pack(like: Any, leaves: list[Any]) -> Any:
    """A structure like `like` with these leaves; all of them must be used."""
    rest = list(leaves)
    packed = _pack(like, rest)
    if rest:
        raise AssertionError(f"structure {like!r} has {len(leaves) - len(rest)} leaves, the golden has {len(leaves)}")
    return packed


def _pack(like: Any, rest: list[Any]) -> Any:
    if not _is_level(like):
        if not rest:
            raise AssertionError("the structure has more leaves than the golden")
        return rest.pop(0)
    if isinstance(like, Mapping):
        return {k: _pack(like[k], rest) for k in sorted(like)}
    items = [_pack(item, rest) for item in like]
    return type(like)(*items) if hasattr(like, "_fields") else type(like)(items)


def picture(value: Any) -> str:
    """One line with `*` for each leaf: `(LSTMStateTuple(c=*, h=*), *)`."""
    if not _is_level(value):
        return "*"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}: {picture(value[k])}" for k in sorted(value)) + "}"
    if hasattr(value, "_fields"):
        pairs = (f"{k}={picture(v)}" for k, v in zip(value._fields, value, strict=True))
        return f"{type(value).__name__}({', '.join(pairs)})"
    inner = ", ".join(picture(item) for item in value)
    return f"[{inner}]" if isinstance(value, list) else f"({inner})"


def normal_picture(text: str) -> str:
    """A golden's picture in the form of `picture`: named leaves (`[h, c]`) and trailing commas are spelling."""
    text = re.sub(r"\b[A-Za-z_]\w*\b(?![=(:])", "*", text)
    return re.sub(r",\s*([)\]])", r"\1", text)
