"""Draws that were taken from a random stream, or are to be, before anybody needs their numbers."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch

from cellweave.ops.common import BLOCKS_PER_ELEMENT, Stream, note_draw, random_uniform
from cellweave.scopes import Run, seed_state


def note_eager_draw(key: tuple[int, int, torch.dtype]) -> None:
    """Say that an eager stream is about to move."""
    note_draw(key, lambda: seed_state().eager_blocks.get(key, 0), lambda b: seed_state().eager_blocks.update({key: b}))


class RunDraw:
    """One draw that was taken from a stream; it is made into numbers where somebody needs them.

    Attributes:
        seed, seed2, block: Where it begins.
    """

    __slots__ = ("_dtype", "_noise", "_shape", "block", "seed", "seed2")

    def __init__(self, stream: Stream, shape: Sequence[int], dtype: torch.dtype) -> None:
        self.seed, self.seed2, self.block = stream.seed, stream.seed2, stream.block
        self._shape, self._dtype = tuple(shape), dtype
        self._noise: torch.Tensor | None = None

    def noise(self, device: torch.device) -> torch.Tensor:
        """The numbers; they stay on the device that asked first."""
        if self._noise is None:
            self._noise = random_uniform(self._shape, self._dtype, self.seed, self.seed2, self.block, device=device)[0]
        return self._noise


class StepDraws:
    """What a mask that is drawn at every step will take from its stream.

    Attributes:
        key: Which stream; masks that share one follow each other within a step.
        blocks: How many blocks one step takes.
    """

    __slots__ = ("_loop", "_stream", "blocks", "key")

    def __init__(self, stream: Stream, elements: int, run: Run) -> None:
        self.key: Hashable = id(stream)
        self.blocks = BLOCKS_PER_ELEMENT * elements
        self._stream, self._loop = stream, run.loop

    def start(self) -> tuple[int, int, int]:
        """seed, seed2 and block of the stream's next draw."""
        return self._stream.seed, self._stream.seed2, self._stream.block

    def take(self, blocks: int, steps: int) -> None:
        """Move the stream past all draws: `steps` times `blocks`."""
        stream, elements = self._stream, blocks // BLOCKS_PER_ELEMENT
        stream.advance(elements, steps)
        if self._loop is not None:
            _, drawn = self._loop.drawn.get(self.key, (None, 0))
            self._loop.drawn[self.key] = (lambda back: stream.advance(elements, -back), drawn + steps)


class EagerDraws:
    """As `StepDraws`, from a stream that the whole process shares."""

    __slots__ = ("blocks", "key")

    def __init__(self, key: tuple[int, int, torch.dtype], elements: int) -> None:
        self.key = key
        self.blocks = BLOCKS_PER_ELEMENT * elements

    def start(self) -> tuple[int, int, int]:
        """seed, seed2 and block of the stream's next draw."""
        return self.key[0], self.key[1], seed_state().eager_blocks.get(self.key, 0)

    def take(self, blocks: int, steps: int) -> None:
        """Move the stream past all draws: `steps` times `blocks`."""
        table = seed_state().eager_blocks
        note_eager_draw(self.key)
        table[self.key] = (table.get(self.key, 0) + blocks * steps) % 2**64
