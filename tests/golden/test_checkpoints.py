"""Checkpoints that TensorFlow wrote, read bit for bit and written again byte for byte."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from cellweave.checkpoint import even_slices, open_checkpoint, read_graph, write_checkpoint
from helpers.checkpoint_set import DEFAULT, assert_holds, assert_same_bits, expected_arrays, read_expected

FORMATS = {"V2": {"V2 bundle"}, "V1": {"V1 file", "V1 shards"}, "frozen graph": {"frozen graph"}}


def prefix_of(case: Path) -> Path:
    return case / read_expected(case)["prefix"]


def test_files_are_the_ones_that_were_written(checkpoint_case: Path) -> None:
    for file in read_expected(checkpoint_case)["files"]:
        content = (checkpoint_case / file["name"]).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file["bytes"], file["sha256"])


def test_every_tensor_bit_for_bit(checkpoint_case: Path) -> None:
    expected = read_expected(checkpoint_case)
    with open_checkpoint(prefix_of(checkpoint_case)) as checkpoint:
        assert checkpoint.format in FORMATS[expected["format"]]
        assert_holds(checkpoint, expected_arrays(checkpoint_case))


def test_variables_are_described_before_they_are_read(checkpoint_case: Path) -> None:
    with open_checkpoint(prefix_of(checkpoint_case)) as checkpoint:
        for tensor in read_expected(checkpoint_case)["tensors"]:
            info = checkpoint.variables[tensor["name"]]
            slices = [tuple(zip(part["offset"], part["extent"], strict=True)) for part in tensor.get("slices", [])]
            found = (info.name, info.dtype, list(info.shape), list(info.slices))
            assert found == (tensor["name"], tensor["dtype"], tensor["shape"], slices)


def test_tensors_of_torch(checkpoint_case: Path) -> None:
    arrays = expected_arrays(checkpoint_case)
    with open_checkpoint(prefix_of(checkpoint_case)) as checkpoint:
        for name, info in checkpoint.variables.items():
            if info.dtype == "string":
                continue
            tensor = checkpoint.read_tensor(name)
            assert str(tensor.dtype) == f"torch.{info.dtype}"
            bits = tensor.view(torch.int16).numpy().view(np.uint16) if info.dtype == "bfloat16" else tensor.numpy()
            assert_same_bits(bits, arrays[name], name)


def test_folder_with_a_state_file_opens_its_latest(checkpoint_case: Path) -> None:
    if not (checkpoint_case / "checkpoint").is_file():
        pytest.skip("this case has no state file")
    with open_checkpoint(checkpoint_case) as checkpoint:
        assert_holds(checkpoint, expected_arrays(checkpoint_case))


@pytest.mark.parametrize("way", ["as it stands", "by values"])
def test_written_again_byte_for_byte(checkpoint_case: Path, tmp_path: Path, way: str) -> None:
    prefix = prefix_of(checkpoint_case)
    if read_expected(checkpoint_case)["format"] != "V2":
        pytest.skip("only V2 bundles are written")
    if way == "by values" and len(list(prefix.parent.glob("*.data-*"))) > 1:
        pytest.skip("values do not say in which of several files they were")
    with open_checkpoint(prefix) as checkpoint:
        infos = checkpoint.variables
        values = {
            name: checkpoint.read_tensor(name) if i.dtype == "bfloat16" else checkpoint[name]
            for name, i in infos.items()
        }
        slices = {name: info.slices for name, info in infos.items() if info.slices}
        if way == "as it stands":
            write_checkpoint(tmp_path / prefix.name, checkpoint)
        else:
            write_checkpoint(tmp_path / prefix.name, values, slices=slices)
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == sorted(path.name for path in prefix.parent.glob(f"{prefix.name}.[di]*"))
    for name in written:
        assert (tmp_path / name).read_bytes() == (prefix.parent / name).read_bytes(), name


def test_every_format_becomes_a_bundle(checkpoint_case: Path, tmp_path: Path) -> None:
    with open_checkpoint(prefix_of(checkpoint_case)) as checkpoint:
        write_checkpoint(tmp_path / "one", checkpoint)
        with open_checkpoint(write_checkpoint(tmp_path / "two", checkpoint, num_shards=2, update_state=True)) as second:
            assert_holds(second, expected_arrays(checkpoint_case))
            assert dict(second.variables) == dict(checkpoint.variables)
    with open_checkpoint(tmp_path / "one") as first:
        assert_holds(first, expected_arrays(checkpoint_case))
    with open_checkpoint(tmp_path) as latest:
        assert latest.path == tmp_path / "two"


def test_graphs_beside_checkpoints_are_read(checkpoint_case: Path) -> None:
    found = [path for path in checkpoint_case.rglob("*") if path.suffix == ".meta" or path.name == "saved_model.pb"]
    if not found:
        pytest.skip("this case has no graph")
    for path in found:
        graph = read_graph(path)
        with open_checkpoint(prefix_of(checkpoint_case)) as checkpoint:
            stored = {name for name in checkpoint if name in graph}
            assert stored, "a variable of the checkpoint is a node of the graph"
        for node in graph.nodes:
            dict(node.attrs)  # each can be decoded
            for name in node.inputs:
                assert name.removeprefix("^").split(":")[0] in graph


def test_partitions_are_those_of_tensorflow() -> None:
    with open_checkpoint(DEFAULT / "partitioned") as checkpoint:
        for name, parts in (("part/embedding", (3, 1)), ("rnn/lstm_cell/kernel", (2, 1))):
            info = checkpoint.variables[name]
            assert even_slices(info.shape, parts) == info.slices


def test_copied_data_is_unchanged() -> None:
    lines = (DEFAULT / "SHA256SUMS").read_text().splitlines()
    listed = dict(reversed(line.split("  ", 1)) for line in lines)
    files = [path for path in DEFAULT.rglob("*") if path.is_file() and path.name != "SHA256SUMS"]
    found = {path.relative_to(DEFAULT).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    assert found == listed
