"""Checkpoints of other people's models, which lie outside this project: `--wild DIR`.

Each folder says in CASE.md what it holds.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cellweave.checkpoint import open_checkpoint, read_graph, write_checkpoint
from helpers.checkpoint_set import assert_same_bits


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file; none if there is no file."""
    if not path.exists():
        return {}
    with np.load(path, allow_pickle=False) as stored:
        return dict(stored)


def checkpoints(case: Path) -> list[Path]:
    """Every checkpoint of a case: bundles, V1 files, frozen graphs."""
    bundles = [path.with_suffix("") for path in sorted(case.rglob("*.index"))]
    graphs = [path for path in sorted(case.rglob("*.pb")) if path.name != "saved_model.pb"]
    known = {*bundles, *graphs}
    v1 = [path for path in sorted(case.iterdir()) if path.name.startswith("model.ckpt-") and path not in known]
    return [*bundles, *graphs, *(path for path in v1 if path.suffix != ".meta" and path.is_file())]


def test_every_checkpoint_opens_and_every_tensor_is_read(wild_case: Path) -> None:
    found = checkpoints(wild_case)
    assert found
    for path in found:
        with open_checkpoint(path) as checkpoint:
            assert len(checkpoint) > 0
            for name, info in checkpoint.variables.items():
                array = checkpoint[name]
                assert array.shape == info.shape
                assert array.dtype == object or np.isfinite(array.astype(np.complex128)).all(), (path, name)


def test_bundles_are_written_again_byte_for_byte(wild_case: Path, tmp_path: Path) -> None:
    for path in checkpoints(wild_case):
        with open_checkpoint(path) as checkpoint:
            if checkpoint.format != "V2 bundle":
                continue
            write_checkpoint(tmp_path / path.name, checkpoint)
        for suffix in (".index", ".data-00000-of-00001"):
            written = (tmp_path / f"{path.name}{suffix}").read_bytes()
            assert written == path.with_name(f"{path.name}{suffix}").read_bytes()


def test_names_and_shapes_that_the_case_lists(wild_case: Path) -> None:
    """Rows `| key | [a,b] |` with one whole key and one shape."""
    rows = [line.split("|")[1:3] for line in (wild_case / "CASE.md").read_text().splitlines() if line.startswith("| ")]
    listed = {
        key.strip(): json.loads(shape)
        for key, shape in rows
        if shape.strip().startswith("[") and shape.count("[") == 1 and not set("{*.,") & set(key)
    }
    names = [open_checkpoint(path) for path in checkpoints(wild_case)]
    for key, shape in listed.items():
        assert any(key in checkpoint and list(checkpoint.variables[key].shape) == shape for checkpoint in names), key
    for checkpoint in names:
        checkpoint.close()


def test_frozen_graphs_hold_what_their_bundles_hold(wild_case: Path) -> None:
    pairs = [(path, wild_case / "ckpt" / path.stem) for path in sorted((wild_case / "frozen").glob("*.pb"))]
    if not pairs:
        pytest.skip("this case has no frozen graphs")
    for frozen, prefix in pairs:
        stored = arrays_of(wild_case / "cases" / f"{frozen.stem}.npz")
        with open_checkpoint(frozen) as graph, open_checkpoint(prefix) as bundle:
            assert sorted(f"var/{name}" for name in bundle) == sorted(key for key in stored if key.startswith("var/"))
            for name in bundle:
                assert_same_bits(graph[name], bundle[name], name)
                assert_same_bits(bundle[name], stored[f"var/{name}"], name)


def test_graphs_are_read_whole(wild_case: Path) -> None:
    found = [path for path in sorted(wild_case.rglob("*")) if path.suffix in (".meta", ".pb")]
    if not found:
        pytest.skip("this case has no graph")
    for path in found:
        graph = read_graph(path)
        for node in graph.nodes:
            dict(node.attrs)
            assert all(name.removeprefix("^").split(":")[0] in graph for name in node.inputs)


def test_constants_that_the_case_gives_are_in_its_graph(wild_case: Path) -> None:
    """The normalisation of a model is in its graph and not in its checkpoint."""
    inputs = arrays_of(wild_case / "inputs.npz")
    graphs = sorted(wild_case.glob("*.meta"))
    if "norm_avg" not in inputs or not graphs:
        pytest.skip("this case gives no constants of a graph")
    constants = [node.attrs["value"] for node in read_graph(graphs[0]).nodes if node.op == "Const"]
    for key in ("norm_avg", "norm_std"):
        assert any(
            value.shape == inputs[key].shape and np.array_equal(value, inputs[key].astype(value.dtype))
            for value in constants
            if value.dtype.kind == "f"
        ), key
