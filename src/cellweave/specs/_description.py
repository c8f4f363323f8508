"""Whether a cell's `spec()` still tells what the cell computes."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any, get_args

from cellweave.specs._cells import CellSpec
from cellweave.specs._nodes import DeviceSpec, DropoutSpec, MapSpec, NodeSpec, ResidualSpec, StackSpec
from cellweave.specs._stepped import SteppedSpec

#: What a step computes lies in these, and in private methods.
_PUBLIC = frozenset(("call", "forward", "__call__", "state_size", "output_size"))
_NODES = (*get_args(CellSpec), DropoutSpec, ResidualSpec, DeviceSpec, MapSpec, StackSpec)


@dataclass(frozen=True)
class _Class:
    """What is known of a class: why its spec does not count, and the names that no instance may replace."""

    refusal: str | None
    fixed: frozenset[str]


_classes: weakref.WeakKeyDictionary[type, _Class] = weakref.WeakKeyDictionary()


def describe(cell: Any) -> tuple[NodeSpec | None, str]:
    """The spec of a cell or wrapper, or None and the reason why it has none.

    A subclass inherits `spec()` only while it changes nothing that a step computes: a class below the one that defines
    `spec`, or the object itself, that has its own `call`, `forward`, `__call__`, `state_size`, `output_size` or private
    method counts as having no spec. A `SteppedSpec` is no spec either; the reason is its own.

    Raises:
        Whatever the cell's own `spec()` raises.
    """
    kind = type(cell)
    known = _classes.get(kind)
    if known is None:
        known = _classes[kind] = _judge(kind)
    own = getattr(cell, "__dict__", None) or {}
    if "spec" not in own:
        if known.refusal is not None:
            return None, known.refusal
        if not known.fixed.isdisjoint(own):
            names = ", ".join(sorted(known.fixed & own.keys()))
            return None, f"this {kind.__name__} has its own {names}, which its spec() does not know"
    spec = cell.spec()
    if isinstance(spec, _NODES):
        return spec, ""
    if isinstance(spec, SteppedSpec):
        return None, f"{kind.__name__}: {spec.reason}"
    return None, f"spec() of {kind.__name__} gives {type(spec).__name__}, which is no spec"


def _judge(kind: type) -> _Class:
    order = kind.__mro__
    home = next((number for number, cls in enumerate(order) if "spec" in vars(cls)), None)
    if home is None:
        return _Class(f"{kind.__name__} has no spec()", frozenset())
    private = {name for cls in order[home:] for name, value in vars(cls).items() if _is_private_code(name, value)}
    fixed = frozenset(_PUBLIC | private)
    for cls in order[:home]:
        changed = sorted(fixed & vars(cls).keys())
        if changed:
            reason = f"{cls.__name__} has its own {', '.join(changed)}, which spec() of {order[home].__name__} does not"
            return _Class(f"{reason} know", fixed)
    return _Class(None, fixed)


def _is_private_code(name: str, value: Any) -> bool:
    private = name.startswith("_") and not name.startswith("__")
    return private and (callable(value) or isinstance(value, property | classmethod | staticmethod))
