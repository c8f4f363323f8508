"""A text and finished tiny runs, as fixtures for the folders that import them into their conftest."""

from __future__ import annotations

from pathlib import Path

import pytest

from cellweave.training import TrainResult, _runs
from helpers.tiny_runs import draw_once, train_tiny, write_text


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of 4000 characters."""
    return write_text(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="session")
def finished(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """A run by characters, never stopped."""
    return train_tiny(text_file, tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture(scope="session")
def finished_words(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """A run by words."""
    return train_tiny(text_file, tmp_path_factory.mktemp("words") / "run", level="word", steps=12)


@pytest.fixture(autouse=True)
def curves_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in tests are drawn once for each title; those of the fixtures above and of test_curve are drawn as ever."""
    monkeypatch.setattr(_runs, "draw_curve", draw_once)
