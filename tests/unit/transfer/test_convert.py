"""Checkpoints in other formats: every variable once, under which name, and what stays behind when it fails."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

import cellweave as cw
from cellweave.checkpoint import open_checkpoint, write_checkpoint
from cellweave.cli import main
from helpers.checkpoint_bytes import FLOAT, VARIANT, bundle, entry


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


def test_what_is_not_read_is_left(tmp_path: Path) -> None:
    """The state of an input pipeline, as tf.data saves it."""
    state, two = b"12345", b"\0\0\0\x40"
    files = bundle({b"it": entry(VARIANT, (2,), data=state, checksum=7), b"w": entry(FLOAT, (1,), data=two, offset=5)})
    for name, content in {**files, "m.data-00000-of-00001": state + two}.items():
        (tmp_path / name).write_bytes(content)
    for everything in (False, True):
        for to in ("safetensors", "torch", "tf1"):
            done = cw.convert_tf1(tmp_path / "m", tmp_path / to, to=to, everything=everything, overwrite=True)
            assert (list(done.names), done.left) == (["w"], ("it",))
    assert written(tmp_path / "tf1") == {"w": 2.0}


def test_what_is_not_read_is_copied_as_it_is(tmp_path: Path) -> None:
    files = bundle({b"it": entry(VARIANT, (2,), data=b"12345", checksum=7)}, b"12345")
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with open_checkpoint(tmp_path / "m") as checkpoint:
        write_checkpoint(tmp_path / "copy", checkpoint)
    for name, content in files.items():
        assert (tmp_path / name.replace("m.", "copy.")).read_bytes() == content


@pytest.mark.parametrize(
    "to, out, facts",
    [
        ("safetensors", "gone/x.safetensors", "a folder that is not there"),
        ("torch", "gone/x.pt", "a folder that is not there"),
        ("tf1", "gone/x", "gone"),
        ("safetensors", "folder", "folder, a folder"),
        ("torch", "folder", "folder, a folder"),
        ("tf1", "folder/..", "a path that ends with a name"),
        ("safetensors", "x", "got complex128 of w"),
    ],
)
def test_what_cannot_be_written_is_one_line_and_leaves_nothing(
    to: str, out: str, facts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    write_checkpoint(tmp_path / "m", {"w": np.ones(3, np.complex128)})
    before = sorted(tmp_path.rglob("*"))
    assert main(["convert", str(tmp_path / "m"), "--to", to, "-o", str(tmp_path / out), "--overwrite"]) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert facts in shown
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "stored, later",
    [
        ("fc/weights", "fc/weights"),
        ("fc/weights/part_0", "fc/weights"),
        ("rnn/gru_cell/w_ru", "rnn/gru_cell/w_ru"),
        ("rnn/conv_2d_lstm_cell/biases", "rnn/conv_2d_lstm_cell/biases"),
        ("rnn/coupled_input_forget_gate_lstm_cell_1/W_0", "rnn/coupled_input_forget_gate_lstm_cell_1/W_0"),
        ("rnn/rnn/lstm_cell/kernel", "rnn/rnn/lstm_cell/kernel"),
        ("rnn/lstm_cell/weights", "rnn/lstm_cell/kernel"),
        ("RNN/LSTMCell/W_0", "rnn/lstm_cell/kernel"),
    ],
)
def test_names_that_no_release_changed_stay(stored: str, later: str, tmp_path: Path) -> None:
    write(tmp_path / "m", stored, f"train/{stored}/Adam")
    cw.convert_tf1(tmp_path / "m", tmp_path / "out", to="tf1", everything=True)
    if stored.endswith("/part_0"):
        later = stored  # a lone part has no other name
    assert written(tmp_path / "out") == {later: 1.0, f"train/{later}/Adam": 2.0}


def test_a_write_that_fails_halfway_leaves_the_earlier_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "m", "w")
    out = tmp_path / "out" / "x.pt"
    out.parent.mkdir()
    out.write_bytes(b"earlier")

    def full(_: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="no space left"):
        cw.convert_tf1(tmp_path / "m", out, to="torch", overwrite=True)
    assert [path.name for path in out.parent.iterdir()] == ["x.pt"] and out.read_bytes() == b"earlier"


@pytest.mark.parametrize("to", ["torch", "safetensors", "tf1"])
def test_a_file_that_cannot_be_made_is_called_by_its_name(to: str, tmp_path: Path) -> None:
    write(tmp_path / "m", "w")
    out = tmp_path / ("x" * 300)  # longer than any file system's names
    with pytest.raises(OSError) as caught:
        cw.convert_tf1(tmp_path / "m", out, to=to)
    assert str(caught.value.filename).startswith(str(out))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("to", ["torch", "safetensors"])
def test_what_the_writers_make_of_a_full_disk_is_an_oserror(
    to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "m", "w")
    writer, error = {
        "torch": ("torch.save", RuntimeError("file write failed")),
        "safetensors": ("safetensors.torch.save_file", SafetensorError("file write failed")),
    }[to]

    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr(writer, full)
    with pytest.raises(OSError, match="file write failed"):
        cw.convert_tf1(tmp_path / "m", tmp_path / "out", to=to)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.data-00000-of-00001", "m.index"]


def test_others_may_read_what_is_written(tmp_path: Path) -> None:
    write(tmp_path / "m", "w")
    for to in ("torch", "safetensors", "tf1"):
        cw.convert_tf1(tmp_path / "m", tmp_path / to, to=to)
    (tmp_path / "plain").touch()
    rights = {(tmp_path / name).stat().st_mode for name in ("plain", "torch", "safetensors", "tf1.index")}
    assert len(rights) == 1
