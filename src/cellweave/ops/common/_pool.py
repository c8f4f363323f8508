"""Large buffers that are used again: fresh ones cost a page fault every 4 KiB, 10 to 20 % of a training step."""

from __future__ import annotations

import collections
import math
import os
import threading
import weakref
from collections.abc import Callable
from typing import Protocol

import torch

#: Smaller tensors come from torch: its allocator keeps those pages itself.
SMALLEST = 1 << 20
#: Idle bytes that are kept for later; what comes back beyond them is freed, the longest idle first.
MOST_IDLE = 1 << 30
#: Sizes are rounded up to this many parts of a power of two, so that buffers of similar sizes serve each other.
_PARTS = 8


class BufferPool:
    """Blocks of memory, each lent to one tensor at a time; a block comes back when that tensor's storage is freed.

    Usable from several threads. A forked child starts without idle blocks.

    Args:
        advise: Called with the address and bytes of each fresh block.
    """

    def __init__(self, advise: Callable[[int, int], None] | None = None) -> None:
        self._advise = advise
        self._lock = threading.Lock()
        self._idle: dict[int, list[torch.Tensor]] = {}  # by bytes; the order of the keys is that of their last use
        self._idle_bytes = 0
        # Appended to without the lock: a block may come back while this very thread holds it, by garbage collection.
        self._returned: collections.deque[torch.Tensor] = collections.deque()

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """A tensor on the CPU with undefined contents, as `torch.empty` gives."""
        elements = math.prod(shape)
        if elements * dtype.itemsize < SMALLEST:
            return torch.empty(shape, dtype=dtype, device="cpu")
        block = self._take(_rounded(elements * dtype.itemsize))
        lease = block.numpy()  # a view of its own: the tensor made from it keeps it, and nothing else does
        weakref.finalize(lease, self._give_back, block).atexit = False
        found = torch.frombuffer(lease, dtype=dtype, count=elements).view(shape)
        if _fills_now():
            found.fill_(math.nan)  # as torch does with its own
        return found

    def idle_bytes(self) -> int:
        """Bytes that are kept and not lent."""
        with self._lock:
            self._collect()
            return self._idle_bytes

    def release(self) -> None:
        """Free every idle block."""
        with self._lock:
            self._collect()
            self._idle.clear()
            self._idle_bytes = 0

    def start_anew(self) -> None:
        """For a forked child: a thread of the parent's may have held the lock, halfway through a change."""
        self._lock = threading.Lock()
        self._idle, self._idle_bytes = {}, 0
        self._returned = collections.deque()

    def _take(self, size: int) -> torch.Tensor:
        with self._lock:
            self._collect()
            blocks = self._idle.get(size)
            if blocks:
                self._idle_bytes -= size
                block = blocks.pop()
                if not blocks:
                    del self._idle[size]
                return block
        block = torch.empty(size, dtype=torch.uint8, device="cpu")
        if self._advise is not None:
            self._advise(block.data_ptr(), size)
        return block

    def _give_back(self, block: torch.Tensor) -> None:
        self._returned.append(block)
        if_free(self._lock, self._collect)

    def _collect(self) -> None:
        while self._returned:
            block = self._returned.popleft()
            size = block.numel()
            self._idle[size] = [*self._idle.pop(size, ()), block]  # now the latest key
            self._idle_bytes += size
        while self._idle_bytes > MOST_IDLE:
            oldest = next(iter(self._idle))
            self._idle[oldest].pop(0)
            if not self._idle[oldest]:
                del self._idle[oldest]
            self._idle_bytes -= oldest


def if_free(lock: threading.Lock, act: Callable[[], None]) -> None:
    """Do something under a lock, unless somebody holds it, who will do it in time: perhaps this very thread."""
    if lock.acquire(blocking=False):
        try:
            act()
        finally:
            lock.release()


class _Blocks:
    """A thread's blocks by what they are for."""

    def __init__(self) -> None:
        self.by_use: dict[str, torch.Tensor] = {}


class Workspaces:
    """Blocks that each thread keeps for the time of one call after another: nothing in them outlives a call.

    Args:
        pool: Where blocks come from.
        largest: Bytes up to which a block is kept; larger ones go back to the pool after the call.
    """

    def __init__(self, pool: BufferPool, largest: int) -> None:
        self._pool, self._largest = pool, largest
        self.start_anew()

    def start_anew(self) -> None:
        """For a forked child."""
        self._local = threading.local()
        self._all: weakref.WeakSet[_Blocks] = weakref.WeakSet()

    def take(self, use: str, size: int) -> torch.Tensor:
        """At least `size` bytes with undefined contents, this thread's until it asks for the same use again."""
        blocks: _Blocks | None = getattr(self._local, "blocks", None)
        if blocks is None:
            blocks = self._local.blocks = _Blocks()
            self._all.add(blocks)
        block = blocks.by_use.get(use)
        if block is None or block.numel() < size or _fills_now():
            block = self._pool.empty((size,), torch.uint8)
            if size <= self._largest:
                blocks.by_use[use] = block
        return block

    def release(self) -> None:
        """Forget all threads' blocks; those in use live on until their calls end."""
        for blocks in list(self._all):
            blocks.by_use.clear()


def _fills_now() -> bool:
    """Torch fills what it makes with NaN, so that reading what nobody wrote shows."""
    return torch.are_deterministic_algorithms_enabled() and _fills()


def _fills() -> bool:
    return bool(torch.utils.deterministic.fill_uninitialized_memory)  # type: ignore[attr-defined]


def _rounded(size: int) -> int:
    step = 1 << max(0, size.bit_length() - int(math.log2(_PARTS)) - 1)
    return (size + step - 1) // step * step


class StartsAnew(Protocol):
    """What a forked child must not go on with as it is."""

    def start_anew(self) -> None:
        """Be as new."""


def after_fork(kept: StartsAnew) -> None:
    """Make it usable in forked children, where the system has them."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=kept.start_anew)
