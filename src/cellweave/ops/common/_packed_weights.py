"""Weights that stay packed between calls, for as long as the tensors that they come from stay what they are."""

from __future__ import annotations

import collections
import threading
import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from cellweave.ops.common._library import core
from cellweave.ops.common._pool import if_free

#: Bytes that are kept; beyond them those go that were longest not used. Larger weights are packed at every call.
MOST_KEPT = 1 << 28
#: Bytes of a weight from which on a second thread pays for looking whether it has changed.
_WORTH_A_THREAD = 1 << 18

#: Which weights, for which kind of call.
Key = tuple[Any, ...]


#: Of each weight: its version, where its numbers lie, and their digest.
_Facts = list[tuple[int, int, int]]


class _Kept(NamedTuple):
    packed: torch.Tensor
    tensors: tuple[weakref.ref[torch.Tensor], ...]
    facts: _Facts


class Packing(NamedTuple):
    """What `PackedWeights.find` found for a call.

    Attributes:
        packed: The packed weights; None: there are none yet.
        key, weights, facts: What `keep` needs once they are packed.
    """

    packed: torch.Tensor | None
    key: Key
    weights: Sequence[torch.Tensor]
    facts: _Facts


class PackedWeights:
    """Packed weights by the tensors that they were made from.

    They are used again while each tensor is the same object, of the same version, at the same address, and its numbers
    have the same digest: that sees writes which leave no trace in the version, such as those through `tensor.data`.
    What is kept is never written again, so that several threads may read it. A tensor that dies takes its entries with
    it. A forked child starts without any.
    """

    def __init__(self) -> None:
        self.start_anew()

    def start_anew(self) -> None:
        """For a forked child: a thread of the parent's may have held the lock, halfway through a change."""
        self._lock = threading.Lock()
        self._kept: dict[Key, _Kept] = {}  # in the order of their last use
        self._bytes = 0
        # Appended to without the lock: a tensor may die while this very thread holds it, by garbage collection.
        self._dead: collections.deque[Key] = collections.deque()

    def find(self, kind: Key, weights: Sequence[torch.Tensor], threads: int) -> Packing | None:
        """What is known of these weights; None: they have no version, nothing may be kept.

        Args:
            kind: Everything else that the packed form depends on.
            weights: Dense.
            threads: For the digest.
        """
        key, facts = kind, []
        for weight in weights:
            if weight.is_inference():
                return None
            key += (id(weight),)
            facts.append(_facts_of(weight, threads))
        with self._lock:
            if self._dead:
                self._collect()
            kept = self._kept.get(key)
            if kept is None or kept.facts != facts or not _are_alive(kept, weights):
                return Packing(None, key, weights, facts)
            self._kept[key] = self._kept.pop(key)  # now the latest
        return Packing(kept.packed, key, weights, facts)

    def keep(self, found: Packing, packed: torch.Tensor) -> None:
        """Keep what a call has packed for what was found."""
        if packed.numel() > MOST_KEPT:
            return
        key = found.key
        tensors = tuple([weakref.ref(weight, lambda _: self._take_out(key)) for weight in found.weights])
        with self._lock:
            self._collect()
            self._drop(key)
            self._kept[key] = _Kept(packed, tensors, found.facts)
            self._bytes += packed.numel()
            while self._bytes > MOST_KEPT:
                self._drop(next(iter(self._kept)))

    def kept_bytes(self) -> int:
        """How many bytes are kept."""
        with self._lock:
            self._collect()
            return self._bytes

    def release(self) -> None:
        """Forget everything."""
        with self._lock:
            self._kept.clear()
            self._bytes = 0

    def _take_out(self, key: Key) -> None:
        self._dead.append(key)
        if_free(self._lock, self._collect)

    def _collect(self) -> None:
        while self._dead:
            self._drop(self._dead.popleft())

    def _drop(self, key: Key) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._bytes -= kept.packed.numel()


def _facts_of(weight: torch.Tensor, threads: int) -> tuple[int, int, int]:
    address, size = weight.data_ptr(), weight.numel() * weight.dtype.itemsize
    digest = core().digest(address, size, threads if size >= _WORTH_A_THREAD else 1)
    return weight._version, address, digest


def _are_alive(kept: _Kept, weights: Sequence[torch.Tensor]) -> bool:
    return all([tensor() is weight for tensor, weight in zip(kept.tensors, weights, strict=True)])  # noqa: C419
