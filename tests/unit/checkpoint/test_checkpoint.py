from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from cellweave import CheckpointError
from cellweave.checkpoint import VariableInfo, open_checkpoint, write_checkpoint
from cellweave.checkpoint._files import MAP_FROM
from helpers.checkpoint_bytes import message_field, v1
from helpers.checkpoint_set import DEFAULT


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "m.v1.ckpt-3", {"b": np.arange(6.0).reshape(2, 3), "a": b"x"}, update_state=True)


def test_is_a_mapping(prefix: Path) -> None:
    with open_checkpoint(prefix) as checkpoint:
        assert (len(checkpoint), list(checkpoint), "a" in checkpoint, "c" in checkpoint) == (2, ["a", "b"], True, False)
        assert checkpoint["b"].tolist() == checkpoint.read("b").tolist() == [[0, 1, 2], [3, 4, 5]]
        assert repr(checkpoint) == f"Checkpoint({str(prefix)!r}, V2 bundle, 2 variables)"
        assert (checkpoint.path, checkpoint.format) == (prefix, "V2 bundle")
        assert checkpoint.variables["b"] == VariableInfo("b", "float64", (2, 3))
        assert (checkpoint.variables["b"].size, checkpoint.variables["b"].nbytes) == (6, 48)
        assert checkpoint.variables["a"].nbytes is None
        for mapping in (checkpoint, checkpoint.variables):
            with pytest.raises(KeyError, match="'c'"):
                _ = mapping["c"]


def test_arrays_are_read_only(prefix: Path) -> None:
    with open_checkpoint(prefix) as checkpoint:
        for name in checkpoint:
            with pytest.raises(ValueError, match="read-only"):
                checkpoint[name][...] = 0


@pytest.mark.parametrize("suffix", ["", ".index", ".data-00000-of-00001"])
def test_paths_of_a_bundle(prefix: Path, suffix: str) -> None:
    for path in (Path(f"{prefix}{suffix}"), f"{prefix}{suffix}"):
        with open_checkpoint(path) as checkpoint:
            assert checkpoint.path == prefix


def test_folder_state_file_and_only_bundle(prefix: Path) -> None:
    for path in (prefix.parent, prefix.parent / "checkpoint"):
        with open_checkpoint(path) as checkpoint:
            assert checkpoint.path == prefix
    (prefix.parent / "checkpoint").unlink()
    with open_checkpoint(prefix.parent) as checkpoint:
        assert checkpoint.path == prefix
    write_checkpoint(prefix.parent / "other", {"a": 1})
    with pytest.raises(CheckpointError, match="2 of them: m.v1.ckpt-3.index, other.index. Give the path of one"):
        open_checkpoint(prefix.parent)


def test_state_file_of_a_moved_folder(prefix: Path) -> None:
    (prefix.parent / "checkpoint").write_text('model_checkpoint_path: "/home/of/another/m.v1.ckpt-3"\n')
    with open_checkpoint(prefix.parent) as checkpoint:
        assert checkpoint.path == prefix


@pytest.mark.parametrize("folder", ["", "save/", "C:\\\\models\\\\", "..\\\\save\\\\", "/tmp/"])
def test_state_file_that_names_another_folder(prefix: Path, folder: str) -> None:
    """Whether such a folder is there or not: the checkpoint is not in it."""
    prefix.with_name("checkpoint").write_text(f'model_checkpoint_path: "{folder}{prefix.name}"\n')
    with open_checkpoint(prefix.parent) as checkpoint:
        assert checkpoint.path == prefix


def test_state_file_names_what_is_there_before_what_lies_beside(prefix: Path) -> None:
    (prefix.parent / "save").mkdir()
    other = write_checkpoint(prefix.parent / "save" / prefix.name, {"other": 1})
    prefix.with_name("checkpoint").write_text(f'model_checkpoint_path: "save/{prefix.name}"\n')
    with open_checkpoint(prefix.parent) as checkpoint:
        assert checkpoint.path == other


def test_state_file_with_escapes(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / 'a "ü"', {"v": 1}, update_state=True)
    written = (tmp_path / "checkpoint").read_text(encoding="ascii")
    assert written.startswith('model_checkpoint_path: "a \\"\\303\\274\\""\n')
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.path == tmp_path / 'a "ü"'


@pytest.mark.parametrize("name", ["old.ckpt", "old.ckpt-00001-of-00003", "old.ckpt-?????-of-00003"])
def test_paths_of_v1_shards(name: str) -> None:
    with open_checkpoint(DEFAULT / "v1_sharded" / name) as checkpoint:
        assert (checkpoint.format, checkpoint.path) == ("V1 shards", DEFAULT / "v1_sharded" / "old.ckpt")


def test_paths_of_a_saved_model() -> None:
    for name in ("saved_model", "saved_model/saved_model.pb", "saved_model/variables/variables.index"):
        with open_checkpoint(DEFAULT / name) as checkpoint:
            assert checkpoint.path == DEFAULT / "saved_model" / "variables" / "variables"


def test_meta_file_leads_to_its_bundle() -> None:
    with open_checkpoint(DEFAULT / "gru_lm_adam" / "model.ckpt-3.meta") as checkpoint:
        assert checkpoint.path == DEFAULT / "gru_lm_adam" / "model.ckpt-3"


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="none: expected a checkpoint.*got no such file"):
        open_checkpoint(tmp_path / "none")
    (tmp_path / "model.txt").write_text("x" * 99)
    with pytest.raises(CheckpointError, match="got only model.txt"):
        open_checkpoint(tmp_path / "model")
    with pytest.raises(CheckpointError, match="got none"):
        open_checkpoint(tmp_path)


def test_verify_can_be_turned_off(prefix: Path) -> None:
    data = prefix.with_name(f"{prefix.name}.data-00000-of-00001")
    content = bytearray(data.read_bytes())
    content[-1] ^= 0x40
    data.write_bytes(content)
    with open_checkpoint(prefix) as checkpoint, pytest.raises(CheckpointError, match="checksum"):
        _ = checkpoint["b"]
    with open_checkpoint(prefix, verify=False) as checkpoint:
        assert checkpoint["b"].shape == (2, 3)


def test_arrays_outlive_the_checkpoint_and_the_checkpoint_says_it_is_closed(tmp_path: Path) -> None:
    large = np.arange(MAP_FROM // 4, dtype=np.float32)
    with open_checkpoint(write_checkpoint(tmp_path / "m", {"large": large, "small": 1})) as checkpoint:
        array = checkpoint["large"]
    assert np.array_equal(array, large)
    with pytest.raises(CheckpointError, match="expected an open checkpoint, got a closed one"):
        _ = checkpoint["small"]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="open files are counted in /proc")
def test_no_file_stays_open(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "m", {str(number): number for number in range(100)}, num_shards=100)
    before = len(os.listdir("/proc/self/fd"))
    with open_checkpoint(tmp_path / "m") as checkpoint:
        assert [checkpoint[str(number)].item() for number in range(100)] == list(range(100))
        assert len(os.listdir("/proc/self/fd")) - before <= 64
    (tmp_path / "bad").write_bytes(v1(message_field(5, b"\0"))["m"][:-60] + b"\0" * 60)
    with pytest.raises(CheckpointError):
        open_checkpoint(tmp_path / "bad")
    assert len(os.listdir("/proc/self/fd")) == before


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"


@pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00001"])
def test_a_pointer_of_git_lfs_in_place_of_a_file(suffix: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "m", {"v": np.zeros(3, np.float32)})
    (tmp_path / f"m{suffix}").write_bytes(POINTER)
    with (
        pytest.raises(CheckpointError, match=rf"m\{suffix}.*got a pointer of Git LFS.*git lfs pull"),
        open_checkpoint(tmp_path / "m") as checkpoint,
    ):
        checkpoint["v"]


def test_a_file_of_hdf5(tmp_path: Path) -> None:
    (tmp_path / "model.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(CheckpointError, match=r"model.h5: expected a checkpoint, got an HDF5 file.*save_format='tf'"):
        open_checkpoint(tmp_path / "model.h5")
