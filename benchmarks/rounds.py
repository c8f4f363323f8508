"""Takes turns: in each round every contestant of a case works once, so that a slow moment of the machine hits all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from processes import ContestantError, Workers
from registry import BY_NAME, OURS, Case

_LEAST_TURNS, _LEAST_SLOW_TURNS = 3, 2
_SLOW = 2.0  # seconds per call
#: A contestant that has used this many times our time sits out while others go on.
_FAIR_SHARE = 3.0


@dataclass
class Timing:
    """What one contestant showed in a case."""

    first: float = 0.0
    typical: float = 0.0
    seconds: list[float] = field(default_factory=list)
    turns: dict[int, float] = field(default_factory=dict)  # round -> median of its calls
    spent: float = 0.0
    settled: list[float] = field(default_factory=list)
    error: str | None = None

    @property
    def least_turns(self) -> int:
        return _LEAST_SLOW_TURNS if self.typical > _SLOW else _LEAST_TURNS

    @property
    def done(self) -> bool:
        return self.error is not None or len(self.turns) >= self.least_turns


def take_turns(workers: Workers, case: Case, names: Sequence[str], box: float) -> tuple[dict[str, Timing], float]:
    """Set all up, then go round until `box` seconds are over and everybody had enough turns; and how long that took."""
    timings = {name: _set_up(workers, case, name) for name in names}
    order = sorted((name for name in names if timings[name].error is None), key=_by_process)
    start, round_number = time.monotonic(), 0
    while order and (time.monotonic() < start + box or not all(timings[name].done for name in order)):
        for name in list(order):
            if _sits_out(name, timings):
                continue
            try:
                _turn(workers, name, timings[name], round_number)
            except ContestantError as error:
                timings[name].error = str(error)
                order.remove(name)
        round_number += 1
    seconds = time.monotonic() - start
    workers.drop_all()
    return timings, seconds


def _by_process(name: str) -> tuple[str, str]:
    return BY_NAME[name].process, name


def _set_up(workers: Workers, case: Case, name: str) -> Timing:
    contestant = BY_NAME[name]
    timing = Timing()
    try:
        answer = workers.ask(
            contestant.process, contestant.seconds_to_build, do="setup", contestant=name, case=case.as_dict()
        )
        timing.first, timing.typical = answer["first"], answer["typical"]
    except ContestantError as error:
        timing.error = str(error)
    return timing


def _sits_out(name: str, timings: dict[str, Timing]) -> bool:
    timing, ours = timings[name], timings.get(OURS)
    if not timing.done or ours is None or ours.error is not None:
        return False
    return timing.spent > _FAIR_SHARE * max(ours.spent, 1e-9)


def _turn(workers: Workers, name: str, timing: Timing, round_number: int) -> None:
    answer = workers.ask(BY_NAME[name].process, do="turn", contestant=name, settled=True)
    timing.seconds += answer["seconds"]
    timing.typical = timing.turns[round_number] = statistics.median(answer["seconds"])
    timing.spent += sum(answer["seconds"])
    timing.settled.append(answer["settled"])


def summary(timing: Timing, ours: Timing | None) -> dict[str, Any]:
    """Median, spread and the ratio to ours in the rounds that both took part in, for the result file."""
    if timing.error is not None:
        return {"error": timing.error}
    low, middle, high = spread(timing.seconds)
    found: dict[str, Any] = {
        "median_ms": middle * 1e3, "p10_ms": low * 1e3, "p90_ms": high * 1e3,
        "calls": len(timing.seconds), "turns": len(timing.turns),
        "first_s": timing.first, "settle_ms": statistics.median(timing.settled) * 1e3,
    }  # fmt: skip
    if ours is not None and ours is not timing and ours.error is None:
        shared = [timing.turns[at] / ours.turns[at] for at in timing.turns if at in ours.turns]
        if shared:
            found["over_ours"] = list(spread(shared))
    return found


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """A tenth lies below the first, half below the second, nine tenths below the third."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    tenths = statistics.quantiles(values, n=10, method="inclusive")
    return tenths[0], tenths[4], tenths[8]
