"""Weights that stay packed between calls without gradients: used again, and never when anything about them changed."""

from __future__ import annotations

import copy
import gc
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import cellweave as cw
from cellweave import keras
from cellweave.ops.common import _packed_weights
from cellweave.ops.common._library import core, missing_reason
from cellweave.ops.common._native_call import PACKED, release_workspace
from helpers.tolerances import assert_same_bits

D, H = 5, 6
CELLS: dict[str, Callable[[], Any]] = {
    "rnn": lambda: cw.BasicRNNCell(H),
    "gru": lambda: cw.GRUCell(H),
    "gru-after": lambda: keras.GRUCell(H),
    "lstm": lambda: cw.LSTMCell(H, use_peepholes=True, num_proj=4),
}


@pytest.fixture(autouse=True)
def nothing_packed() -> Iterator[None]:
    reason = missing_reason()
    if reason is not None:
        pytest.skip(f"native: {reason}")
    if core().isa == "plain":
        pytest.skip("native: the plain loops pack nothing")
    PACKED.release()
    yield
    PACKED.release()


@pytest.fixture(params=[1, 5], ids=["ahead", "in-the-loop"])
def x(request: pytest.FixtureRequest) -> torch.Tensor:
    """Few rows have their input products made ahead of the loop, from packed weights of their own."""
    return torch.randn(4, request.param, D)


def _run(cell: Any, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        out, state = cw.dynamic_rnn(cell, x, dtype="float32", time_major=True)
    return torch.cat([out.flatten(), *[leaf.flatten() for leaf in (state if isinstance(state, tuple) else [state])]])


def _fresh(cell: Any, x: torch.Tensor) -> torch.Tensor:
    """With nothing packed before."""
    PACKED.release()
    return _run(cell, x)


def _packed() -> list[torch.Tensor]:
    return [kept.packed for kept in PACKED._kept.values()]


@pytest.fixture(params=list(CELLS))
def cell(request: pytest.FixtureRequest, x: torch.Tensor) -> Any:
    """A cell that ran before."""
    made = CELLS[request.param]()
    _run(made, x)
    return made


def test_used_again(cell: Any, x: torch.Tensor) -> None:
    wanted = _fresh(cell, x)
    (packed,) = _packed()
    assert_same_bits("second call", _run(cell, x), wanted)
    assert [kept is packed for kept in _packed()] == [True]
    packed.zero_()  # what the next call reads
    assert not torch.equal(_run(cell, x), wanted)


def test_each_kind_of_call_has_its_own(cell: Any, x: torch.Tensor) -> None:
    _run(cell, torch.randn(2, 1, D))
    _run(cell, torch.randn(2, 40, D))
    assert len(_packed()) == 2
    _run(cell, torch.randn(9, 1, D))
    _run(cell, torch.randn(3, 7, D).transpose(0, 1).contiguous().transpose(0, 1))
    assert len(_packed()) == 2
    assert PACKED.kept_bytes() == sum(packed.numel() for packed in _packed())


def _step_of_optimizer(cell: Any, x: torch.Tensor) -> None:
    out, _ = cw.dynamic_rnn(cell, x, dtype="float32", time_major=True)
    out.sum().backward()
    torch.optim.SGD(cell.parameters(), lr=0.5).step()


def _load(cell: Any, x: torch.Tensor) -> None:
    cell.load_state_dict({name: value + 0.25 for name, value in cell.state_dict().items()})


def _load_by_assigning(cell: Any, x: torch.Tensor) -> None:
    cell.load_state_dict({name: value + 0.25 for name, value in cell.state_dict().items()}, assign=True)


def _through_data(cell: Any, x: torch.Tensor) -> None:
    for weight in cell.parameters():
        weight.data.mul_(-1.0)


def _other_data(cell: Any, x: torch.Tensor) -> None:
    for weight in cell.parameters():
        weight.data = weight.data + 0.5


def _in_place(cell: Any, x: torch.Tensor) -> None:
    with torch.no_grad():
        for weight in cell.parameters():
            weight.add_(0.5)


def _in_inference_mode(cell: Any, x: torch.Tensor) -> None:
    with torch.inference_mode():
        for weight in cell.parameters():
            weight.add_(0.5)


def _through_numpy(cell: Any, x: torch.Tensor) -> None:
    for weight in cell.parameters():
        weight.detach().numpy()[...] *= 2.0


def _one_element(cell: Any, x: torch.Tensor) -> None:
    next(cell.parameters()).data[-1, -1] += 1.0


CHANGES = [
    _step_of_optimizer, _load, _load_by_assigning, _through_data, _other_data, _in_place, _in_inference_mode,
    _through_numpy, _one_element,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__.strip("_"))
def test_a_change_is_seen(cell: Any, x: torch.Tensor, change: Callable[[Any, torch.Tensor], None]) -> None:
    before = _run(cell, x)
    change(cell, x)
    after = _run(cell, x)
    assert not torch.equal(before, after)
    assert_same_bits("after the change", after, _fresh(cell, x))


def test_another_dtype(cell: Any, x: torch.Tensor) -> None:
    before = _run(cell, x)
    cell.double()
    with torch.no_grad():
        cw.dynamic_rnn(cell, x.double(), dtype="float64", time_major=True)
    cell.float()
    assert_same_bits("there and back", _run(cell, x), before)


def test_copies_are_apart(cell: Any, x: torch.Tensor) -> None:
    before = _run(cell, x)
    other = copy.deepcopy(cell)
    assert_same_bits("copy", _run(other, x), before)
    _through_data(other, x)
    changed = _run(other, x)
    assert not torch.equal(changed, before)
    assert_same_bits("the first", _run(cell, x), before)
    assert_same_bits("copy after its change", changed, _fresh(other, x))


def test_freed_with_the_cell(x: torch.Tensor) -> None:
    cell = cw.GRUCell(H)
    _run(cell, x)
    assert PACKED.kept_bytes() > 0
    del cell
    gc.collect()
    assert PACKED.kept_bytes() == 0 and not PACKED._kept


def test_released_on_demand(cell: Any, x: torch.Tensor) -> None:
    assert PACKED.kept_bytes() > 0
    release_workspace()
    assert PACKED.kept_bytes() == 0


def test_bounded(monkeypatch: pytest.MonkeyPatch, x: torch.Tensor) -> None:
    cells = [cw.GRUCell(H) for _ in range(4)]
    _run(cells[0], x)
    one = PACKED.kept_bytes()
    monkeypatch.setattr(_packed_weights, "MOST_KEPT", 2 * one + one // 2)
    for cell in (cells[1], cells[0], cells[2]):
        _run(cell, x)
    first = _packed()
    assert PACKED.kept_bytes() == 2 * one  # the second went: the first was used after it
    _run(cells[0], x)
    assert {id(packed) for packed in _packed()} == {id(packed) for packed in first}
    monkeypatch.setattr(_packed_weights, "MOST_KEPT", one - 1)
    wanted = _run(cells[3], x)
    assert_same_bits("too large to keep", _run(cells[3], x), wanted)


def test_nothing_is_kept_of_a_training_step(x: torch.Tensor) -> None:
    cell = cw.GRUCell(H)
    cw.dynamic_rnn(cell, x, dtype="float32", time_major=True)
    assert PACKED.kept_bytes() == 0


def test_nothing_is_kept_without_versions(x: torch.Tensor) -> None:
    cell = cw.GRUCell(H)
    _run(cell, x)
    with torch.inference_mode():
        cell.load_state_dict({name: value + 0.0 for name, value in cell.state_dict().items()}, assign=True)
        assert all(weight.is_inference() for weight in cell.parameters())
        PACKED.release()
        before = _run(cell, x)
        assert PACKED.kept_bytes() == 0
        for weight in cell.parameters():
            weight.add_(0.5)
        assert not torch.equal(_run(cell, x), before)


def test_nothing_is_kept_without_a_step(x: torch.Tensor) -> None:
    cell = cw.GRUCell(H)
    wanted = _run(cell, x)
    PACKED.release()
    _run(cell, x[:0])
    assert PACKED.kept_bytes() == 0
    assert_same_bits("afterwards", _run(cell, x), wanted)


def test_parts_of_a_long_sequence(monkeypatch: pytest.MonkeyPatch, x: torch.Tensor) -> None:
    from cellweave.ops.common import _native_form

    cell = cw.LSTMCell(H)
    wanted = _run(cell, x)
    monkeypatch.setattr(_native_form, "PART_BYTES", 1)
    cell = copy.deepcopy(cell)  # how a sequence is cut is kept with the cell
    for turn in range(2):
        assert_same_bits(f"turn {turn}", _run(cell, x), wanted)
    assert_same_bits("with nothing packed", _fresh(cell, x), wanted)


def test_two_threads_at_once() -> None:
    """Of threads that meet unpacked weights at the same time each sees whole ones."""
    x = torch.randn(3, 2, 64)
    cell = cw.LSTMCell(96)
    wanted = _run(cell, x)
    differ: list[int] = []

    def work(gate: threading.Barrier) -> None:
        torch.set_num_threads(1)
        for turn in range(40):
            gate.wait()
            if not torch.equal(_run(cell, x), wanted):
                differ.append(turn)
            if gate.wait() == 0:
                PACKED.release()

    gate = threading.Barrier(2)
    threads = [threading.Thread(target=work, args=(gate,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not differ


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_starts_without() -> None:
    cell, x = cw.GRUCell(H), torch.randn(2, 1, D)
    _run(cell, x)
    with PACKED._lock:  # as a thread of the parent's may hold it
        child = os.fork()
        if child == 0:
            os._exit(0 if PACKED.kept_bytes() == 0 else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
