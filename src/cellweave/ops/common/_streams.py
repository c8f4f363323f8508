"""Random streams: where each mask of a dropout wrapper stands in its sequence of draws."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from cellweave._errors import ShapeError
from cellweave.ops.common._philox import BLOCKS_PER_ELEMENT, random_uniform
from cellweave.ops.common._repeats import note_draw, note_place

#: Kinds of masks, in the order in which a saved table numbers them.
KINDS = ("input", "state", "output")
_COLUMNS = 8
_MASK64 = (1 << 64) - 1


@dataclass
class Stream:
    """The state of one random op: its seed pair and the block that its next draw starts at.

    `seed2` and `block` are the halves of one counter: a block number past 2**64 carries into `seed2`.
    """

    seed: int
    seed2: int
    block: int = 0

    def peek(
        self, shape: Sequence[int], dtype: torch.dtype, device: torch.device | str | None, draws: int = 1
    ) -> torch.Tensor:
        """The next `draws` draws, `[draws, *shape]`, without moving the stream."""
        return random_uniform(shape, dtype, self.seed, self.seed2, self.block, draws=draws, device=device)

    def advance(self, elements: int, draws: int = 1) -> None:
        """Move past `draws` draws of `elements` elements each (back, when negative)."""
        note_draw(id(self), self._place, self._put)
        counter = (self.seed2 << 64) + self.block + BLOCKS_PER_ELEMENT * elements * draws
        self.seed2, self.block = (counter >> 64) & _MASK64, counter & _MASK64

    def note_use(self, seed2: int, block: int) -> None:
        """Say that what was drawn at a place before is used again."""
        note_place(id(self), self._place, self._put, (seed2, block))

    def _place(self) -> tuple[int, int]:
        return self.seed2, self.block

    def _put(self, place: tuple[int, int]) -> None:
        self.seed2, self.block = place


@dataclass(frozen=True)
class Site:
    """Which mask: its kind, its index in the structure, and which op of it.

    Attributes:
        kind: "input", "state" or "output".
        index: Position in the flattened structure, undropped positions counted.
        node: Node of a recorded graph, 0 outside one.
        call: How many ops of this mask the run had before.
    """

    kind: str
    index: int
    node: int = 0
    call: int = 0


class StreamTable:
    """The streams of one wrapper, created as its masks are first drawn."""

    def __init__(self) -> None:
        self._streams: dict[Site, Stream] = {}

    def get(self, site: Site, seeds: Callable[[], tuple[int, int]]) -> Stream:
        """The stream at `site`; a new one takes its seed pair from `seeds()`."""
        stream = self._streams.get(site)
        if stream is None:
            stream = self._streams[site] = Stream(*seeds())
        return stream

    def sites(self) -> Iterable[Site]:
        """The masks drawn so far."""
        return self._streams.keys()

    def to_tensor(self) -> torch.Tensor:
        """The whole table, int64 `[sites, 8]`: kind, index, node, call, seed, seed2, block (64-bit patterns), 0."""
        rows = [
            [KINDS.index(s.kind), s.index, s.node, s.call, signed64(t.seed), signed64(t.seed2), signed64(t.block), 0]
            for s, t in self._streams.items()
        ]
        return torch.tensor(rows, dtype=torch.int64, device="cpu").reshape(len(rows), _COLUMNS)

    def load_tensor(self, table: torch.Tensor, where: str) -> None:
        """Take every stream from a table that `to_tensor` made; streams it does not hold start anew."""
        if table.dim() != 2 or table.shape[1] != _COLUMNS or table.dtype != torch.int64:
            raise ShapeError(f"{where}: expected a stream table int64 [sites, {_COLUMNS}], got {list(table.shape)}.")
        fresh: dict[Site, Stream] = {}
        for kind, index, node, call, seed, seed2, block, _ in table.tolist():
            if not 0 <= kind < len(KINDS):
                raise ShapeError(f"{where}: expected mask kinds 0..{len(KINDS) - 1} in the stream table, got {kind}.")
            fresh[Site(KINDS[kind], index, node, call)] = Stream(seed & _MASK64, seed2 & _MASK64, block & _MASK64)
        self._streams = fresh


def signed64(value: int) -> int:
    """The signed number with the same 64 bits."""
    return value - (1 << 64) if value >> 63 else value
