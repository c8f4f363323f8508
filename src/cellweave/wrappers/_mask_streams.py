"""The random streams behind a dropout wrapper's masks."""

from __future__ import annotations

import functools
import hashlib
import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from cellweave._errors import ShapeError
from cellweave.ops.common import BLOCKS_PER_ELEMENT, KINDS, Site, Stream, StreamTable, random_uniform, signed64
from cellweave.scopes import Run, is_probing, op_seeds, seed_state
from cellweave.wrappers._mask_draws import EagerDraws, RunDraw, StepDraws, note_eager_draw

#: Steps of a loop are drawn ahead together up to this many elements.
_AHEAD = 1 << 22
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_SAVED_COLUMNS = 5
_USED, _OWN = 0, 1


def mask_seed(seed: int | None, kind: str, index: int) -> int | None:
    """Op seed of mask `index` of a kind: 31 bits of the MD5 of the wrapper's seed and the mask's name.

    Source: TF1 `DropoutWrapper._gen_seed`.
    """
    if seed is None:
        return None
    digest = hashlib.md5(f"{seed}{kind}_{index}".encode(), usedforsecurity=False).hexdigest()
    return int(digest[:8], 16) & 0x7FFFFFFF


class _Preparing(threading.local):
    active = False


_preparing = _Preparing()


@contextmanager
def preparing_streams() -> Iterator[None]:
    """While shapes are learnt, make the streams that a run would make, in its order, and leave them at their start."""
    outer, _preparing.active = _preparing.active, True
    try:
        yield
    finally:
        _preparing.active = outer


@functools.lru_cache(maxsize=1024)
def _site(kind: str, index: int, node: int = 0, op: int = 0) -> Site:
    """A site made once: to look one up is quicker than to make it."""
    return Site(kind, index, node, op)


class MaskStreams:
    """One stream per mask and op, as a TF1 session holds them."""

    def __init__(self, seed: int | None) -> None:
        self.seed = seed
        self.table = StreamTable()

    def _stream(self, site: Site) -> Stream:
        return self.table.get(site, lambda: op_seeds(mask_seed(self.seed, site.kind, site.index)))

    def per_step(self, kind: str, index: int, like: torch.Tensor, run: Run, op: int) -> torch.Tensor:
        """The next noise of a per-step mask, shaped like a value; steps of a loop follow each other."""
        if is_probing():
            if _preparing.active:
                self._stream(Site(kind, index, run.node, op))
            return torch.empty_like(like)
        stream = self._stream(_site(kind, index, run.node, op))
        shape, loop = tuple(like.shape), run.loop
        count = math.prod(shape)
        if loop is None:
            noise = stream.peek(shape, like.dtype, like.device)[0]
            stream.advance(count)
            return noise
        key = (id(stream), shape, like.dtype)
        ahead, position = loop.cache.get(key, (None, 0))
        if ahead is None or position == len(ahead):
            draws = max(1, min(loop.steps_left, _AHEAD // max(1, count)))
            ahead, position = stream.peek(shape, like.dtype, like.device, draws), 0
        loop.cache[key] = (ahead, position + 1)
        stream.advance(count)
        _, drawn = loop.drawn.get(id(stream), (None, 0))
        loop.drawn[id(stream)] = (lambda steps: stream.advance(count, -steps), drawn + 1)
        return ahead[position]  # type: ignore[no-any-return]

    def draws(self, kind: str, index: int, elements: int, run: Run, op: int) -> StepDraws:
        """What a per-step mask of so many elements will take."""
        return StepDraws(self._stream(_site(kind, index, run.node, op)), elements, run)

    def per_run(
        self, kind: str, index: int, shape: Sequence[int], dtype: torch.dtype, device: torch.device, run: Run
    ) -> torch.Tensor:
        """The noise of a variational mask: drawn once per run."""
        if is_probing():
            if _preparing.active and (run.keep(self), kind, index, tuple(shape)) not in run.memo:
                self._stream(Site(kind, index))
            return torch.empty(tuple(shape), dtype=dtype, device=device)
        return self.draw(kind, index, tuple(shape), dtype, run).noise(device)

    def draw(self, kind: str, index: int, shape: tuple[int, ...], dtype: torch.dtype, run: Run) -> RunDraw:
        """A variational mask's draw of this run: taken from the stream once, by whoever comes first."""
        key = (run.keep(self), kind, index, shape)
        found: RunDraw | None = run.memo.get(key)
        if found is None:
            stream = self._stream(_site(kind, index))
            found = run.memo[key] = RunDraw(stream, shape, dtype)
            stream.advance(math.prod(shape))
        else:
            self._stream(_site(kind, index)).note_use(found.seed2, found.block)
        return found


class EagerStreams:
    """TF2's eager streams: one per graph seed, op seed and dtype in the whole process.

    Masks without a seed have streams of their own, which start anew at every `set_random_seed`.
    """

    def __init__(self, seed: int | None) -> None:
        self.seed = seed
        self._own: dict[tuple[str, int], tuple[int, int]] = {}
        self._resets = -1
        self._used: dict[tuple[int, int, torch.dtype], None] = {}

    def _seeds(self, kind: str, index: int) -> tuple[int, int]:
        seed = mask_seed(self.seed, kind, index)
        if seed is not None:
            return op_seeds(seed)
        if self._resets != seed_state().resets:
            self._own.clear()
            self._resets = seed_state().resets
        if (kind, index) not in self._own:
            self._own[kind, index] = op_seeds(None)
        return self._own[kind, index]

    def draw(
        self, kind: str, index: int, shape: Sequence[int], dtype: torch.dtype, device: torch.device | None
    ) -> torch.Tensor:
        """The next noise of a mask."""
        if is_probing():
            if _preparing.active:
                self._seeds(kind, index)
            return torch.empty(tuple(shape), dtype=dtype, device=device)
        key = (*self._seeds(kind, index), dtype)
        blocks = seed_state().eager_blocks
        note_eager_draw(key)
        noise = random_uniform(shape, dtype, key[0], key[1], blocks.get(key, 0), device=device)[0]
        blocks[key] = (blocks.get(key, 0) + BLOCKS_PER_ELEMENT * math.prod(shape)) % 2**64
        self._used[key] = None
        return noise

    def draws(self, kind: str, index: int, elements: int, dtype: torch.dtype) -> EagerDraws:
        """What a mask of so many elements will take."""
        key = (*self._seeds(kind, index), dtype)
        self._used[key] = None
        return EagerDraws(key, elements)

    def to_tensor(self) -> torch.Tensor:
        """What the wrapper's masks need to go on: int64 `[rows, 5]`.

        A row holds 0, seed, seed2, dtype's number, block of a stream that was used; or 1, kind, index, seed, seed2 of a
        mask without a seed.
        """
        blocks = seed_state().eager_blocks
        rows = [[_USED, key[0], key[1], _DTYPES.index(key[2]), blocks.get(key, 0)] for key in self._used]
        rows += [[_OWN, KINDS.index(kind), index, *pair] for (kind, index), pair in self._own.items()]
        signed = [[signed64(value) for value in row] for row in rows]
        return torch.tensor(signed, dtype=torch.int64, device="cpu").reshape(len(rows), _SAVED_COLUMNS)

    def load_tensor(self, table: torch.Tensor, where: str) -> None:
        """Go on where `to_tensor` was; the process's streams of the same seeds move too."""
        if table.dim() != 2 or table.shape[1] != _SAVED_COLUMNS or table.dtype != torch.int64:
            raise ShapeError(
                f"{where}: expected a stream table int64 [rows, {_SAVED_COLUMNS}], got {list(table.shape)}."
            )
        numbers_below = {_USED: len(_DTYPES), _OWN: len(KINDS)}
        for row in table.tolist():
            number = row[3] if row[0] == _USED else row[1]
            if not 0 <= number < numbers_below.get(row[0], 0):
                raise ShapeError(f"{where}: expected rows of a stream table, got {row}.")
        self._own, self._used, self._resets = {}, {}, seed_state().resets
        for row, a, b, c, d in table.tolist():
            if row == _USED:
                key = (a % 2**64, b % 2**64, _DTYPES[c])
                self._used[key] = None
                seed_state().eager_blocks[key] = d % 2**64
            else:
                self._own[KINDS[a], b] = (c % 2**64, d % 2**64)
