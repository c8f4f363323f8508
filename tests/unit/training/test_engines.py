"""compare_engines: what a run's step takes woven and step by step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cellweave import RunError, training
from helpers.tiny_runs import train_tiny


def test_measures_both_ways_and_changes_nothing(tmp_path: Path, text_file: Path) -> None:
    result = train_tiny(text_file, tmp_path / "run", cell="gru", steps=2, time=30)
    before = {path.name: path.read_bytes() for path in sorted(result.run.iterdir())}
    generator, threads = torch.get_rng_state(), torch.get_num_threads()
    found = training.compare_engines(result.run, seconds=0.1)
    assert found.speed_up == found.stepwise / found.woven
    assert found.woven > 0 and found.speed_up > 1.5  # a loop in Python costs more than that at these sizes
    assert found.plan.count("native") == 2 and "GRUCell" in found.plan and "masks per step on inputs" in found.plan
    assert before == {path.name: path.read_bytes() for path in sorted(result.run.iterdir())}
    assert torch.equal(generator, torch.get_rng_state()) and threads == torch.get_num_threads()


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=str(tmp_path)):
        training.compare_engines(tmp_path)
