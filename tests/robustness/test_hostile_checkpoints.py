"""Hostile and damaged files end in a CheckpointError, soon and without much memory."""

from __future__ import annotations

import os
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from cellweave import CheckpointError
from cellweave.checkpoint import open_checkpoint, read_graph
from helpers.checkpoint_bytes import constant, tensor_of
from robustness.hostile_checkpoints import ATTACKS, EIGHT, SOUND, Attack

MOST_SECONDS = 1.0
MEMORY_FACTOR = 4  # of the files' size
MEMORY_FLOOR = 4 << 20  # bytes: buffers, tables of the checksum, what an error's traceback holds


def write(files: dict[str, bytes], folder: Path) -> int:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return sum(map(len, files.values()))


def read_all(path: Path) -> None:
    with open_checkpoint(path) as checkpoint:
        for name in checkpoint:
            _ = checkpoint.variables[name]
            _ = checkpoint[name]


@pytest.fixture(scope="module", autouse=True)
def tables_of_the_checksum() -> None:
    """Made once per process, so they count for no file."""
    from cellweave.checkpoint._crc32c import crc32c

    crc32c(bytes(1 << 20))


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name.replace(" ", "-"))
def test_hostile_file_is_refused(attack: Attack, tmp_path: Path) -> None:
    size = write(attack.files, tmp_path)
    tracemalloc.start()
    start = time.perf_counter()
    try:
        with pytest.raises(CheckpointError) as found:
            read_all(tmp_path / attack.path)
        seconds = time.perf_counter() - start
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert attack.fact in str(found.value)
    assert str(tmp_path) in str(found.value), "the error names the file"
    assert seconds < MOST_SECONDS
    assert peak < MEMORY_FACTOR * size + MEMORY_FLOOR


def test_the_files_that_attacks_are_made_of_are_sound(tmp_path: Path) -> None:
    write(SOUND, tmp_path)
    with open_checkpoint(tmp_path / "m") as checkpoint:
        assert checkpoint["v"].tolist() == [1.0, 2.0]


def test_every_attack_is_another_one() -> None:
    assert len(ATTACKS) >= 30
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)
    assert len({(attack.path, *sorted(attack.files.items())) for attack in ATTACKS}) == len(ATTACKS)


def test_error_names_variable_and_place(tmp_path: Path) -> None:
    write(SOUND | {"m.data-00000-of-00001": EIGHT[::-1]}, tmp_path)
    with open_checkpoint(tmp_path / "m") as checkpoint, pytest.raises(CheckpointError) as found:
        _ = checkpoint["v"]
    for fact in ("m.data-00000-of-00001", "variable 'v'", "byte 0"):
        assert fact in str(found.value)


def test_one_value_for_a_huge_shape_costs_nothing(tmp_path: Path) -> None:
    """Not an error: TensorFlow writes constants so. It must not become 4 TB."""
    write({"m.pb": constant(tensor_of((1 << 40,), rest=b"\x2d\0\0\x80\x3f"))}, tmp_path)
    with open_checkpoint(tmp_path / "m.pb") as checkpoint:
        value = checkpoint["v"]
    assert value.shape == (1 << 40,) and value.strides == (0,)
    assert value[-1] == np.float32(1)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", ["m.index", "m.pb", "m.data-00000-of-00001", "checkpoint"])
def test_pipe_is_refused_and_not_waited_for(tmp_path: Path, name: str) -> None:
    write({"m.index": SOUND["m.index"]}, tmp_path)
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    path = {"m.index": "m.index", "m.data-00000-of-00001": "m"}.get(name, name)
    with pytest.raises(CheckpointError):
        read_all(tmp_path / path)


def test_graph_reader_refuses_what_is_no_graph(tmp_path: Path) -> None:
    (tmp_path / "m.meta").write_bytes(b"\x0a\x00")
    with pytest.raises(CheckpointError, match=r"m\.meta: expected a MetaGraphDef with a graph"):
        read_graph(tmp_path / "m.meta")
    with pytest.raises(CheckpointError, match="No such file"):
        read_graph(tmp_path / "none.meta")
