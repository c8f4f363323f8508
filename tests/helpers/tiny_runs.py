"""Training runs small enough for tests, and processes that run them until they are killed."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cellweave.training import TrainResult, _runs, make_config, resume, train
from cellweave.training._curve import draw_curve

_WORDS = [
    "the",
    "cell",
    "keeps",
    "what",
    "the",
    "gate",
    "lets",
    "in",
    "and",
    "the",
    "gate",
    "forgets",
    "what",
    "the",
    "cell",
    "let",
    "go",
    "of",
    ".",
    "every",
    "step",
    "adds",
    "a",
    "little",
]
#: Fields of a metrics line that the clock decides.
TIMING = ("seconds", "tokens_per_second")


def sample_text(characters: int = 4000, seed: int = 3) -> str:
    """English-like words in lines, always the same."""
    source = random.Random(seed)
    words: list[str] = []
    while sum(map(len, words)) < characters:
        words.append(source.choice(_WORDS))
        if source.random() < 0.12:
            words[-1] += "\n"
    return " ".join(words).replace("\n ", "\n")[:characters]


def write_text(folder: Path, characters: int = 4000) -> Path:
    """A text file to learn from."""
    path = folder / "words.txt"
    path.write_text(sample_text(characters), encoding="utf-8", newline="\n")
    return path


def tiny_settings(text: Path, **changes: Any) -> dict[str, Any]:
    """Settings of a run with every kind of state: dropout streams, schedule, carried state, validation, part logs."""
    settings = {
        "text": str(text), "min_count": 1, "layers": 2, "units": 7, "embedding": 5, "input_keep": 0.9,
        "state_keep": 0.9, "output_keep": 0.8, "steps": 24, "batch": 4, "time": 6, "lr": 0.02, "warmup": 3,
        "validate_every": 5, "snapshot_every": 4, "log_every": 3, "seed": 5, "threads": 1,
    }  # fmt: skip
    return settings | changes


def train_tiny(text: Path, out: Path, **changes: Any) -> TrainResult:
    """Train a tiny run to its end."""
    return train(make_config(tiny_settings(text, **changes)), out)


_PICTURES: dict[tuple[str, str], tuple[bytes, bytes]] = {}


def draw_once(metrics: list[dict[str, Any]], level: str, title: str) -> tuple[bytes, bytes]:
    """In place of `draw_curve`, which takes longer than a tiny run: the pictures of the first run of this title."""
    if (level, title) not in _PICTURES:
        _PICTURES[level, title] = draw_curve(metrics, level, title)
    return _PICTURES[level, title]


def metrics_of(run: Path) -> list[dict[str, Any]]:
    """The run's metrics without what the clock decides."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMING} for line in lines]


def start_or_resume(run: Path, settings: dict[str, Any]) -> None:
    """What a user does after a kill: go on where there is a snapshot, start where there is none yet.

    The process is the run's own, and its pictures are not looked at.
    """
    _runs.draw_curve = lambda *_: (b"a picture", b"a picture")
    if (run / "snapshot.pt").exists():
        resume(run)
    else:
        train(make_config(settings), run, overwrite=True)


def start_or_resume_telling(run: Path, settings: dict[str, Any], began: Any) -> None:
    """The same in a process of its own, which sets the event `began` first."""
    began.set()
    start_or_resume(run, settings)


def start_or_resume_dying(run: Path, settings: dict[str, Any], place: str, call: int) -> None:
    """The same in a process that kills itself at the `call`-th passing of a rename (before or after it) or a sync."""
    name = {"before rename": "replace", "after rename": "replace", "at sync": "fsync"}[place]
    original: Callable[..., Any] = getattr(os, name)
    passed = 0

    def dying(*args: Any) -> Any:
        nonlocal passed
        passed += 1
        result = original(*args) if place == "after rename" else None
        if passed == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args) if place != "after rename" else result

    setattr(os, name, dying)
    start_or_resume(run, settings)
