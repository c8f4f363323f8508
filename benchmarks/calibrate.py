"""Measures what cellweave's choices rest on: which backend, how many threads for its time loop, and how they share it.

For each recurrence, mode, number of units and rows: torch's layer, and the native loop with one thread, with all
threads that share out the units, and with all that share out the rows; in turns in one process. Everything else of a
call (the large products) has all threads in each of them. Prints a table and writes
benchmarks/results/calibration-<machine class>.json: `choice` is the fastest, `margin` the runner-up's time over its.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from contestants.cellweave_layers import layer
from machine import description, machine_class, physical_cores
from registry import KINDS, MODES, OURS, Case
from verify import verified
from worker import Timed

import cellweave as cw
from cellweave.ops.common import _native_form
from cellweave.weave import _choice

RESULTS = Path(__file__).resolve().parent / "results"
UNITS = (32, 64, 128, 256, 512, 1024)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128)
#: Long enough that a layer's start does not decide, short enough for all sizes in some minutes.
STEPS = 32
_LEAST_TURNS = 3
_UNBOUNDED = 2**30


@dataclass(frozen=True)
class Candidate:
    """A way to run a layer: its backend, the threads of the time loop, and what they share out."""

    name: str
    backend: str
    threads: int
    rows_shared: bool = False

    @contextmanager
    def forced(self) -> Iterator[None]:
        """While it lasts, the library decides this way. The names are its own; no caller of the library sees them."""
        share = {"_ROWS_PER_THREAD": 0 if self.rows_shared else _UNBOUNDED, "_FEW_UNITS": _UNBOUNDED}
        with (
            mock.patch.object(_choice, "threads_for", return_value=self.threads),
            mock.patch.multiple(_native_form, **share),
            cw.use_backend(self.backend),
        ):
            yield


def candidates(threads: int, batch: int) -> list[Candidate]:
    found = [Candidate("torch", "torch", threads), Candidate("native 1", "native", 1)]
    if threads > 1:
        found.append(Candidate(f"native {threads} units", "native", threads))
        if batch > 1:
            found.append(Candidate(f"native {threads} rows", "native", threads, rows_shared=True))
    return found


def measure(case: Case, threads: int, seconds: float) -> tuple[dict[str, float], dict[str, str]]:
    """Median milliseconds of each candidate, and why others have none."""
    timed: dict[Candidate, Timed] = {}
    refused: dict[str, str] = {}
    for candidate in candidates(threads, case.B):
        program = layer(OURS, case).program()  # of its own: choices are kept with the cell
        try:
            with candidate.forced():
                timed[candidate] = Timed(program)
        except cw.BackendError as error:
            refused[candidate.name] = str(error)
    turns: dict[Candidate, list[float]] = {candidate: [] for candidate in timed}
    end = time.monotonic() + seconds
    while timed and (time.monotonic() < end or min(map(len, turns.values())) < _LEAST_TURNS):
        for candidate, program_timed in timed.items():
            with candidate.forced():
                turns[candidate].append(statistics.median(program_timed.turn()))
    return {candidate.name: statistics.median(values) * 1e3 for candidate, values in turns.items()}, refused


def row(case: Case, milliseconds: dict[str, float], refused: dict[str, str]) -> dict[str, Any]:
    ranked = sorted(milliseconds, key=milliseconds.__getitem__)
    return {
        "kind": case.kind, "mode": case.mode, "H": case.H, "B": case.B, "T": case.T, "ms": milliseconds,
        "choice": ranked[0] if ranked else None,
        "margin": milliseconds[ranked[1]] / milliseconds[ranked[0]] if len(ranked) > 1 else None,
        "refused": refused,
    }  # fmt: skip


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=MODES)
    parser.add_argument("--units", nargs="+", type=int, default=list(UNITS))
    parser.add_argument("--rows", nargs="+", type=int, default=list(ROWS))
    parser.add_argument("--threads", type=int, default=min(2, physical_cores()), help="compared with one (default 2)")
    parser.add_argument("--seconds", type=float, default=0.4, help="for each size; large ones take more (default 0.4)")
    return parser.parse_args()


def main() -> int:
    options = _options()
    about = description(options.threads)
    if not verified():
        print("calibrate: expected green tests, got failures. Nothing is chosen by wrong results.", file=sys.stderr)
        return 1
    torch.set_num_threads(options.threads)
    names = [candidate.name for candidate in candidates(options.threads, 2)]
    print(f"{'kind':<12}{'mode':<11}{'H':>5}{'B':>5}" + "".join(f"{name:>16}" for name in names) + "  fastest (margin)")
    rows = []
    for case in (
        Case(kind, mode, "bare", STEPS, batch, units, units)
        for kind in options.kinds
        for mode in options.modes
        for units in options.units
        for batch in options.rows
    ):
        found = row(case, *measure(case, options.threads, options.seconds))
        rows.append(found)
        times = "".join(f"{found['ms'][name]:>13.3f} ms" if name in found["ms"] else f"{'–':>16}" for name in names)
        margin = "" if found["margin"] is None else f" ({found['margin']:.2f})"
        print(f"{case.kind:<12}{case.mode:<11}{case.H:>5}{case.B:>5}{times}  {found['choice']}{margin}", flush=True)
    name = machine_class(options.threads)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"calibration-{name}.json"
    when = datetime.now(timezone.utc).isoformat(timespec="seconds")
    whole = {"when": when, "class": name, "machine": about, "cellweave": cw.__version__, "rows": rows}
    path.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    print(f"calibrate: written to {os.path.relpath(path)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
