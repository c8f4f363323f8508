"""What people read out of a run's lines: a Markdown file with every case, its ratio to cuDNN and its target."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mdtable import table_lines

from gpu.plan import BYTES, CUDNN, EAGER_LOOP, SAVED_BYTES, TRITON, GpuCase, anchor_ms, gates, target

Row = dict[str, Any]
_TRIAL = "**A trial of the command on the processor: no number here says anything about a GPU.**"
#: Halves of a contestant's calls that differ by more than this share show noise.
_NOISE = 0.05
#: Bytes of memory that a step moves by row and unit of an LSTM in half precision, forward and backward.
_MOVED = (24.0, 26.0)
_GROUP_ROWS = 32  # of a persistent kernel's operand


def read(file: Path) -> list[Row]:
    """A run's lines; a last one that was cut off is left out."""
    rows = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def case_of(row: Row) -> GpuCase:
    return GpuCase(**{name: row[name] for name in ("kind", "mode", "dtype", "T", "B", "H")})


def table(rows: Sequence[Row]) -> str:
    """All results of a run, as Markdown."""
    about = next((row for row in rows if "versions" in row), {"versions": {}, "trial": True})
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items() if version)
    parts = ["# Times on a GPU", "", *([_TRIAL, ""] if about["trial"] else [])]
    parts += [f"{about.get('when', 'unknown date')}, {about.get('device', 'unknown device')}. {versions}.", ""]
    if not any(row["phase"] == "end" for row in rows):
        parts += ["The run did not reach its end.", ""]
    measured = calibrated(rows)
    parts += ["## Calibration", "", *table_lines(["what", "value"], _calibration(rows)), ""]
    parts += ["## Correctness", "", *_correctness(rows), ""]
    parts += ["## Ours beside cuDNN", "", *table_lines(_OURS_HEAD, _of_phase(rows, "ours", measured)), ""]
    parts += ["## Loops", "", *table_lines(_OURS_HEAD, _of_phase(rows, "loops", measured)), ""]
    parts += ["## cuDNN alone", "", *table_lines(_CUDNN_HEAD, _cudnn(rows)), ""]
    return "\n".join([*parts, "## Not measured", "", *_missing(rows), ""])


def short(rows: Sequence[Row]) -> list[str]:
    """What a terminal shows: calibration, correctness, a line for each case of ours, how many targets are met."""
    about = next((row for row in rows if "versions" in row), {"trial": True})
    lines = [_TRIAL.strip("*")] if about["trial"] else []
    lines += [" ".join(cells) for cells in _calibration(rows)] + _correctness(rows)[:1]
    counts = {"met for 1.0": 0, "met (": 0, "missed": 0, "not measured": 0}
    for row in rows:
        if row["phase"] not in ("ours", "loops") or "contestants" not in row:
            continue
        case, timed = case_of(row), {n: found for n, found in row["contestants"].items() if "ms" in found}
        lines.append(
            f"{case.name}: "
            + ", ".join(f"{n} {_number(milliseconds(case, n, found))} ms" for n, found in timed.items())
        )
        shown = [text for n, found in timed.items() for text in verdicts(case, n, found, row["contestants"])]
        for word in counts if row["phase"] == "ours" else ():
            counts[word] += sum(word in text for text in shown)
    return [*lines, "targets: " + ", ".join(f"{count} {word.rstrip(' (')}" for word, count in counts.items())]


# -- what was measured of the device ----------------------------------------------------------------------------------
def calibrated(rows: Sequence[Row]) -> dict[str, Any]:
    """Values of M1 to M8 by name; those with several as a table."""
    found = {row["what"]: row.get("value", row.get("values")) for row in rows if "what" in row}
    return {what: value for what, value in found.items() if value is not None}


def _calibration(rows: Sequence[Row]) -> Iterable[list[str]]:
    for row in rows:
        if "what" not in row:
            continue
        if "error" in row:
            yield [row["what"], f"not measured: {_plain(row['error'])}"]
        elif "values" in row:
            shown = "; ".join(f"{name} {row['by']}: {_number(value)}" for name, value in row["values"].items())
            yield [row["what"], f"{_plain(shown)} ({row['unit']})"]
        else:
            yield [row["what"], f"{_number(row['value'])} {row['unit']}"]


def floor_us(case: GpuCase, measured: dict[str, Any]) -> float | None:
    """The least a step can take by what was measured: meeting, reading the operand, the product, moving memory.

    Known for half precision, where the yardsticks were taken. Training: forward and backward, whose operand is G
    times as wide.
    """
    if BYTES[case.dtype] != 2 or not all(what in measured for what in ("M1", "M2", "M3", "M4", "M5")):
        return None
    meeting = min(value for what in ("M3", "M4") for value in measured[what].values())
    per_kib = min(us / float(kib) for kib, us in measured["M5"].items())
    product = 2 * gates(case) * case.H**2 * case.B / measured["M2"] / 1e6
    total = 0.0
    for moved, width in zip(_MOVED[: 1 + case.training], (1, gates(case)), strict=False):
        operand = min(case.B, _GROUP_ROWS) * case.H * width * 2 / 1024 * per_kib
        memory = moved * gates(case) / 4 * case.B * case.H / measured["M1"] / 1e6
        total += max(meeting, operand, product, memory)
    return total


# -- results ----------------------------------------------------------------------------------------------------------
_OURS_HEAD = [
    "case", "who", "ms (10 % to 90 %)", "us/step", "/ torch.nn", "of the floor", "bytes kept", "peak MB", "CPU ms",
    "launches", "target",
]  # fmt: skip
_CUDNN_HEAD = ["case", "ms (10 % to 90 %)", "us/step", "peak MB", "launches", "longest kernels"]


def _of_phase(rows: Sequence[Row], phase: str, measured: dict[str, Any]) -> Iterable[list[str]]:
    for row in rows:
        if row["phase"] == phase and "contestants" in row:
            case = case_of(row)
            for name, found in row["contestants"].items():
                if "ms" in found:
                    yield _cells(case, name, found, row["contestants"], measured)


def _cells(case: GpuCase, name: str, found: Row, others: Row, measured: dict[str, Any]) -> list[str]:
    time = milliseconds(case, name, found)
    theirs, floor = others.get(CUDNN, {}).get("ms"), floor_us(case, measured)
    scaled = f", scaled from {found['steps']} steps" if name == EAGER_LOOP else ""
    return [
        case.name, name, _with_spread(found, time) + scaled, _number(time / case.T * 1e3),
        "" if theirs is None or name == CUDNN else _number(time / theirs),
        "" if floor is None else f"{floor * case.T / time / 1e3:.0%}",
        _number(found["saved_bytes"]) if case.training else "", _number(found["peak_mb"]), _number(found["cpu_ms"]),
        _number(found.get("launches", "")), "; ".join(verdicts(case, name, found, others)),
    ]  # fmt: skip


def milliseconds(case: GpuCase, name: str, found: Row) -> float:
    """Of the whole case; the eager loop's few steps are scaled to all."""
    time: float = found["ms"]
    return time * case.T / found["steps"] if name == EAGER_LOOP else time


def verdicts(case: GpuCase, name: str, found: Row, others: Row) -> list[str]:
    """What the contestant must reach, and whether it did; an unmeasured rival is said."""
    shown = []
    wanted = target(case, name)
    if wanted is not None:
        rival = others.get(wanted.versus, {}).get("ms")
        words = f"≤ {wanted.first:g} (1.0: ≤ {wanted.final:g}) of {wanted.versus}"
        shown.append(f"{words}: {_met(None if rival is None else found['ms'] / rival, wanted.first, wanted.final)}")
    absolute = anchor_ms(case, name)
    if absolute is not None:
        shown.append(f"≤ {absolute[0]:g} ms (1.0: ≤ {absolute[1]:g}): {_met(found['ms'], *absolute)}")
    if name == TRITON and case.kind == "lstm" and case.training and BYTES[case.dtype] == 2:
        shown.append(f"≤ {SAVED_BYTES:g} bytes kept: {_met(found['saved_bytes'], SAVED_BYTES, SAVED_BYTES)}")
    return shown


def _met(reached: float | None, first: float, final: float) -> str:
    if reached is None:
        return "not measured"
    word = "met for 1.0" if reached <= final else "met" if reached <= first else "**missed**"
    return f"{word} ({reached:.3g})"


def _cudnn(rows: Sequence[Row]) -> Iterable[list[str]]:
    for row in rows:
        found = row.get("contestants", {}).get(CUDNN, {})
        if row["phase"] == "cuDNN" and "ms" in found:
            names = "; ".join(f"{count} × {name}" for name, count, _ in found.get("kernels", [])[:3])
            yield [
                row["case"], _with_spread(found, found["ms"]), _number(found["ms"] / row["T"] * 1e3),
                _number(found["peak_mb"]), _number(found.get("launches", "")), _plain(names),
            ]  # fmt: skip


def _correctness(rows: Sequence[Row]) -> list[str]:
    checked = [row for row in rows if "name" in row]
    passed = [row for row in checked if row.get("passes")]
    lines = [
        f"{len(passed)} of {len(checked)} kernels are right: within the bound of float64, the same bits each time."
    ]
    wrong = [row for row in checked if "passes" in row and not row["passes"]]
    if wrong:
        cells = (
            [row["case"], row["name"], row["worst"]["tensor"], _number(row["worst"]["error"]),
             _number(row["worst"]["bound"]), "yes" if row["repeats"] else "**no**"]
            for row in wrong
        )  # fmt: skip
        lines += ["", *table_lines(["case", "who", "worst", "differs by", "bound", "same bits"], cells)]
    return lines


def _missing(rows: Sequence[Row]) -> list[str]:
    """Why something has no number, each reason once; and what there was no time for."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        failed = {name: found["error"] for name, found in row.get("contestants", {}).items() if "error" in found}
        if "name" in row and "error" in row:
            failed[row["name"]] = row["error"]
        for name, error in failed.items():
            reasons.setdefault((name, _plain(error)), []).append(row["case"])
    cells = [
        [name, error, cases[0] + (f" and {len(cases) - 1} more" if cases[1:] else "")]
        for (name, error), cases in reasons.items()
    ]
    late = [
        f"No time in {row['phase']}: {_plain(', '.join(row['not_reached']))}." for row in rows if "not_reached" in row
    ]
    return [*table_lines(["who", "why", "cases"], cells), "", *late]


def _with_spread(found: Row, time: float) -> str:
    share, (early, late) = time / found["ms"], found["halves"]
    noisy = ", noisy" if abs(early - late) > _NOISE * found["ms"] else ""
    return f"{_number(time)} ({_number(found['p10_ms'] * share)} to {_number(found['p90_ms'] * share)}{noisy})"


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float | int) else "–" if value is None else str(value)


def _plain(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")
