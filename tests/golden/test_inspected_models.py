"""Models that TensorFlow 2.15 wrote in its v1 mode with their graphs: the printed program gives TensorFlow's outputs.

`nested` is a stack in a stack, with peepholes, projection, both clips, a forget bias and an activation of its own;
`same` is one cell twice (`[cell] * 2`). Nothing of this but sizes is in the checkpoints; it is read from the graphs.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

import cellweave as cw
from helpers.printed_code import run_printed

MODELS = Path(__file__).parent / "models"


@pytest.mark.parametrize("name", ["nested", "same"])
def test_outputs_of_the_printed_program(name: str, tmp_path: Path) -> None:
    names = run_printed(MODELS / name / "model.ckpt", tmp_path)
    with np.load(MODELS / name / "expected.npz") as expected:
        outputs, _ = cw.dynamic_rnn(names["cell"], torch.from_numpy(expected["x"]), dtype="float32")
        torch.testing.assert_close(outputs.detach(), torch.from_numpy(expected["o"]), rtol=0, atol=1e-6)


def test_files_are_the_ones_that_tensorflow_wrote() -> None:
    lines = (MODELS / "SHA256SUMS").read_text().splitlines()
    sums = {name: digest for digest, name in (line.split("  ") for line in lines)}
    found = {path.relative_to(MODELS).as_posix() for path in MODELS.rglob("*") if path.is_file()}
    assert found == {*sums, "SHA256SUMS"}
    for name, digest in sums.items():
        assert hashlib.sha256((MODELS / name).read_bytes()).hexdigest() == digest, name
