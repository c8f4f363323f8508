"""The command: what it refuses, a trial of it all, and what is left of a run that is killed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest
import run_gpu
import torch
from gpu.plan import CALIBRATION, CUDNN, PHASES
from gpu.table import read

SCRIPT = Path(run_gpu.__file__)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_without_a_device_it_says_so_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert run_gpu.main(["--out", str(out)]) == 1
    captured = capsys.readouterr()
    assert "bench-gpu: expected a CUDA device, got none: torch" in captured.err
    assert "Nothing was measured." in captured.err and captured.out == ""
    assert not out.exists()


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--budget", "0"], "expected seconds above 0, got 0"),
        (["--device", "tpu"], "tpu"),
        (["--device", "cpu", "--out", str(run_gpu.RESULTS)], "a trial on the processor is no result"),
        (["--device", "cpu", "--out", str(run_gpu.RESULTS / "gpu")], "a trial on the processor is no result"),
    ],
)
def test_wrong_arguments_are_refused(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run_gpu.main(arguments)
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err


def test_a_trial_goes_through_all_phases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert run_gpu.main(["--device", "cpu", "--budget", "400", "--out", str(tmp_path)]) == 0
    (lines,) = tmp_path.glob("trial-*.jsonl")
    rows = read(lines)
    assert list(dict.fromkeys(row["phase"] for row in rows)) == [*(phase.name for phase in PHASES), "end"]
    assert [row["what"] for row in rows if "what" in row] == list(CALIBRATION)
    assert not any("not_reached" in row for row in rows)
    timed = [found for row in rows if "contestants" in row for found in row["contestants"].values() if "ms" in found]
    assert len(timed) >= 5 and all(found["ms"] > 0 for found in timed)
    text = lines.with_suffix(".md").read_text(encoding="utf-8")
    printed = capsys.readouterr().out
    assert "no number here says anything about a GPU" in printed and str(lines.name) in printed
    assert "**A trial of the command on the processor: no number here says anything about a GPU.**" in text
    assert "needs a CUDA tensor, got one on cpu" in text and "| M3 | not measured: needs a CUDA device |" in text
    assert f"| {CUDNN} |" in text


def test_what_a_killed_run_found_is_there(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--out", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while time.monotonic() < end and not any(file.stat().st_size for file in tmp_path.glob("*.jsonl")):
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    (lines,) = tmp_path.glob("trial-*.jsonl")
    kept = lines.read_text(encoding="utf-8").splitlines()
    assert kept and all(json.loads(line)["phase"] for line in kept)
    assert not list(tmp_path.glob("*.md"))
    assert run_gpu.main(["--report", str(lines)]) == 0
    assert "The run did not reach its end." in lines.with_suffix(".md").read_text(encoding="utf-8")


def test_a_tree_that_is_not_installed_is_found_by_its_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_gpu, "_is_installed", lambda: False)
    with run_gpu._environment() as environment:
        _, source, folder = environment["PYTHONPATH"].split(":")[:3]
        assert (Path(source) / "cellweave" / "__init__.py").exists()
        (found,) = metadata.distributions(name="cellweave", path=[folder])
        assert found.version == metadata.version("cellweave")


def test_the_callers_caches_and_paths_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", "mine")
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    with run_gpu._environment() as environment:
        assert environment["TRITON_CACHE_DIR"] == "mine"
        assert environment["PYTHONPATH"] == f"{SCRIPT.parent}:elsewhere"
