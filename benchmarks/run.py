"""Times every case of the registry: `make bench`.

The contestants of a case take turns, round after round, so that a slow moment of the machine hits all of them. Shown
are the median and the quartiles (a quarter of the rounds was faster, a quarter slower), forward alone and forward with
backward, and the time relative to `torch.nn`: below 1 is faster, above 1 is slower. Every case is shown, won or lost.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from registry import BASELINE, CASES, CONTESTANTS, Case
from verify import verified

import cellweave

RESULTS = Path(__file__).resolve().parent / "results"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _machine() -> dict[str, Any]:
    return {
        "processor": _processor(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "cellweave": cellweave.__version__,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "load before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else "unknown",
        "dtype": "float32",
    }


def _programs(case: Case) -> dict[tuple[str, str], Callable[[], None]]:
    """For each contestant a forward program, and one that goes backward too."""
    x = torch.randn(case.steps, case.batch, case.inputs)
    upstream = torch.randn(case.steps, case.batch, case.units)
    programs: dict[tuple[str, str], Callable[[], None]] = {}
    for name, make in CONTESTANTS.items():
        weights, run = make(case)

        def forward(run: Callable[[torch.Tensor], torch.Tensor] = run) -> None:
            with torch.no_grad():
                run(x)

        def both(run: Callable[[torch.Tensor], torch.Tensor] = run, weights: list[torch.Tensor] = weights) -> None:
            torch.autograd.grad(run(x), weights, upstream)

        programs[name, "forward"] = forward
        programs[name, "forward+backward"] = both
    return programs


def _time(case: Case, rounds: int) -> list[dict[str, Any]]:
    programs = _programs(case)
    for program in programs.values():  # warm up: allocators, first-use code paths
        program()
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in programs}
    gc.disable()
    try:
        for _ in range(rounds):
            for key, program in programs.items():
                start = time.perf_counter()
                program()
                seconds[key].append(time.perf_counter() - start)
            gc.collect()
    finally:
        gc.enable()
    rows = []
    for (name, what), values in seconds.items():
        low, median, high = statistics.quantiles(values, n=4)
        relative = median / statistics.median(seconds[BASELINE, what])
        rows.append({"case": case.name, "contestant": name, "what": what, "median_ms": median * 1e3,
                     "quartiles_ms": [low * 1e3, high * 1e3], "relative": relative, "rounds": rounds})  # fmt: skip
    return sorted(rows, key=lambda row: row["what"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=21, help="times each program is run (default 21)")
    parser.add_argument("--only", default="", help="run the cases whose name contains this")
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error(f"--rounds: expected at least 2, got {options.rounds}.")
    print("bench: running the golden tests first", flush=True)
    if not verified():
        print(
            "bench: expected green golden tests, got failures. No number is printed for wrong results.", file=sys.stderr
        )
        return 1
    torch.manual_seed(0)
    machine = _machine()
    print("\n".join(f"{key}: {value}" for key, value in machine.items()))
    print(f"\n{'case':<24}{'what':<18}{'contestant':<24}{'median ms':>10}{'quartiles ms':>20}{'x torch.nn':>12}")
    rows: list[dict[str, Any]] = []
    for case in CASES:
        if options.only in case.name:
            for row in _time(case, options.rounds):
                low, high = row["quartiles_ms"]
                print(f"{row['case']:<24}{row['what']:<18}{row['contestant']:<24}{row['median_ms']:>10.3f}"
                      f"{f'{low:.3f} to {high:.3f}':>20}{row['relative']:>12.2f}", flush=True)  # fmt: skip
                rows.append(row)
    stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    path = RESULTS / f"{stamp}.json"
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps({"when": stamp, "machine": machine, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    print(f"\nbench: written to {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
