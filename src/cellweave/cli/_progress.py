"""Progress of a training run: a live bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as ProgressBar

from cellweave.training import Progress

#: Seconds between plain lines.
_PLAIN_INTERVAL = 5.0


def loss_text(progress: Progress) -> str:
    """The loss as its reader knows it: `2.31 bits per character, perplexity 4.96`; words have the perplexity alone."""
    if progress.level == "word":
        return f"perplexity {progress.perplexity:.1f}"
    return f"{progress.bits:.3f} bits per character, perplexity {progress.perplexity:.2f}"


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return "-:--"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _line(progress: Progress) -> str:
    step = f"step {progress.step:>{len(str(progress.steps))}}/{progress.steps}"
    if progress.kind == "valid":
        return f"{step}  validation {loss_text(progress)}"
    speed = f"{progress.tokens_per_second:,.0f} tokens/s, {_clock(progress.seconds_left)} left"
    return f"{step}  training   {loss_text(progress)}, {speed}"


def _bar_text(progress: Progress) -> str:
    """Short enough that the bar fits 80 columns."""
    judged = f"perplexity {progress.perplexity:.1f}" if progress.level == "word" else f"{progress.bits:.2f} bits/char"
    speed = f"{progress.tokens_per_second:,.0f} tokens/s, {_clock(progress.seconds_left)} left"
    return f"loss {progress.loss:.2f}, {judged}, {speed}"


def _plain(console: Console) -> Callable[[Progress], None]:
    last = time.monotonic()

    def observe(progress: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if progress.kind == "valid" or (progress.kind == "train" and now - last >= _PLAIN_INTERVAL):
            last = now
            console.print(_line(progress), highlight=False, soft_wrap=True)

    return observe


@contextmanager
def show_progress(console: Console) -> Iterator[Callable[[Progress], None]]:
    """Give an observer for `cellweave.training.train` that prints into `console`.

    Args:
        console: Where to; a live bar appears if it is a terminal.
    """
    if not console.is_terminal:
        yield _plain(console)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=10),
        TextColumn("{task.fields[text]}"),
    )
    with ProgressBar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("reading the text", total=None, text="")

        def observe(progress: Progress) -> None:
            if progress.kind == "valid":
                bar.console.print(_line(progress), highlight=False)
            step = f"step {progress.step}/{progress.steps}"
            bar.update(task, description=step, total=progress.steps, completed=progress.step)
            if progress.kind == "train":  # a mean is steadier than single steps
                bar.update(task, text=_bar_text(progress))

        yield observe
