"""Checkpoints in other formats: every variable once, under which name, and what stays behind when it fails."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import cellweave as cw
from cellweave.checkpoint import open_checkpoint, write_checkpoint


def written(path: Path) -> dict[str, float]:
    """Each variable's first element."""
    with open_checkpoint(path) as checkpoint:
        return {name: float(array.reshape(-1)[0]) for name, array in checkpoint.items()}


def write(path: Path, *names: str) -> dict[str, float]:
    """Writes variables whose elements are 1, 2, ..."""
    values = {name: float(index) for index, name in enumerate(names, 1)}
    write_checkpoint(path, {name: np.full((4, 3), value, np.float32) for name, value in values.items()})
    return values


@pytest.mark.parametrize("stored_names", [False, True])
@pytest.mark.parametrize(
    "names",
    [
        ["enc/enc/kernel", "enc/kernel"],
        ["RNN/w", "rnn/w"],
        ["pos/part_1", "pos/part_2"],
        ["w", "w/ExponentialMovingAverage", "w/ExponentialMovingAverage_1"],
        ["w", "a/w/Adam", "b/w/Adam", "a/w/Adam_1", "b/w/Adam_1"],
    ],
    ids="-".join,
)
def test_everything_keeps_its_values(names: list[str], stored_names: bool, tmp_path: Path) -> None:
    values = write(tmp_path / "m", *names)
    done = cw.convert_tf1(tmp_path / "m", tmp_path / "out", to="tf1", everything=True, stored_names=stored_names)
    assert written(tmp_path / "out") == values
    assert not done.left
