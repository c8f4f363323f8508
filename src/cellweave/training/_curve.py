"""The learning curve of a run, drawn from its metrics."""

from __future__ import annotations

import io
from importlib.util import find_spec
from typing import Any

from cellweave._errors import RunError

_INK, _MUTED, _GRID = "#222222", "#666666", "#dddddd"
_TRAIN_COLOUR, _VALID_COLOUR = "#7aa6c2", "#c8553d"


def _series(metrics: list[dict[str, Any]], event: str, value: str) -> tuple[list[int], list[float]]:
    lines = [line for line in metrics if line["event"] == event]
    return [line["step"] for line in lines], [line[value] for line in lines]


def require_matplotlib() -> None:
    """Raise RunError unless matplotlib is installed; asked before a long training, not after it."""
    if find_spec("matplotlib") is None:
        raise RunError(
            "learning curve: expected the package matplotlib, got none. Install it: pip install 'cellweave[train]'"
        )


def draw_curve(metrics: list[dict[str, Any]], level: str, title: str) -> tuple[bytes, bytes]:
    """Draw training and validation against the steps: bits per character, or perplexity of words.

    Args:
        metrics: Lines of the metrics file, with `train` and `valid` events.
        level: "char" or "word".
        title: Above the plot.
    Returns:
        The picture as PNG and as SVG.
    Raises:
        RunError: matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    value = "bits" if level == "char" else "perplexity"
    figure = Figure(figsize=(8.0, 4.5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for event, label, colour, style in (
        ("train", "training, mean since the last point", _TRAIN_COLOUR, {"linewidth": 1.4}),
        ("valid", "validation", _VALID_COLOUR, {"linewidth": 2.0, "marker": "o", "markersize": 4.0}),
    ):
        steps, values = _series(metrics, event, value)
        axes.plot(steps, values, color=colour, label=label, **style)
    if values:  # of the validation, which was drawn last
        axes.annotate(
            f"{values[-1]:.2f}", (steps[-1], values[-1]), xytext=(8, 0), textcoords="offset points",
            color=_VALID_COLOUR, va="center",
        )  # fmt: skip
    axes.set_title(title, color=_INK, loc="left")
    axes.set_xlabel("training step", color=_INK)
    if level == "char":
        axes.set_ylabel("bits per character", color=_INK)
        axes.set_ylim(bottom=0.0)
    else:
        axes.set_ylabel("perplexity (log scale)", color=_INK)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:,.0f}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(left=0)
    axes.margins(x=0.06)
    axes.grid(color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_MUTED)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper right")
    png, svg = io.BytesIO(), io.BytesIO()
    figure.savefig(png, format="png")
    with rc_context({"svg.hashsalt": "cellweave", "svg.fonttype": "none"}):
        figure.savefig(svg, format="svg", metadata={"Date": None})
    return png.getvalue(), svg.getvalue()
