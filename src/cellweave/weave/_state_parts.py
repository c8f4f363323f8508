"""Where each cell's states lie in the state of the whole composition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cellweave import _nest
from cellweave._shape import TensorShape
from cellweave.specs import CellSpec, LSTMSpec


@dataclass(frozen=True)
class Piece:
    """Some columns of one leaf of the composition's state.

    Attributes:
        leaf: Position of the leaf in the flattened state.
        start, stop: Columns; None for a leaf that is no matrix of known width, which is taken whole.
        whole: It is all of the leaf.
    """

    leaf: int
    start: int | None
    stop: int | None
    whole: bool = True

    @property
    def width(self) -> int | None:
        """Number of columns, None where that is not known."""
        return None if self.start is None or self.stop is None else self.stop - self.start

    def columns(self, start: int, stop: int) -> Piece:
        """Some of its columns."""
        first = self.start or 0
        return Piece(self.leaf, first + start, first + stop, self.whole and stop - start == self.width)

    def of(self, leaves: Any) -> Any:
        """The piece, out of the leaves."""
        return leaves[self.leaf] if self.whole else leaves[self.leaf][:, self.start : self.stop]


def pieces_of(state_size: Any) -> Any:
    """A structure like a cell's `state_size` that holds the piece of each leaf."""
    numbers = iter(range(len(_nest.flatten(state_size))))

    def piece(size: Any) -> Piece:
        dims = TensorShape(size).dims
        known = len(dims) == 1 and dims[0] is not None
        return Piece(next(numbers), 0 if known else None, dims[0] if known else None)

    return _nest.map_structure(piece, state_size)


def states_of(spec: CellSpec, part: Any, order: str) -> tuple[Piece, ...] | None:
    """The states of a cell, `(h,)` or `(c, h)`, out of its part of the state; None where the two do not fit.

    Args:
        spec: The cell's.
        part: Pieces in the structure of the cell's `state_size`.
        order: "ch" or "hc": which of an LSTM's two leaves comes first.
    """
    leaves = _nest.flatten(part)
    if not isinstance(spec, LSTMSpec):
        fits = len(leaves) == 1 and leaves[0].width == spec.units
        return (leaves[0],) if fits else None
    units, width = spec.units, spec.output_size
    if len(leaves) == 1 and leaves[0].width == units + width:
        return leaves[0].columns(0, units), leaves[0].columns(units, units + width)
    if len(leaves) == 2:
        c, h = leaves if order == "ch" else reversed(leaves)
        if (c.width, h.width) == (units, width):
            return c, h
    return None


class Packing:
    """A cell's state, taken apart into its leaves and put together again.

    Args:
        state_size: The cell's.
    """

    def __init__(self, state_size: Any) -> None:
        self._size = state_size
        self._kind: Any = None
        self._inside: list[Packing] = []
        if _nest.is_sequence(state_size):
            self._kind = type(state_size)
            self._inside = [Packing(size) for size in state_size]
        self._flat = self._kind is not None and not any(_nest.is_nested(size) for size in state_size)
        self._by_fields = hasattr(state_size, "_fields")

    def leaves_of(self, state: Any) -> list[Any] | None:
        """The leaves; None where the state's structure is not the very one of the size."""
        if self._kind is None:
            return None if _nest.is_nested(self._size) or isinstance(state, tuple | list | dict) else [state]
        if type(state) is not self._kind or len(state) != len(self._inside):
            return None
        leaves: list[Any] = []
        for packing, part in zip(self._inside, state, strict=True):
            found = packing.leaves_of(part)
            if found is None:
                return None
            leaves += found
        return leaves

    def pack(self, leaves: list[Any]) -> Any:
        """The state that holds these leaves."""
        if self._kind is None:
            return leaves[0] if not _nest.is_nested(self._size) else _nest.pack(self._size, leaves)
        if self._flat:
            return self._kind(*leaves) if self._by_fields else self._kind(leaves)
        return _nest.pack(self._size, leaves)
