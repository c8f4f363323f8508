"""SIGKILL at any moment, then resume: the same weights, bit for bit, and the same metrics."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from helpers.tiny_runs import (
    metrics_of,
    start_or_resume_dying,
    start_or_resume_telling,
    tiny_settings,
    train_tiny,
    write_text,
)

KILLS = 10
SEED = 20241107
STEPS, SHORT_STEPS = 60, 12
#: Seconds that one process may take before the test gives up on it.
PATIENCE = 60

pytestmark = pytest.mark.skipif(os.name != "posix", reason="kills by signals of POSIX systems")


@pytest.fixture(scope="module")
def processes():
    """New processes with everything slow loaded: each is forked from a server that never computed anything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cellweave.training", "torch._dynamo", "matplotlib.figure"])
    return context


@pytest.fixture(scope="module")
def text_file(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def undisturbed(text_file, tmp_path_factory):
    """The run that nobody stops."""
    return train_tiny(text_file, tmp_path_factory.mktemp("undisturbed") / "run", steps=STEPS).run


@pytest.fixture(scope="module")
def undisturbed_short(text_file, tmp_path_factory):
    return train_tiny(text_file, tmp_path_factory.mktemp("undisturbed_short") / "run", steps=SHORT_STEPS).run


def require_same_run(run: Path, undisturbed: Path) -> None:
    for name in ("model.safetensors", "sample.txt"):
        assert (run / name).read_bytes() == (undisturbed / name).read_bytes(), name
    assert metrics_of(run) == metrics_of(undisturbed)
    ends = [torch.load(folder / "snapshot.pt", weights_only=True) for folder in (run, undisturbed)]
    assert ends[0]["model"].keys() == ends[1]["model"].keys()
    for name, tensor in ends[0]["model"].items():
        assert torch.equal(tensor, ends[1]["model"][name]), name
    assert sorted(path.name for path in run.iterdir() if not path.name.endswith(".tmp")) == sorted(
        path.name for path in undisturbed.iterdir()
    )


def test_killed_at_ten_random_moments(processes, text_file, undisturbed, tmp_path):
    settings = tiny_settings(text_file, steps=STEPS)
    chance = random.Random(SEED)
    kills, rounds = 0, 0
    while kills < KILLS:  # a run that ends between two kills is judged, and the next one takes the kills that are left
        run = tmp_path / f"run{rounds}"
        rounds += 1
        exit_code = -signal.SIGKILL
        while exit_code == -signal.SIGKILL:
            began = processes.Event()
            process = processes.Process(target=start_or_resume_telling, args=(run, settings, began))
            process.start()
            assert began.wait(PATIENCE)
            if kills < KILLS:
                time.sleep(chance.uniform(0.0, 0.5))
                process.kill()
            process.join(PATIENCE)
            exit_code = process.exitcode
            kills += exit_code == -signal.SIGKILL
        assert exit_code == 0
        require_same_run(run, undisturbed)


# Renames in order: config.json, then model and snapshot at step 0, snapshot at 4, model at 5, ...; two syncs each.
@pytest.mark.parametrize(
    "place, call",
    [("before rename", call) for call in (1, 2, 3, 4, 5)]
    + [("after rename", call) for call in (2, 3, 5, 8)]
    + [("at sync", call) for call in (4, 7, 13)],
)
def test_killed_while_a_file_is_written(processes, text_file, undisturbed_short, tmp_path, place, call):
    settings = tiny_settings(text_file, steps=SHORT_STEPS)
    run = tmp_path / "run"
    dying = processes.Process(target=start_or_resume_dying, args=(run, settings, place, call))
    dying.start()
    dying.join(PATIENCE)
    assert dying.exitcode == -signal.SIGKILL
    again = processes.Process(target=start_or_resume_dying, args=(run, settings, place, 0))
    again.start()
    again.join(PATIENCE)
    assert again.exitcode == 0
    require_same_run(run, undisturbed_short)


def wait_for_lines(run: Path, lines: int, process: subprocess.Popen[str]) -> None:
    """Wait until a process has written this many lines of metrics."""
    deadline = time.monotonic() + PATIENCE
    path = run / "metrics.jsonl"
    while not path.exists() or path.read_bytes().count(b"\n") < lines:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def start_command(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "cellweave", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_command_killed_then_interrupted_then_resumed(text_file, tmp_path):
    steps = 160  # long enough that both signals meet it at work
    undisturbed = train_tiny(text_file, tmp_path / "undisturbed", steps=steps, layers=1).run
    run = tmp_path / "run"
    settings = tiny_settings(text_file, steps=steps, layers=1)
    options = [
        part for name, value in settings.items() if name != "text" for part in (f"--{name.replace('_', '-')}", value)
    ]

    process = start_command("train", text_file, "--out", run, *options)
    wait_for_lines(run, 20, process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL

    process = start_command("train", "--resume", "--out", run)
    wait_for_lines(run, 60, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert len(errors.splitlines()) == 1
    assert errors.startswith("cellweave: Interrupted after step ")
    assert f"cellweave train --resume --out {run}" in errors

    process = start_command("train", text_file, "--resume", "--out", run, *options)
    output, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (0, "")
    assert "Learning curve: " in output
    require_same_run(run, undisturbed)
