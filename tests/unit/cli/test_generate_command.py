"""`cellweave generate` as a user runs it."""

from __future__ import annotations

import pytest

from cellweave.cli import main
from cellweave.training import generate


def test_prints_what_the_library_writes(finished, capsys):
    words = ["--prompt", "the ", "--length", "30", "--temperature", "0.5", "--seed", "4"]
    assert main(["generate", str(finished.run), *words]) == 0
    captured = capsys.readouterr()
    assert captured.out == generate(finished.run, "the ", 30, 0.5, 4) + "\n"
    assert captured.err == ""


@pytest.mark.parametrize(
    "words, facts",
    [
        (["--prompt", "Zoë"], "prompt: expected characters that the model has learned, got 'Z', 'ë'. Leave it out."),
        (["--length", "0"], "length: expected at least 1, got 0."),
        (["--temperature", "-1"], "temperature: expected a finite number of at least 0, got -1."),
        (["--length", "x"], "got: Invalid value for '--length'"),
    ],
)
def test_wrong_arguments(finished, capsys, words, facts):
    assert main(["generate", str(finished.run), *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("cellweave: ")
    assert facts in captured.err
    assert len(captured.err.splitlines()) == 1


def test_a_folder_without_a_model(tmp_path, capsys):
    assert main(["generate", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"cellweave: run folder {tmp_path}: expected a run's config.json, got a folder without.")
    assert main(["generate", str(tmp_path / "gone")]) == 2
    assert "got no such folder. Check the path." in capsys.readouterr().err
