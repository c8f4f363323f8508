"""The scripts of `examples/` run, as a user would start them, and say what they found."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from repo.source_files import ROOT

EXAMPLES = ROOT / "examples"
#: What each script says at its end, and whether it draws.
FOUND = {
    "convert_model": (r"and back: LSTM is torch.nn's again: True", False),
    "ddp": (r"largest difference of the losses in 8 steps: \d", True),
    "forecast": (r"inside the 90 % band +\d+\.\d%", True),
    "keyword_spotting": (r"median of a frame of 10 ms: \d+ us", True),
    "ppo_cartpole": (r"step by step, \d+\.\d times as long", True),
    "tagger": (r"bidirectional LSTM +\d+\.\d%", False),
}
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))


def start(name: str, *arguments: str) -> None:
    """Run a script in this process, which saves importing torch anew; a warning is an error here."""
    before, threads = sys.argv, torch.get_num_threads()
    sys.argv = [f"{name}.py", *arguments]
    try:
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    finally:
        sys.argv = before
        torch.set_num_threads(threads)


def test_every_script_is_run() -> None:
    assert sorted(FOUND) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_smoke(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    start(name, "--smoke")
    said, draws = FOUND[name]
    assert re.search(said, capfd.readouterr().out)
    pictures = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()]
    assert pictures == ([f"runs/examples/{name}.png"] if draws else [])
    for picture in pictures:
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", NAMES)
def test_help_begins_with_what_the_script_does(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        start(name, "--help")
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    first = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8").splitlines()[0].removeprefix('"""')
    assert first in shown
    assert "--smoke" in shown


def test_ddp_ends_processes_that_take_too_long(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(subprocess.TimeoutExpired, match="timed out after 1 seconds"):
        start("ddp", "--smoke", "--seconds=1")
