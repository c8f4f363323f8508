"""Compares two result files: `compare.py OLD NEW`. Ratios are old time over new time: above 1 the new one is faster."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from registry import OURS

#: Between runs a case may move by this much without meaning anything; moves beyond it are marked.
NOISE = 0.05


def medians(path: Path) -> dict[tuple[str, str], float]:
    """(case, contestant) -> milliseconds. Takes whole results and the .jsonl files of partial ones."""
    text = path.read_text(encoding="utf-8")
    rows: list[dict[str, Any]]
    rows = [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)["results"]
    return {
        (row["case"], name): found["median_ms"]
        for row in rows
        for name, found in row["contestants"].items()
        if "median_ms" in found
    }


def lines(
    old: dict[tuple[str, str], float], new: dict[tuple[str, str], float], names: Iterable[str] | None
) -> list[str]:
    """One line for each contestant that both files have in a case, and the geometric mean for each contestant."""
    shared = [key for key in old if key in new and (names is None or key[1] in names)]
    shown, by_name = [f"{'case':<44}{'contestant':<18}{'old ms':>10}{'new ms':>10}{'old / new':>11}"], {}
    for case, name in shared:
        before, after = old[case, name], new[case, name]
        change = before / after
        by_name.setdefault(name, []).append(change)
        mark = "" if abs(change - 1) <= NOISE else "  faster" if change > 1 else "  slower"
        shown.append(f"{case:<44}{name:<18}{before:>10.4g}{after:>10.4g}{change:>11.2f}{mark}")
    for name, changes in by_name.items():
        shown.append(f"{'geometric mean':<44}{name:<18}{'':>20}{statistics.geometric_mean(changes):>11.2f}")
    return shown


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument(
        "--all", action="store_true", help="every contestant, not only cellweave: shows how far the machine moved"
    )
    options = parser.parse_args()
    found = lines(medians(options.old), medians(options.new), None if options.all else [OURS])
    print("\n".join(found))
    return 0 if len(found) > 1 else 1


if __name__ == "__main__":
    sys.exit(main())
