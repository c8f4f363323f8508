"""Makes what people read out of a result file: table and plot beside it, and the README's part with `--readme`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mdtable import table_lines
from plot import draw
from registry import (
    ADDITION_SHAPES,
    ADDITIONS,
    CASES,
    GATES,
    HALF,
    HALF_SHAPES,
    LARGE_PRODUCT,
    MODES,
    OURS,
    OWN_BARE,
    PEERS,
    RIVALS,
    SHAPES,
    STEP_UNITS,
    Case,
    Target,
    targets,
)  # fmt: skip

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
README = HERE.parent / "README.md"
BEGIN, END = "<!-- benchmarks: made by benchmarks/report.py -->", "<!-- benchmarks: end -->"
_NAMES = {"lstm": "LSTM", "gru_before": "GRU, reset before", "gru_after": "GRU, reset after", "rnn": "RNN"}
Result = dict[str, Any]  # one case, as run.py writes it


def median(result: Result, name: str) -> float | None:
    """Milliseconds, or None where it was not measured."""
    value: float | None = result["contestants"].get(name, {}).get("median_ms")
    return value


def fastest(result: Result, names: Iterable[str]) -> str | None:
    measured = {name: time for name in names if (time := median(result, name)) is not None}
    return min(measured, key=measured.__getitem__) if measured else None


def ratio(result: Result, names: Iterable[str] = RIVALS) -> tuple[float, str] | None:
    """Time of the fastest of them over ours, and whose it is."""
    name, ours = fastest(result, names), median(result, OURS)
    if name is None or ours is None:
        return None
    rival = median(result, name)
    assert rival is not None
    return rival / ours, name


def sgemm_share(result: Result, name: str = OURS) -> float | None:
    """The contestant's rate over that of one large product in the same rounds."""
    time, yardstick = median(result, name), median(result, "sgemm")
    if time is None or yardstick is None:
        return None
    m, k, n = LARGE_PRODUCT
    share: float = (result["flops"] / time) / (2 * m * k * n / yardstick)
    return share


def value(result: Result, target: Target) -> float | None:
    """The quantity that the target speaks of; None where it was not measured."""
    if target.quantity == "sgemm":
        return sgemm_share(result)
    if target.quantity == "saved":
        saved = result.get("saved_floats", {}).get(OURS)
        return saved if isinstance(saved, float | int) else None
    found = ratio(result, target.versus)
    if found is None:
        return None
    return 1 / found[0] if target.quantity == "cost" else found[0]


def verdicts(result: Result) -> list[tuple[Target, float | None]]:
    return [(target, value(result, target)) for target in targets(case_of(result))]


def case_of(result: Result) -> Case:
    return Case(**{name: result[name] for name in ("kind", "mode", "variation", "T", "B", "I", "H")})


def line(result: Result) -> str:
    """One case on one line, for the terminal."""
    shown = [f"{result['case']:<44}"]
    for name, found in result["contestants"].items():
        shown.append(f"{name} {_ms(found['median_ms'])}" if "median_ms" in found else f"{name} –")
    return "  ".join(shown)


def targets_line(whole: dict[str, Any]) -> str:
    counts = {"met": 0, "missed": 0, "not measured": 0}
    for result in whole["results"]:
        for target, reached in verdicts(result):
            counts["not measured" if reached is None else "met" if target.met(reached) else "missed"] += 1
    return "targets: " + ", ".join(f"{count} {word}" for word, count in counts.items())


def _ms(milliseconds: float) -> str:
    if milliseconds < 0.1:
        return f"{milliseconds * 1e3:.1f} µs"
    return f"{milliseconds:.{max(0, 2 - len(str(int(milliseconds))) + 1)}f} ms"


def table(whole: dict[str, Any]) -> str:
    """All cases, as Markdown."""
    parts = ["# Times", "", *_about(whole), "", targets_line(whole).capitalize() + ".", ""]
    for title, chosen in _groups(whole["results"]):
        peers = [name for name in (OWN_BARE, *PEERS) if any(median(result, name) is not None for result in chosen)]
        training = any("peak_mb" in result for result in chosen)
        head = ["T, B, H", "cellweave (10 % to 90 %)", *peers, "fastest rival / ours", "targets"]
        head += ["of sgemm", "floats saved, peak MB"] if training else []
        parts += [f"## {title}", "", *table_lines(head, (_cells(result, peers, training) for result in chosen)), ""]
    return "\n".join(parts + _errors(whole["results"]))


def _about(whole: dict[str, Any]) -> list[str]:
    machine = whole["machine"]
    environments = whole["environments"].values()
    packages = {package for part in environments for package in part.get("versions", {}).items()}
    versions = [f"{name} {version}" for name, version in sorted(packages)]
    turns: dict[str, list[float]] = {}
    for part in environments:
        if "python" in part:
            turns.setdefault(part["python"], []).extend([part["turn_ns"]] if "turn_ns" in part else [])
    pythons = [
        f"Python {name}" + (f" ({min(ns):g} ns an addition in a loop)" if ns else "") for name, ns in turns.items()
    ]
    stand_ins = [f"{who} is {what}" for who, what in whole["stand_ins"].items()]
    return [
        f"Measured {whole['when'][:10]} on {machine['processor']} ({machine['vectors']}, {machine['cores']} cores), "
        f"{machine['threads']} threads for everybody, {machine['dtype']}, {machine['system']}; load before "
        f"{machine['load_before']}. cellweave {whole['cellweave']}; {', '.join([*pythons, *versions])}.",
        "",
        'Medians. Above 1 in "fastest rival / ours" cellweave is faster; lost cases are bold. '
        f"{'; '.join(stand_ins)}. How it was measured: docs/explanation/benchmarks.md.",
        *(part for note in whole.get("notes", []) for part in ("", note)),
    ]


def _groups(results: Sequence[Result]) -> Iterable[tuple[str, list[Result]]]:
    seen: dict[tuple[str, str, str], list[Result]] = {}
    for result in results:
        seen.setdefault((result["kind"], result["mode"], result["variation"]), []).append(result)
    for (kind, mode, variation), chosen in seen.items():
        yield f"{_NAMES[kind]}, {mode}" + ("" if variation == "bare" else f", {variation}"), chosen


def _cells(result: Result, peers: Sequence[str], training: bool) -> list[str]:
    cells = [f"{result['T']}, {result['B']}, {result['H']}", _with_spread(result["contestants"].get(OURS, {}))]
    for name in peers:
        time = median(result, name)
        cells.append("" if time is None else _ms(time))
    cells += [_ratio_cell(result), "; ".join(_verdict(target, reached) for target, reached in verdicts(result))]
    if training:
        share = sgemm_share(result)
        cells.append("" if share is None else f"{share:.0%}")
        cells.append(f"{_number(result['saved_floats'].get(OURS))}, {_number(result['peak_mb'].get(OURS))}")
    return cells


def _with_spread(found: dict[str, Any]) -> str:
    if "median_ms" not in found:
        return "–"
    return f"{_ms(found['median_ms'])} ({_ms(found['p10_ms'])} to {_ms(found['p90_ms'])})"


def _ratio_cell(result: Result, names: Iterable[str] = RIVALS) -> str:
    found = ratio(result, names)
    if found is None:
        return "–"
    text = f"{found[0]:.2f}"
    return f"{text if found[0] >= 1 else f'**{text}**'} ({found[1]})"


def _verdict(target: Target, reached: float | None) -> str:
    if reached is None:
        return f"{target.words()}: not measured"
    return f"{target.words()}: {'met' if target.met(reached) else '**missed**'} ({reached:.2f})"


def _number(given: Any) -> str:
    return f"{given:.1f}" if isinstance(given, float | int) else "–"


def _errors(results: Sequence[Result]) -> list[str]:
    """Why a contestant has no number, each reason once."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for result in results:
        for name, found in result["contestants"].items():
            if "error" in found:
                reasons.setdefault((name, found["error"]), []).append(result["case"])
    rows = []
    for (name, text), cases in reasons.items():
        more = f" and {len(cases) - 1} more" if cases[1:] else ""
        rows.append((name, text.replace("|", "/").replace("\n", " "), cases[0] + more))
    return ["## Not measured", "", *table_lines(["contestant", "why", "cases"], rows), ""] if rows else []


def readme_part(whole: dict[str, Any]) -> str:
    """What stands in the README between its two marks: ratios of bare cases, costs of masks and resets, streaming."""
    by_case = {case_of(result): result for result in whole["results"]}
    machine = whole["machine"]
    kinds = [kind for kind in GATES if kind != "rnn"]
    head = ["T, B, I = H", *(f"{_NAMES[kind]}: {mode}" for kind in kinds for mode in MODES)]
    rows = [
        [f"{T}, {B}, {H}"]
        + [_optional(by_case.get(Case(kind, mode, "bare", T, B, H, H))) for kind in kinds for mode in MODES]
        for T, B, H in SHAPES
    ]
    return "\n".join(
        [
            BEGIN,
            f"Time of the fastest rival over cellweave's, whole layer, float32, {machine['threads']} threads, "
            f"{machine['processor']} ({machine['vectors']}), measured {whole['when'][:10]}. Above 1 cellweave is "
            "faster; cases it loses are bold.",
            "",
            *table_lines(head, rows),
            "",
            "Cost: time with masks or resets over that of the bare cell.",
            "",
            *table_lines(_VARIED_HEAD, _varied_rows(by_case)),
            "",
            "What `cellweave.nn` has and torch.nn lacks: its time over that of our plain module. Packed: the time of "
            "torch.nn for a `PackedSequence` of the lengths over ours.",
            "",
            *table_lines(_ADDED_HEAD, _added_rows(by_case)),
            "",
            *_streaming(by_case),
            "",
            *_halves(by_case),
            "All times, RNN cells, memory and versions: [table](benchmarks/results/table.md). "
            "Bare cells at a glance: [plot](benchmarks/results/speed.png).",
            END,
        ]
    )  # fmt: skip


_VARIED_HEAD = [
    "training, T, B, H",
    "variational masks: cost",
    "torch loop / ours",
    "TF1 / ours",
    "per-step masks: cost",
    "resets: cost",
]  # fmt: skip


def _optional(result: Result | None) -> str:
    return "–" if result is None else _ratio_cell(result)


def _varied_rows(by_case: dict[Case, Result]) -> list[list[str]]:
    rows = []
    for kind in ("lstm", "gru_before"):
        for T, B, H in dict.fromkeys((case.T, case.B, case.H) for case in CASES if case.variation == "resets"):
            found = {name: by_case.get(Case(kind, "training", name, T, B, H, H)) for name in _VARIATIONS}
            variational = found["variational"]
            versus = [
                "–" if variational is None else _plain(ratio(variational, [name]))
                for name in ("torch loop", "tf1")
            ]  # fmt: skip
            costs = {name: _plain(_cost(result)) for name, result in found.items()}
            cells = [costs["variational"], *versus, costs["per-step"], costs["resets"]]
            rows.append([f"{_NAMES[kind]}, {T}, {B}, {H}", *cells])
    return rows


_VARIATIONS = ("variational", "per-step", "resets")
_ADDED_HEAD = ["training, T, B, H", *(f"{name}: cost" for name in ADDITIONS), "packed / ours"]


def _added_rows(by_case: dict[Case, Result]) -> list[list[str]]:
    rows = []
    for kind in ("lstm", "gru_after"):
        for T, B, H in ADDITION_SHAPES:
            found = {name: by_case.get(Case(kind, "training", name, T, B, H, H)) for name in ADDITIONS}
            packed = found["lengths"]
            versus = "–" if packed is None else _plain(ratio(packed, ["torch.nn"]))
            rows.append(
                [f"{_NAMES[kind]}, {T}, {B}, {H}", *(_plain(_cost(result)) for result in found.values()), versus]
            )
    return rows


def _cost(result: Result | None) -> tuple[float, str] | None:
    found = None if result is None else ratio(result, [OWN_BARE])
    return None if found is None else (1 / found[0], OWN_BARE)


def _plain(found: tuple[float, str] | None) -> str:
    return "–" if found is None else f"{found[0]:.2f}"


def _streaming(by_case: dict[Case, Result]) -> list[str]:
    rows = []
    for kind in ("lstm", "gru_after"):
        for H in STEP_UNITS:
            result = by_case.get(Case(kind, "inference", "step", 1, 1, H, H), {"contestants": {}})
            times = [median(result, name) for name in (OURS, "torch.nn", "torch loop")]
            shown = ["–" if time is None else f"{time * 1e3:.1f}" for time in times]
            rows.append([f"{_NAMES[kind]}, {H}", *shown, _ratio_cell(result)])
    head = ["one streaming step, H", "cellweave, µs", "torch.nn layer", "torch.nn cell", "fastest rival / ours"]
    return table_lines(head, rows)


def _halves(by_case: dict[Case, Result]) -> list[str]:
    """torch.nn's time over ours in half precision; nothing in runs from before it was timed."""
    kinds = ("lstm", "gru_after")
    rows = []
    for T, B, H in HALF_SHAPES:
        found = [by_case.get(Case(kind, "inference", HALF, T, B, H, H)) for kind in kinds]
        if any(found):
            rows.append([f"{T}, {B}, {H}", *map(_optional, found)])
    head = [f"{HALF}, inference, T, B, I = H", *(_NAMES[kind] for kind in kinds)]
    return [*table_lines(head, rows), ""] if rows else []


def write_readme(whole: dict[str, Any], readme: Path = README) -> None:
    """Replace what stands between the two marks.

    Raises:
        ValueError: the marks are missing.
    """
    text = readme.read_text(encoding="utf-8")
    before, mark, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not mark or not end:
        raise ValueError(
            f"{readme.name}: expected the lines {BEGIN} and {END}, got none. Put them where the table belongs."
        )
    readme.write_text(before + readme_part(whole) + after, encoding="utf-8")


def publish(whole: dict[str, Any], folder: Path) -> list[Path]:
    """Table and plot of a whole run; the files written."""
    written = [folder / "table.md", folder / "speed.png"]
    written[0].write_text(table(whole), encoding="utf-8")
    draw([(case_of(result), found) for result in whole["results"] if (found := ratio(result))], whole, written[1])
    return written


def latest(folder: Path = RESULTS) -> Path:
    """The newest result of a whole run; file names begin with their date."""
    files = sorted(folder.glob("[0-9]*.json"))
    if not files:
        raise FileNotFoundError(f"{folder.name}: expected a result file, got none. Make one: make bench.")
    return files[-1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, help="a result file (default: the latest of a whole run)")
    parser.add_argument("--readme", action="store_true", help="write the README's part, too")
    options = parser.parse_args()
    file = options.file or latest()
    whole = json.loads(file.read_text(encoding="utf-8"))
    for written in publish(whole, file.parent):
        print(f"report: {written.name}")
    if options.readme:
        write_readme(whole)
        print("report: README.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
