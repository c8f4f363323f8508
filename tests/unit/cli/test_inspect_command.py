"""`cellweave inspect` and `cellweave convert` as a user runs them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch

import cellweave as cw
from cellweave.checkpoint import open_checkpoint, write_checkpoint
from cellweave.cli import main


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    cell = cw.MultiRNNCell([cw.LSTMCell(3), cw.GRUCell(2)])
    cell.build([None, 4])
    cw.save_tf1(cell, tmp_path / "m.ckpt")
    return tmp_path / "m.ckpt"


def test_inspect_prints_the_table_and_the_program(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(saved)]) == 0
    shown = capsys.readouterr().out
    assert shown == f"{cw.inspect_tf1(saved)}\n"
    assert "MultiRNNCell of 2 cells" in shown
    assert "cw.MultiRNNCell([cw.LSTMCell(3), cw.GRUCell(2)])" in shown
    assert "forget_bias  TF1's default 1.0   cell.cell_0" in shown
    assert main(["inspect", str(saved), "--code"]) == 0
    assert capsys.readouterr().out == cw.inspect_tf1(saved).code


def test_names_that_the_output_cannot_spell_are_escaped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = {"kernel": (6, 16), "bias": (16,)}
    write_checkpoint(
        tmp_path / "m.ckpt",
        {f"\u5c64/rnn/lstm_cell/{name}": np.zeros(shape, np.float32) for name, shape in shapes.items()},
    )
    written = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr("sys.stdout", written)
    assert main(["inspect", str(tmp_path / "m.ckpt")]) == 0
    written.flush()
    assert rb"\u5c64/rnn" in written.buffer.getvalue()  # type: ignore[attr-defined]
    assert written.errors == "strict"


def test_convert(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.torch import load_file

    for kind, read in (("safetensors", load_file), ("torch", torch.load)):
        out = tmp_path / kind
        assert main(["convert", str(saved), "--to", kind, "-o", str(out)]) == 0
        tensors = read(str(out))
        with open_checkpoint(saved) as checkpoint:
            assert sorted(tensors) == list(checkpoint)
            assert all(torch.equal(tensors[name], checkpoint.read_tensor(name)) for name in checkpoint)
    assert main(["convert", str(saved), "--to", "tf1", "-o", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again.index").read_bytes() == saved.with_name("m.ckpt.index").read_bytes()
    capsys.readouterr()
    assert main(["convert", str(saved), "--to", "tf1", "-o", str(tmp_path / "again")]) == 2
    assert main(["convert", str(saved), "--to", "zip", "-o", str(tmp_path / "x")]) == 2
    assert "expected a format out of safetensors, torch, tf1, got 'zip'" in capsys.readouterr().err
    assert main(["inspect", str(tmp_path / "gone")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
