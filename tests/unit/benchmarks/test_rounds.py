"""Contestants take turns; one that fails does not stop the others."""

from __future__ import annotations

from typing import Any

import pytest
from processes import ContestantError
from registry import OURS, Case
from rounds import Timing, spread, summary, take_turns

CASE = Case("lstm", "training", "bare", 100, 1, 128, 128)


class FakeWorkers:
    """Answers like workers whose calls take the given seconds; a name without seconds fails."""

    def __init__(self, seconds: dict[str, float], fails_at_turn: dict[str, int] | None = None) -> None:
        self.seconds, self.turns = seconds, []
        self._fails = fails_at_turn or {}

    def ask(self, process: str, deadline: float = 1.0, **request: Any) -> dict[str, Any]:
        name = request["contestant"]
        if name not in self.seconds:
            raise ContestantError("not today")
        typical = self.seconds[name]
        if request["do"] == "setup":
            return {"first": typical, "typical": typical}
        self.turns.append(name)
        if self.turns.count(name) == self._fails.get(name):
            raise ContestantError("fell over")
        return {"seconds": [typical, typical], "settled": 0.002}

    def drop_all(self) -> None:
        self.turns.append("dropped")


def test_every_round_asks_everyone_once() -> None:
    workers = FakeWorkers({OURS: 0.1, "torch.nn": 0.2})
    timings, _ = take_turns(workers, CASE, [OURS, "torch.nn"], box=0.0)
    assert workers.turns == [OURS, "torch.nn"] * 3 + ["dropped"]
    assert len(timings[OURS].seconds) == 6


def test_very_slow_contestants_take_two_turns() -> None:
    workers = FakeWorkers({OURS: 3.0})
    take_turns(workers, CASE, [OURS], box=0.0)
    assert workers.turns == [OURS] * 2 + ["dropped"]


def test_who_fails_is_recorded_and_the_others_go_on() -> None:
    workers = FakeWorkers({OURS: 0.1, "torch.nn": 0.1}, fails_at_turn={"torch.nn": 2})
    timings, _ = take_turns(workers, CASE, [OURS, "torch.nn", "torch loop"], box=0.0)
    assert timings["torch loop"].error == "not today"
    assert timings["torch.nn"].error == "fell over"
    assert len(timings[OURS].turns) == 3
    assert summary(timings["torch.nn"], timings[OURS]) == {"error": "fell over"}


def test_who_has_used_up_its_share_sits_out() -> None:
    workers = FakeWorkers({OURS: 1e-6, "stepwise": 1.0})
    timings, _ = take_turns(workers, CASE, [OURS, "stepwise"], box=0.02)
    assert len(timings["stepwise"].turns) == 3
    assert len(timings[OURS].turns) > 3


def test_summary_compares_within_rounds() -> None:
    ours = Timing(seconds=[1.0, 2.0], turns={0: 1.0, 1: 2.0}, settled=[0.0])
    other = Timing(seconds=[3.0, 6.0], turns={0: 3.0, 1: 6.0}, settled=[0.0])
    found = summary(other, ours)
    assert found["median_ms"] == 4500.0
    assert found["over_ours"] == pytest.approx([3.0, 3.0, 3.0])
    assert "over_ours" not in summary(ours, ours)


def test_spread_holds_the_tenths() -> None:
    assert spread([5.0]) == (5.0, 5.0, 5.0)
    assert spread([float(value) for value in range(11)]) == (1.0, 5.0, 9.0)
