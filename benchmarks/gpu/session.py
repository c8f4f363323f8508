"""One run: phases in order of value, each in its time box, each result on a line of its own as soon as it is there."""

from __future__ import annotations

import json
import math
import os
import queue
import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol

from processes import ContestantError

from gpu.plan import (
    BUDGET,
    CALIBRATION,
    COMPILED_LOOP,
    CUDNN,
    EAGER_LOOP,
    KERNELS_OF_OURS,
    OURS_ON_CUDNN,
    PHASES,
    PLANS,
    RESERVE,
    TRITON,
    GpuCase,
    checked_as,
    checks,
    variations,
)

#: Seconds after which an answer is given up and its process ended: a kernel may hang.
_PATIENCE = {"hello": 90.0, "warm": 60.0, "calibrate": 20.0, "check": 25.0, "time": 45.0}
_LOOP_PATIENCE = 60.0
_LEAST_WAIT = 1.0
#: A kernel of a recurrence whose process ended so often is not tried at other sizes.
_MOST_LOSSES, _LOST = 2, "at other sizes its process ended"
_CLOCKS = "name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,temperature.gpu,power.draw,utilization.gpu"


class Answering(Protocol):
    """A process that is asked."""

    running: bool

    def ask(self, deadline: float, **request: Any) -> dict[str, Any]:
        """Its answer, or ContestantError."""

    def close(self) -> None:
        """End it."""


class Session:
    """A run on one device.

    Args:
        device: "cuda", or "cpu" for a trial. budget: Seconds for everything. lines: The file that takes results.
        start: Starts a process that answers as gpu/jobs.py does. compilers: Processes that compile ahead. say: Prints.
    """

    def __init__(
        self,
        device: str,
        budget: float,
        lines: Path,
        start: Callable[[], Answering],
        compilers: int,
        say: Callable[[str], Any] = print,
    ) -> None:
        self._device, self._plan, self._lines, self._start, self._say = device, PLANS[device], lines, start, say
        self._compilers = compilers
        self._begin, self._share = time.monotonic(), budget / BUDGET
        self._end = self._begin + budget - RESERVE * self._share
        self._process: Answering | None = None
        self._verdicts: dict[tuple[GpuCase, str], str | None] = {}  # None: correct
        self._losses: Counter[tuple[str, str]] = Counter()
        self._seeds = random.SystemRandom()
        self._phase = ""

    def run(self) -> None:
        """All phases; what there was no time for is recorded as such."""
        actions = (self._set_up, self._calibrate, self._check_all, self._time_cudnn, self._time_ours, self._time_loops)
        end = self._begin
        for phase, action in zip(PHASES, actions, strict=True):
            end += phase.seconds * self._share
            self._phase = phase.name
            self._say(f"bench-gpu: {phase.name}, {time.monotonic() - self._begin:.0f} s")
            action(min(end, self._end))
        self._phase = "end"
        self.record(clocks=clocks(self._device))

    def close(self) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None

    def record(self, **row: Any) -> None:
        """One result on one line, flushed: whatever happens next, it is there."""
        whole = {"phase": self._phase, "at_s": round(time.monotonic() - self._begin, 1), **row}
        with self._lines.open("a", encoding="utf-8") as file:
            file.write(json.dumps(finite(whole), allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    # -- phases -------------------------------------------------------------------------------------------------------
    def _set_up(self, end: float) -> None:
        about = self._ask(do="hello")
        when = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self.record(when=when, trial=self._device != "cuda", clocks=clocks(self._device), **about)
        self._warm(end)

    def _warm(self, end: float) -> None:
        """Compile all variants in processes beside each other; what stays undone is compiled when it is needed."""
        wanted: queue.Queue[tuple[str, GpuCase]] = queue.Queue()
        for item in self._compiled():
            wanted.put(item)
        count, errors, done = wanted.qsize(), [], []

        def work() -> None:
            process = self._start()
            try:
                process.ask(max(_LEAST_WAIT, end - time.monotonic()), do="hello")
                while process.running and end - time.monotonic() > _LEAST_WAIT:
                    name, case = wanted.get_nowait()
                    try:
                        process.ask(
                            min(_PATIENCE["warm"], end - time.monotonic()), do="warm", name=name, case=case.as_dict()
                        )
                        done.append(name)
                    except ContestantError as error:
                        errors.append(f"{name}, {case.name}: {error}")
            except queue.Empty:
                pass
            except ContestantError as error:
                errors.append(str(error))
            finally:
                process.close()

        threads = [threading.Thread(target=work, daemon=True) for _ in range(self._compilers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.record(compiled=len(done), wanted=count, processes=self._compilers, errors=errors[:20])

    def _compiled(self) -> list[tuple[str, GpuCase]]:
        """What is compiled ahead: kernels of both modes, and cells for graphs, which take longest."""
        kernels = [(name, case) for case, name in checks(self._plan)]
        kernels += [(TRITON, case) for case in self._plan.ours if not case.training]
        return [(COMPILED_LOOP, case) for case in self._plan.loops] + kernels

    def _calibrate(self, end: float) -> None:
        for place, what in enumerate(CALIBRATION):
            if not self._has_time(end):
                self._not_reached(CALIBRATION[place:])
                return
            try:
                self.record(what=what, **self._ask(do="calibrate", what=what))
            except ContestantError as error:
                self.record(what=what, error=str(error))

    def _check_all(self, end: float) -> None:
        wanted = checks(self._plan)
        for place, (case, name) in enumerate(wanted):
            if not self._has_time(end):
                self._not_reached([f"{name}, {case.name}" for case, name in wanted[place:]])
                return
            self._check(case, name)

    def _check(self, case: GpuCase, name: str) -> str | None:
        """None, or why the kernel is not timed at this size."""
        recurrence = (case.kind, name)
        row: dict[str, Any] = {}
        if self._losses[recurrence] >= _MOST_LOSSES:
            verdict: str | None = f"not tried: {_LOST}"
        else:
            try:
                row = self._ask(do="check", name=name, case=case.as_dict(), seed=self._seeds.randrange(2**31))
                verdict = None if row["passes"] else _verdict(row)
            except ContestantError as error:
                verdict = str(error)
                self._losses[recurrence] += self._process is None
        self._verdicts[case, name] = verdict
        shown = row or {"error": verdict}
        self.record(case=case.name, **case.as_dict(), name=name, **shown)
        return verdict

    def _time_cudnn(self, end: float) -> None:
        self._time_each(end, self._plan.cudnn, lambda case: [CUDNN])

    def _time_ours(self, end: float) -> None:
        self._time_each(end, self._plan.ours, lambda case: [CUDNN, OURS_ON_CUDNN, TRITON, *variations(case)])

    def _time_loops(self, end: float) -> None:
        self._time_each(end, self._plan.loops, lambda case: [TRITON, EAGER_LOOP, COMPILED_LOOP], _LOOP_PATIENCE)

    def _time_each(
        self,
        end: float,
        cases: Sequence[GpuCase],
        names_of: Callable[[GpuCase], list[str]],
        patience: float | None = None,
    ) -> None:
        for place, case in enumerate(cases):
            if not self._has_time(end):
                self._not_reached([case.name for case in cases[place:]])
                return
            refused = {name: reason for name in names_of(case) if (reason := self._unfit(case, name)) is not None}
            names = [name for name in names_of(case) if name not in refused]
            shown: dict[str, Any] = {name: {"error": f"not timed: {reason}"} for name, reason in refused.items()}
            found = self._timed(end, case, names, patience)
            self.record(case=case.name, **case.as_dict(), contestants={**found, **shown})
            self._say(f"  {case.name}: " + ", ".join(f"{n} {_ms(f)}" for n, f in {**found, **shown}.items()))

    def _timed(self, end: float, case: GpuCase, names: list[str], patience: float | None) -> dict[str, Any]:
        """What contestants showed. Where their process ends, it is tried again without those that may have ended it."""
        if not names:
            return {}
        try:
            found: dict[str, Any] = self._ask(patience, do="time", names=names, case=case.as_dict())["contestants"]
            return found
        except ContestantError as error:
            lost = {name: {"error": str(error)} for name in names}
        suspects = _suspects(names)
        if self._process is not None or not suspects:
            return lost
        for name in suspects:  # our kernels were compiled and right before: they need not be given another chance
            self._losses[case.kind, name] += _MOST_LOSSES if name in KERNELS_OF_OURS else 1
        if not self._has_time(end):
            return lost
        return lost | self._timed(end, case, [name for name in names if name not in suspects], patience)

    def _unfit(self, case: GpuCase, name: str) -> str | None:
        """Why a contestant is not timed; a kernel of ours that was not checked yet is checked now."""
        if self._losses[case.kind, name] >= _MOST_LOSSES:
            return _LOST
        if name not in KERNELS_OF_OURS:
            return None
        checked = checked_as(case, name, self._plan)
        if (checked, name) in self._verdicts:
            return self._verdicts[checked, name]
        return self._check(checked, name)

    # -- asking -------------------------------------------------------------------------------------------------------
    def _ask(self, patience: float | None = None, **request: Any) -> dict[str, Any]:
        """An answer. Where there is none in time, or the process ended, the next request gets a new process."""
        if self._process is None:
            self._process = self._start()
            if request["do"] != "hello":
                self._ask(do="hello")
        assert self._process is not None
        deadline = min(patience or _PATIENCE[request["do"]], self._end - time.monotonic())
        try:
            return self._process.ask(max(deadline, 0.0), **request)
        except ContestantError:
            if not self._process.running:
                self.close()
            raise

    def _has_time(self, end: float) -> bool:
        return end - time.monotonic() > _LEAST_WAIT * self._share

    def _not_reached(self, names: Sequence[str]) -> None:
        self.record(not_reached=list(names))


def _suspects(names: Sequence[str]) -> list[str]:
    """Who may have ended a process, the least tried first; cuDNN and a loop of torch's are above suspicion."""
    variations = [name for name in names if name in KERNELS_OF_OURS and name != TRITON]
    return [name for name in names if name == COMPILED_LOOP] or variations or [name for name in names if name == TRITON]


def _verdict(row: dict[str, Any]) -> str:
    worst = row["worst"]
    if not row["repeats"]:
        return "wrong: its bits differ from call to call"
    return f"wrong: {worst['tensor']} differs by {worst['error']:.2g}, at most {worst['bound']:.2g} is right"


def _ms(found: dict[str, Any]) -> str:
    return f"{found['ms']:.3g} ms" if "ms" in found else "–"


def finite(value: Any) -> Any:
    """The same with words for numbers that JSON does not know."""
    if isinstance(value, dict):
        return {name: finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def clocks(device: str) -> str | None:
    """The device's clocks, temperature and load, as they are found; nothing is set."""
    if device != "cuda":
        return None
    command = ["nvidia-smi", f"--query-gpu={_CLOCKS}", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        return f"nvidia-smi: {error}"
