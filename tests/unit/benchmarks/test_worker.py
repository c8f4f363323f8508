"""A worker process: it answers, it survives what fails in it, and its end is noticed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import worker
from processes import ContestantError, WorkerProcess
from program import NotTaken, Program
from registry import OURS, Case

CASE = Case("rnn", "training", "bare", 2, 2, 4, 4)


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    started = WorkerProcess("project", 1, tmp_path_factory.mktemp("worker") / "log")
    yield started
    started.close()


def test_times_a_contestant(process: WorkerProcess) -> None:
    given = {"contestant": OURS, "case": CASE.as_dict()}
    assert process.ask(60, do="setup", **given)["typical"] > 0
    answer = process.ask(60, do="turn", contestant=OURS, settled=True)
    assert min(answer["seconds"]) > 0
    assert answer["settled"] >= 0.002
    assert process.ask(60, do="drop") == {}
    assert process.ask(60, do="saved", **given)["floats"] > 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_of_a_layer_grows_with_it(process: WorkerProcess) -> None:
    large = Case("lstm", "training", "bare", 20, 64, 256, 256)
    found = process.ask(60, do="memory", contestant="torch loop", case=large.as_dict())["megabytes"]
    saved = 7 * 20 * 64 * 256 * 4 / 2**20
    assert saved < found < 20 * saved


def test_goes_on_after_an_error(process: WorkerProcess) -> None:
    with pytest.raises(ContestantError, match="KeyError"):
        process.ask(60, do="turn", contestant="nobody", settled=False)
    hello = process.ask(60, do="hello")
    assert "torch" in hello["versions"] and 1 < hello["turn_ns"] < 10_000


def test_notices_an_end_and_a_late_answer(tmp_path: Path) -> None:
    late = WorkerProcess("project", 1, tmp_path / "log")
    with pytest.raises(ContestantError, match=r"no answer in 0.01 s"):
        late.ask(0.01, do="hello")
    assert not late.running
    with pytest.raises(ContestantError, match="its process ended"):
        late.ask(1, do="hello")


def test_quick_calls_are_timed_together() -> None:
    calls = []
    timed = worker.Timed(Program(lambda: calls.append(1), dict))
    before = len(calls)
    seconds = timed.turn()
    assert len(calls) - before > 10 * len(seconds)


def test_says_why_a_case_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(*_: object) -> Program:
        raise NotTaken("no stepper yet")

    monkeypatch.setattr(worker, "_program", make)
    request = {"do": "setup", "contestant": OURS, "case": CASE.as_dict()}
    assert worker._answer(worker.Worker(), request) == {"error": "no stepper yet"}
