"""Which parts of a state dropout reaches: the visitor's decisions over a structure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from cellweave import _nest
from cellweave._errors import ArgumentError, ArgumentTypeError
from cellweave._tensor_array import TensorArray
from cellweave._types import Nest
from cellweave.specs import LSTMStateTuple

Visitor = Callable[[Any], Any]


def default_visitor(state: Any) -> Any:
    """TF1's default: never the c of an LSTM, everything else."""
    if isinstance(state, LSTMStateTuple):
        return LSTMStateTuple(c=False, h=True)
    return not isinstance(state, TensorArray)


def visit_everything(state: Any) -> bool:
    """TF2's default: every item."""
    return True


@dataclass(frozen=True)
class Place:
    """A leaf that dropout reaches.

    Attributes:
        leaf: Its position among all leaves of the structure.
        pruned: Its position among the visitor's decisions, where a whole sublevel left alone counts once.
    """

    leaf: int
    pruned: int


def places(visitor: Visitor, state: Nest, where: str) -> list[Place]:
    """The leaves of `state` that the visitor selects, top down.

    Raises:
        ArgumentTypeError: the visitor returned something other than a bool or one level of bools.
        ArgumentError: one level of another length.
    """
    found: list[Place] = []
    leaf = 0
    for pruned, (value, selected) in enumerate(_decide(visitor, state, where)):
        if selected:
            found.append(Place(leaf, pruned))
        leaf += len(_nest.flatten(value))
    return found


def _decide(visitor: Visitor, value: Nest, where: str) -> Iterator[tuple[Any, bool]]:
    decision = visitor(value)
    if not _nest.is_nested(value):
        yield value, _as_bool(decision, where)
        return
    if not _nest.is_nested(decision):
        if not _as_bool(decision, where):
            yield value, False
            return
        per_child = [True] * len(value)
    else:
        wanted = f"{where}: expected the visitor to return a level like {_nest.describe(value)}, got {decision!r}."
        if not isinstance(value, type(decision)):
            raise ArgumentTypeError(wanted)
        if isinstance(value, dict) and set(value) != set(decision):
            raise ArgumentError(wanted)
        per_child = [_as_bool(item, where) for item in _nest.children(decision)]
        if len(per_child) != len(value):
            raise ArgumentError(f"{where}: expected the visitor to return {len(value)} bools, got {len(per_child)}.")
    for child, descend in zip(_nest.children(value), per_child, strict=True):
        if descend:
            yield from _decide(visitor, child, where)
        else:
            yield child, False


def _as_bool(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise ArgumentTypeError(
            f"{where}: expected the visitor to return a bool, or one level of bools, got {value!r}."
        )
    return value
