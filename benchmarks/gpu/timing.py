"""Contestants of a case take turns, call by call; who fails is recorded, and the others go on."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from program import NotTaken
from rounds import spread

from gpu.clock import Clock, Reading
from gpu.layers import Work
from gpu.plan import Plan

_LEAST_CALLS = 3
_SHOWN_KERNELS = 5


def attempt(action: Callable[[], Any]) -> tuple[Any, str | None]:
    """What an action gives, or why it failed."""
    try:
        return action(), None
    except NotTaken as reason:
        return None, str(reason)
    except Exception as error:  # noqa: BLE001 (whoever fails is recorded with the error; the others go on)
        return None, f"{type(error).__name__}: {str(error).strip()[:300]}"


def compare(
    makers: Mapping[str, Callable[[], Work]], clock: Clock, plan: Plan, profiled: Collection[str] = ()
) -> dict[str, dict[str, Any]]:
    """What each contestant showed: times, memory, of some their kernels; or its error."""
    found: dict[str, dict[str, Any]] = {}
    ready: dict[str, Work] = {}
    for name, make in makers.items():
        work, error = attempt(make)
        if error is None:
            found[name], error = attempt(lambda work=work, name=name: _first_calls(work, clock, plan, name in profiled))  # type: ignore[misc]
        if error is None:
            ready[name] = work
        else:
            found[name] = {"error": error}
    readings: dict[str, list[Reading]] = {name: [] for name in ready}
    end = time.monotonic() + plan.seconds * len(ready)
    gc.collect()
    gc.disable()
    try:
        for number in range(plan.repeats):
            if number >= _LEAST_CALLS and time.monotonic() > end:
                break
            for name in list(ready):
                reading, error = attempt(lambda w=ready[name], n=number: clock.timed(lambda: w.call(n)))  # type: ignore[misc]
                if error is None:
                    readings[name].append(reading)
                else:
                    del ready[name]
                    found[name] = {"error": error}
    finally:
        gc.enable()
    for name in ready:
        found[name] |= summary(readings[name])
    return found


def _first_calls(work: Work, clock: Clock, plan: Plan, profiled: bool) -> dict[str, Any]:
    """Compiles and warms up; on the way memory and kernels are looked at."""
    first = clock.timed(lambda: work.call(0)).ms
    for number in range(plan.warmups - 1):
        work.call(number)
    peak = clock.peak_bytes(lambda: work.call(0))
    found = {"first_ms": first, "peak_mb": None if peak is None else peak / 2**20, "saved_bytes": work.kept()}
    if not profiled:
        return found
    kernels, unseen = attempt(lambda: clock.kernels(lambda: work.call(0)))
    if unseen is not None:
        return {**found, "kernels_unseen": unseen}
    launches = sum(count for _, count, _ in kernels)
    return {**found, "launches": launches or None, "kernels": kernels[:_SHOWN_KERNELS]}


def summary(readings: list[Reading]) -> dict[str, Any]:
    """Of a contestant's calls; `halves` are the medians of the first and the second half: what is noise."""
    times = [reading.ms for reading in readings]
    low, middle, high = spread(times)
    half = len(times) // 2
    return {
        "ms": middle, "p10_ms": low, "p90_ms": high, "calls": len(times),
        "halves": [statistics.median(times[:half] or times), statistics.median(times[half:])],
        "cpu_ms": statistics.median(reading.cpu_ms for reading in readings),
    }  # fmt: skip
