"""Threads whose first calls of one layer come at once: one makes the variables, the others wait and share them."""

from __future__ import annotations

import copy
import pickle
import threading
from typing import Any

import pytest
import torch

import cellweave as cw
from cellweave import keras
from cellweave.scopes._turn import Turn

N = 3
X = torch.ones(2, 4, 5)
MAKERS: dict[str, Any] = {
    "gru": lambda slow: cw.GRUCell(N, kernel_initializer=slow),
    "keras": lambda slow: keras.LSTMCell(N, kernel_initializer=slow),
    "stack": lambda slow: cw.MultiRNNCell([cw.GRUCell(N, kernel_initializer=slow), cw.BasicLSTMCell(N)]),
    "wrapped": lambda slow: cw.DropoutWrapper(cw.LSTMCell(N, initializer=slow), output_keep_prob=1.0),
    "cudnn": lambda slow: cw.CudnnLSTM(1, N, kernel_initializer=slow),
}


class Slow:
    """An initializer that lets its first call wait for the test, and fail then if asked to."""

    def __init__(self, *, fails: bool) -> None:
        self.fails, self.threads = fails, set[int]()
        self.begun, self.second, self.goes_on = threading.Event(), threading.Event(), threading.Event()

    def __call__(self, shape: Any, dtype: torch.dtype, *_: Any, **__: Any) -> torch.Tensor:
        first = not self.threads
        self.threads.add(threading.get_ident())
        if first:
            self.begun.set()
            assert self.goes_on.wait(20)
            if self.fails:
                raise ValueError("asked to fail")
        elif len(self.threads) > 1:
            self.second.set()
        return torch.full(tuple(shape), 0.1, dtype=dtype)


def run(layer: Any) -> torch.Tensor:
    if isinstance(layer, cw.CudnnLSTM):
        return layer(X)[0].detach()
    return cw.dynamic_rnn(layer, X, dtype="float32")[0].detach()


@pytest.mark.parametrize("fails", [False, True], ids=["succeeds", "fails"])
@pytest.mark.parametrize("name", MAKERS)
def test_the_second_thread_waits(name: str, fails: bool) -> None:
    slow = Slow(fails=fails)
    layer, results = MAKERS[name](slow), dict[int, Any]()

    def call(number: int) -> None:
        try:
            results[number] = run(layer)
        except Exception as error:  # noqa: BLE001  # the test looks at it
            results[number] = error

    threads = [threading.Thread(target=call, args=(number,)) for number in range(2)]
    threads[0].start()
    assert slow.begun.wait(20)
    threads[1].start()
    assert not slow.second.wait(0.3)
    slow.goes_on.set()
    for thread in threads:
        thread.join(20)
    expected = MAKERS[name](lambda shape, dtype, *_, **__: torch.full(tuple(shape), 0.1, dtype=dtype))
    run(expected)
    wanted = run(layer)
    assert [key for key, _ in layer.named_parameters()] == [key for key, _ in expected.named_parameters()]
    assert list(cw.variable_names(layer)) == list(cw.variable_names(expected))
    if fails:
        assert isinstance(results[0], ValueError)
    else:
        assert torch.equal(results[0], wanted)
    assert torch.equal(results[1], wanted)
    assert len(slow.threads) == 1 + fails


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda cell: pickle.loads(pickle.dumps(cell))], ids=["copy", "pickle"]
)
def test_copies_have_turns_of_their_own(copied: Any) -> None:
    cell, found = cw.GRUCell(N), list[torch.Tensor]()
    with cell._turn:
        other = copied(cell)
        thread = threading.Thread(target=lambda: found.append(run(other)))
        thread.start()
        thread.join(20)
    assert len(found) == 1


def test_a_forked_child_does_not_inherit_it(monkeypatch: pytest.MonkeyPatch) -> None:
    turn, entered = Turn(), list[bool]()
    turn.__enter__()

    def child() -> None:
        with turn:
            entered.append(True)

    monkeypatch.setattr("cellweave.scopes._turn.os.getpid", lambda: -1)
    thread = threading.Thread(target=child, daemon=True)
    thread.start()
    thread.join(5)
    assert entered == [True]
