"""The pool of large buffers: reuse, bounds, threads, forks."""

from __future__ import annotations

import gc
import os
import threading

import pytest
import torch

from cellweave.ops.common import _pool
from cellweave.ops.common._pool import SMALLEST, BufferPool, Workspaces

MANY = SMALLEST // 2  # float32 elements: 2 MiB


@pytest.fixture
def pool() -> BufferPool:
    return BufferPool()


def test_a_freed_buffer_is_lent_again(pool: BufferPool) -> None:
    first = pool.empty((2, MANY // 2), torch.float32)
    address = first.data_ptr()
    assert first.shape == (2, MANY // 2) and address % 64 == 0 and pool.idle_bytes() == 0
    del first
    assert pool.idle_bytes() == 2 * SMALLEST
    again = pool.empty((MANY // 2 + 1000,), torch.float64)  # another shape and dtype, nearly the same size
    assert again.data_ptr() != address and pool.idle_bytes() == 2 * SMALLEST
    assert pool.empty((MANY - 1000,), torch.float32).data_ptr() == address


def test_a_view_keeps_its_buffer(pool: BufferPool) -> None:
    whole = pool.empty((MANY,), torch.float32)
    part = whole[5:7]
    part.fill_(3.0)
    del whole
    other = pool.empty((MANY,), torch.float32).fill_(1.0)
    assert part.tolist() == [3.0, 3.0] and pool.idle_bytes() == 0
    del part, other
    assert pool.idle_bytes() == 2 * (2 * SMALLEST)


def test_small_tensors_are_torchs_own(pool: BufferPool) -> None:
    small = pool.empty((SMALLEST // 4 - 1,), torch.float32)
    assert small.untyped_storage().resizable()
    del small
    assert pool.idle_bytes() == 0
    assert pool.empty((0, 5), torch.float32).shape == (0, 5)


def test_idle_memory_is_bounded(pool: BufferPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was used last is kept."""
    monkeypatch.setattr(_pool, "MOST_IDLE", 5 * SMALLEST)
    addresses = []
    for size in (1, 2, 3):
        buffer = pool.empty((size * SMALLEST,), torch.uint8)
        addresses.append(buffer.data_ptr())
        del buffer
    assert pool.idle_bytes() == 5 * SMALLEST
    assert pool.empty((3 * SMALLEST,), torch.uint8).data_ptr() == addresses[2]
    pool.release()
    assert pool.idle_bytes() == 0


def test_fresh_blocks_are_announced() -> None:
    seen: list[tuple[int, int]] = []
    pool = BufferPool(lambda address, size: seen.append((address, size)))
    buffer = pool.empty((MANY,), torch.float32)
    assert seen == [(buffer.data_ptr(), 2 * SMALLEST)]
    del buffer
    pool.empty((MANY,), torch.float32)
    assert len(seen) == 1


@pytest.mark.parametrize("size", [SMALLEST, SMALLEST + 1, 3 * SMALLEST + 5, 2**31 + 1])
def test_little_is_wasted(size: int) -> None:
    rounded = _pool._rounded(size)
    assert size <= rounded <= size * 1.125


def test_contents_are_poisoned_where_torchs_are(pool: BufferPool, nan_poison: None) -> None:
    buffer = pool.empty((MANY,), torch.float32).fill_(0.0)
    del buffer
    assert pool.empty((MANY,), torch.float32).isnan().all()


def test_under_any_mode_and_default_device(pool: BufferPool) -> None:
    with torch.inference_mode(), torch.device("meta"):
        buffer = pool.empty((MANY,), torch.float32)
        assert buffer.device.type == "cpu"
    del buffer
    later = pool.empty((MANY,), torch.float32)
    assert not later.is_inference()
    later.fill_(1.0).requires_grad_()


def test_garbage_collection_inside_the_pool(pool: BufferPool) -> None:
    """A buffer in a cycle may come back at any moment, also while this thread holds the pool's lock."""
    cycle: list[object] = [pool.empty((MANY,), torch.float32)]
    cycle.append(cycle)
    del cycle
    with pool._lock:
        gc.collect()
    assert pool.idle_bytes() == 2 * SMALLEST


def test_many_threads(pool: BufferPool) -> None:
    wrong: list[str] = []

    def work(number: int) -> None:
        for k in range(200):
            mine = pool.empty((SMALLEST,), torch.uint8)
            mine[:16] = number
            mine[-16:] = number
            if k % 3:
                kept = mine[:16]
                del mine
                mine = kept
            if not bool((mine[:16] == number).all()):
                wrong.append(f"thread {number}, round {k}")

    workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []
    assert pool.idle_bytes() < 40 * SMALLEST  # of 800 that were taken


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_fork_while_the_pool_is_busy(pool: BufferPool) -> None:
    _pool.after_fork(pool)
    held = pool.empty((MANY,), torch.float32).fill_(2.0)
    with pool._lock:
        child = os.fork()
        if child == 0:  # nobody would ever unlock the parent's lock here
            fresh = pool.empty((MANY,), torch.float32).fill_(5.0)
            good = fresh.data_ptr() != held.data_ptr() and float(held[0]) == 2.0
            os._exit(0 if good else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert float(held[-1]) == 2.0


class TestWorkspaces:
    """Blocks that a thread keeps."""

    @pytest.fixture
    def spaces(self, pool: BufferPool) -> Workspaces:
        return Workspaces(pool, largest=4 * SMALLEST)

    def test_a_block_serves_one_use_again(self, spaces: Workspaces) -> None:
        first = spaces.take("a", 1000)
        assert first.dtype == torch.uint8 and first.numel() >= 1000 and first.data_ptr() % 64 == 0
        assert spaces.take("a", 10) is first and spaces.take("b", 10) is not first
        larger = spaces.take("a", 2000)
        assert larger.numel() >= 2000 and spaces.take("a", 1000) is larger

    def test_large_ones_are_not_kept(self, spaces: Workspaces, pool: BufferPool) -> None:
        block = spaces.take("a", 5 * SMALLEST)
        assert pool.idle_bytes() == 0
        del block
        assert pool.idle_bytes() >= 5 * SMALLEST

    def test_each_thread_has_its_own(self, spaces: Workspaces) -> None:
        mine, others = spaces.take("a", 10), []
        thread = threading.Thread(target=lambda: others.append(spaces.take("a", 10)))
        thread.start()
        thread.join()
        assert others[0] is not mine and spaces.take("a", 10) is mine

    def test_released_on_demand(self, spaces: Workspaces, pool: BufferPool) -> None:
        first = spaces.take("a", 2 * SMALLEST)
        address = first.data_ptr()
        spaces.release()
        assert pool.idle_bytes() == 0, "whoever uses it still has it"
        del first
        assert pool.idle_bytes() == 2 * SMALLEST
        assert spaces.take("a", 2 * SMALLEST).data_ptr() == address

    def test_a_fresh_one_where_torch_fills(self, spaces: Workspaces, nan_poison: None) -> None:
        first = spaces.take("a", 64)
        assert spaces.take("a", 64) is not first
