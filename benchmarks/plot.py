"""The plot of a run: one bar for each case, how much faster or slower than the fastest rival."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from registry import GATES, MODES, SHAPES, Case

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

_WON, _LOST, _INK, _FAINT = "#2a7f8e", "#d1632b", "#222222", "#d9d9d9"
_NAMES = {"lstm": "LSTM", "gru_before": "GRU, reset before", "gru_after": "GRU, reset after", "rnn": "RNN"}

Bar = tuple[Case, tuple[float, str]]


def draw(bars: Sequence[Bar], whole: dict[str, Any], path: Path) -> None:
    """Bare cases only, inference and training side by side."""
    figure, axes = plt.subplots(1, len(MODES), figsize=(13, 8.6), sharey=True, layout="constrained")
    shown = [bar for bar in bars if bar[0].variation == "bare"]
    ratios = [found[0] for _, found in shown] or [1.0]
    limits = min(0.8, *ratios) / 1.3, max(2.0, *ratios) * 2.2
    rows = {_key(case) for case, _ in shown}
    for axis, mode in zip(axes, MODES, strict=True):
        _panel(axis, {_key(case): found for case, found in shown if case.mode == mode}, rows, limits)
        axis.set_title(mode, color=_INK, fontsize=13, loc="left")
    machine = whole["machine"]
    figure.suptitle(
        f"Time of the fastest rival / cellweave's (right of 1: cellweave is faster)\n{machine['processor']}, "
        f"{machine['vectors']}, {machine['threads']} threads, float32, whole layer",
        fontsize=13, x=0.01, ha="left", color=_INK,
    )  # fmt: skip
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


_Key = tuple[str, int, int, int]


def _key(case: Case) -> _Key:
    return case.kind, case.T, case.B, case.H


def _panel(axis: Axes, found: dict[_Key, tuple[float, str]], rows: set[_Key], limits: tuple[float, float]) -> None:
    """One panel; `rows` are those that either panel has."""
    places, labels, height = [], [], 0.0
    for kind in GATES:
        sizes = [size for size in SHAPES if (kind, *size) in rows]
        if not sizes:
            continue
        places.append(height)
        labels.append(_NAMES[kind])
        for T, B, H in sizes:
            height += 1
            places.append(height)
            labels.append(f"T{T:>4}  B{B:>4}  H{H:>5}")
            if (kind, T, B, H) in found:
                _bar(axis, height, *found[kind, T, B, H])
        height += 1.4
    axis.set_xscale("log")
    axis.set_xlim(*limits)
    axis.set_ylim(height - 0.6, -0.8)
    axis.set_yticks(places, labels, fontsize=8, family="monospace")
    for label in axis.get_yticklabels():
        if label.get_text() in _NAMES.values():
            label.set(fontsize=10, fontweight="bold", family="sans-serif")
    ticks = [tick for tick in (0.05, 0.1, 0.2, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 20, 50) if limits[0] <= tick <= limits[1]]
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks], fontsize=9)
    axis.minorticks_off()
    axis.tick_params(length=0, colors=_INK)
    axis.grid(axis="x", color=_FAINT, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.axvline(1, color=_INK, linewidth=1.4)
    axis.spines[:].set_visible(False)


def _bar(axis: Axes, height: float, ratio: float, rival: str) -> None:
    won = ratio >= 1
    axis.barh(height, ratio - 1, left=1, height=0.72, color=_WON if won else _LOST)
    axis.text(
        max(ratio, 1) * 1.05, height, f"{ratio:.2f}  {rival}", va="center", ha="left", fontsize=8, color=_INK
    )  # fmt: skip
