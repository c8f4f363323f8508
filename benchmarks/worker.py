"""A process that builds and times contestants: a line of JSON asks, a line of JSON answers.

It runs in the contestants' own environment, so it needs nothing but the standard library and numpy. `BENCH_THREADS`
says how many threads a contestant may use.
"""

from __future__ import annotations

import gc
import importlib
import json
import math
import os
import statistics
import sys
import time
import timeit
import traceback
from collections.abc import Callable
from importlib import metadata
from typing import Any

import numpy as np
from program import NotTaken, Program
from registry import BY_NAME, Case

#: A turn of a quick contestant takes about this long, so that its later calls find the caches as in steady use.
_TURN_SECONDS = 0.01
_MOST_CALLS = 100
#: Calls quicker than this are timed many at once, to be well above the clock's own cost.
_TOO_QUICK, _TIMED_TOGETHER = 5e-5, 2e-4
#: A contestant this slow needs no call ahead of the timed ones.
_NO_LEAD_IN = 0.05
#: One call tells how slow it is, even with its compiling.
_SLOW = 1.0
_SETTLE_SLICE, _SETTLE_MOST = 0.002, 0.1
_REPORTED = ("torch", "jax", "jaxlib", "onnx", "onnxruntime", "openvino", "tensorflow-cpu", "tensorflow", "numpy")


def _turn_ns() -> float:
    """Nanoseconds of an addition in a loop: tells apart Pythons that were built with and without optimizations."""
    turns, rounds = 100_000, 20
    loop = f"total = 0\nfor number in range({turns}): total += number"
    return round(min(timeit.repeat(loop, number=1, repeat=rounds)) / turns * 1e9, 1)


class Timed:
    """A contestant's program for one case."""

    def __init__(self, program: Program) -> None:
        self._call = program.call
        self.first = self._seconds()  # compiles, allocates, starts threads
        self.typical = self.first
        if self.first < _SLOW:
            self.typical = self._seconds()

    def _seconds(self, times: int = 1) -> float:
        start = time.perf_counter()
        for _ in range(times):
            self._call()
        return (time.perf_counter() - start) / times

    def turn(self) -> list[float]:
        """Seconds of some calls, after one that is not counted unless the calls are slow."""
        together = math.ceil(_TIMED_TOGETHER / self.typical) if self.typical < _TOO_QUICK else 1
        calls = min(_MOST_CALLS, max(1, round(_TURN_SECONDS / (self.typical * together))))
        gc.disable()
        try:
            if self.typical < _NO_LEAD_IN:
                self._seconds(together)
            seconds = [self._seconds(together) for _ in range(calls)]
        finally:
            gc.enable()
        self.typical = statistics.median(seconds)
        return seconds


def settle() -> float:
    """Wait until the threads of this process have stopped spinning; seconds waited."""
    start = time.perf_counter()
    while time.perf_counter() - start < _SETTLE_MOST:
        used = time.process_time()
        time.sleep(_SETTLE_SLICE)
        if time.process_time() - used < _SETTLE_SLICE / 5:
            break
    return time.perf_counter() - start


class Worker:
    """Answers requests; programs stay set up under their key until they are dropped."""

    def __init__(self) -> None:
        self._timed: dict[str, Timed] = {}

    def hello(self) -> dict[str, Any]:
        """Versions of what is installed here, and how quick this Python is."""
        versions = {}
        for name in _REPORTED:
            try:
                versions[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                continue
        return {"python": sys.version.split()[0], "turn_ns": _turn_ns(), "versions": versions}

    def setup(self, contestant: str, case: dict[str, Any]) -> dict[str, Any]:
        timed = self._timed[contestant] = Timed(_program(contestant, Case(**case)))
        gc.collect()
        return {"first": timed.first, "typical": timed.typical}

    def turn(self, contestant: str, settled: bool) -> dict[str, Any]:
        seconds = self._timed[contestant].turn()
        return {"seconds": seconds, "settled": settle() if settled else 0.0}

    def drop(self) -> dict[str, Any]:
        self._timed.clear()
        gc.collect()
        return {}

    def check(self, contestant: str, case: dict[str, Any], file: str) -> dict[str, Any]:
        np.savez(file, **_program(contestant, Case(**case)).results())
        return {}

    def truth(self, case: dict[str, Any], file: str) -> dict[str, Any]:
        np.savez(file, **importlib.import_module("contestants.cellweave_layers").truth(Case(**case)))
        return {}

    def saved(self, contestant: str, case: dict[str, Any]) -> dict[str, Any]:
        chosen = Case(**case)
        return {"floats": _module(contestant, chosen).layer(contestant, chosen).saved_floats()}

    def memory(self, contestant: str, case: dict[str, Any]) -> dict[str, Any]:
        chosen = Case(**case)
        peak = importlib.import_module("memory").peak(_module(contestant, chosen).layer, contestant, chosen)
        return {"megabytes": peak}


def _module(contestant: str, case: Case) -> Any:
    return importlib.import_module(f"contestants.{BY_NAME[contestant].module_for(case)}")


def _program(contestant: str, case: Case) -> Program:
    program: Program = _module(contestant, case).make(contestant, case)
    return program


def _answer(worker: Worker, request: dict[str, Any]) -> dict[str, Any]:
    act: Callable[..., dict[str, Any]] = getattr(worker, request.pop("do"))
    try:
        return act(**request)
    except NotTaken as reason:
        return {"error": str(reason)}
    except Exception as error:  # noqa: BLE001 (a failing contestant is recorded with its error; the others go on)
        traceback.print_exc(file=sys.stderr)
        return {"error": f"{type(error).__name__}: {str(error).strip()[:300]}"}


def _set_threads() -> None:
    """Only torch is told by a call; the others have the number from the environment or read it themselves."""
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(int(os.environ["BENCH_THREADS"]))
    torch.manual_seed(0)


def serve(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answer each line of the standard input by a line."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not end up among the answers
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=answers, flush=True)


def main() -> None:
    _set_threads()
    worker = Worker()
    serve(lambda request: _answer(worker, request))


if __name__ == "__main__":
    main()
