"""Times the cases of the registry: `make bench`, `make bench ARGS="--peers all"`.

The contestants of a case take turns, round after round, each in a process that holds its libraries. Every number
follows green tests of values and gradients, and a check that the contestant computes the right thing. Results go to
benchmarks/results/partial: every case as soon as it is measured to a .jsonl file, the run to a .json file, table.md and
speed.png. A run of all cases with all rivals puts these in benchmarks/results, as <date>-<machine class>.json.
docs/explanation/benchmarks.md says how to read them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import report
from agreement import STAND_INS, Agreement
from machine import description, machine_class, physical_cores
from processes import ENVIRONMENTS, MEMORY, ContestantError, Workers, installed
from registry import BY_NAME, CASES, CONTESTANTS, KINDS, OURS, PEERS, QUICK_PEERS, Case
from rounds import Timing, summary, take_turns
from verify import verified

import cellweave

RESULTS = Path(__file__).resolve().parent / "results"
PARTIAL = RESULTS / "partial"
#: Whose memory is compared: what runs in a process that can be forked before it has computed anything.
_MEMORY_OF = (OURS, "torch.nn", "torch loop")
_LEAST_BOX = 0.5  # seconds for the rounds of a case, however little of the budget is left


class Run:
    """One run: workers, checks, and the file that takes each case as it comes."""

    def __init__(self, names: Sequence[str], threads: int, lines: Path, folder: Path) -> None:
        self._names, self._lines = names, lines
        self._workers = Workers(threads, lines.with_suffix(".log"))
        self._agreement = Agreement(self._workers, folder)
        self._too_slow: dict[tuple[str, str, str], tuple[int, str]] = {}

    def versions(self) -> dict[str, Any]:
        """Of each environment whose contestants take part; a process that cannot start is left out."""
        found: dict[str, Any] = {}
        for contestant in CONTESTANTS:
            if contestant.name in self._names and installed(contestant.environment):
                try:
                    found[contestant.environment] = self._workers.ask(contestant.process, do="hello")
                except ContestantError as error:
                    found[contestant.environment] = {"error": str(error)}
        return found

    def measure(self, case: Case, box: float) -> tuple[dict[str, Any], float]:
        """The case's result, and how long its rounds took."""
        refused: dict[str, str] = {}
        agrees: dict[str, float | None] = {}
        for name in self._names:
            if BY_NAME[name].takes(case):
                try:
                    self._check_built_before(name, case)
                    agrees[name] = self._agreement.of(name, case)
                except ContestantError as error:
                    refused[name] = str(error)
        timings, seconds = take_turns(self._workers, case, list(agrees), box)
        for name, timing in timings.items():
            if timing.error is not None and "no answer" in timing.error:
                self._too_slow[name, case.kind, case.mode] = case.T, timing.error
        ours = timings.get(OURS)
        shown = {name: {**summary(timing, ours), "differs": agrees[name]} for name, timing in timings.items()}
        shown.update({name: {"error": text} for name, text in refused.items()})
        result = {"case": case.name, **case.as_dict(), "flops": case.flops, "contestants": shown}
        if case.mode == "training":
            result.update(self._memory(case, timings))
        with self._lines.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")
        return result, seconds

    def _check_built_before(self, name: str, case: Case) -> None:
        if not installed(BY_NAME[name].environment):
            raise ContestantError("not installed; `make bench-peers` does it")
        steps, text = self._too_slow.get((name, case.kind, case.mode), (case.T + 1, ""))
        if steps <= case.T:
            raise ContestantError(f"not tried again: {text} at T = {steps}")

    def _memory(self, case: Case, timings: dict[str, Timing]) -> dict[str, Any]:
        """Floats kept for backward and peak memory, of those that ran."""
        saved: dict[str, float | str] = {}
        megabytes: dict[str, float | str] = {}
        for name in (name for name in _MEMORY_OF if name in timings and timings[name].error is None):
            given = {"contestant": name, "case": case.as_dict()}
            try:
                saved[name] = self._workers.ask("torch", do="saved", **given)["floats"]
                megabytes[name] = self._workers.ask(MEMORY, do="memory", **given)["megabytes"]
            except ContestantError as error:
                saved.setdefault(name, str(error))
                megabytes[name] = str(error)
        return {"saved_floats": saved, "peak_mb": megabytes}

    def close(self) -> None:
        self._workers.close()


def chosen_cases(options: argparse.Namespace) -> list[Case]:
    return [
        case
        for case in CASES
        if case.kind in options.kinds and (not options.cases or any(part in case.name for part in options.cases))
    ]


def chosen_names(peers: Sequence[str]) -> list[str]:
    wanted = set(PEERS if "all" in peers else peers)
    return [contestant.name for contestant in CONTESTANTS if not contestant.peer or contestant.name in wanted]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=[], metavar="PART", help="cases whose name contains one of these")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--peers", nargs="+", default=list(QUICK_PEERS), choices=["all", *PEERS], metavar="PEER",
                        help=f"all, or some of: {', '.join(PEERS)} (default: {', '.join(QUICK_PEERS)})")  # fmt: skip
    parser.add_argument("--budget", type=float, default=180, metavar="SECONDS",
                        help="for all rounds together, without checks, building and memory (default 180)")  # fmt: skip
    parser.add_argument("--threads", type=int, default=min(2, physical_cores()), help="of every contestant (default 2)")
    parser.add_argument("--resume", type=Path, metavar="FILE", help="take the cases that this .jsonl file has from it")
    options = parser.parse_args(arguments)
    if options.threads < 1:
        parser.error(f"--threads: expected at least 1, got {options.threads}.")
    if options.budget <= 0:
        parser.error(f"--budget: expected seconds above 0, got {options.budget:g}.")
    if not chosen_cases(options):
        parser.error(f"--cases: expected a part of a case's name such as lstm-training, got {' '.join(options.cases)}.")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    machine = description(options.threads)  # the load before anything of this run
    print(f"bench: load {machine['load_before']}; running the tests of values and gradients first", flush=True)
    if not verified():
        print("bench: expected green tests, got failures. No number is printed for wrong results.", file=sys.stderr)
        return 1
    cases, names = chosen_cases(options), chosen_names(options.peers)
    now = datetime.now(timezone.utc)
    about = {"when": now.isoformat(timespec="seconds"), "class": machine_class(options.threads),
             "machine": machine, "cellweave": cellweave.__version__}  # fmt: skip
    PARTIAL.mkdir(parents=True, exist_ok=True)
    lines = options.resume or PARTIAL / f"{now:%Y%m%dT%H%M%SZ}.jsonl"
    with tempfile.TemporaryDirectory() as folder:
        run = Run(names, options.threads, lines, Path(folder))
        try:
            about["environments"] = run.versions()
            about["stand_ins"] = {f"{name} for {kind}": text for (name, kind), text in STAND_INS.items()}
            results = _measure_all(run, cases, options.budget, _done(options.resume))
        finally:
            run.close()
    whole = {**about, "results": results}
    complete = len(cases) == len(CASES) and set(PEERS) <= set(names)
    folder = RESULTS if complete else PARTIAL
    path = RESULTS / f"{now:%Y-%m-%d}-{about['class']}.json" if complete else lines.with_suffix(".json")
    path.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    print(f"\n{report.targets_line(whole)}")
    for written in (path, *report.publish(whole, folder)):
        print(f"bench: written to {os.path.relpath(written)}")
    return 0


def _done(file: Path | None) -> dict[str, dict[str, Any]]:
    if file is None or not file.exists():
        return {}
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return {row["case"]: row for row in rows}


def _measure_all(
    run: Run, cases: Sequence[Case], budget: float, done: dict[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    left = budget
    results = []
    for place, case in enumerate(cases):
        if case.name in done:
            results.append(done[case.name])
            continue
        result, seconds = run.measure(case, max(_LEAST_BOX, left / (len(cases) - place)))
        left -= seconds
        results.append(result)
        print(report.line(results[-1]), flush=True)
    return results


if __name__ == "__main__":
    ENVIRONMENTS.mkdir(parents=True, exist_ok=True)
    sys.exit(main())
