"""The run's folder: what is refused, what round-trips."""

from __future__ import annotations

import json
import os
import pickle

import pytest
import torch

from cellweave import RunError
from cellweave.training import make_config
from cellweave.training._run_folder import RunDescription, RunFolder
from cellweave.training._vocabulary import Vocabulary

DESCRIPTION = RunDescription(
    make_config({"units": 3, "text": "/a.txt"}), Vocabulary("char", ("<unk>", "é", "\n")), "/a.txt", "12ab"
)


@pytest.fixture
def folder(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.create(overwrite=False)
    return run


def test_description_round_trips_and_names_versions(folder):
    folder.write_description(DESCRIPTION)
    assert folder.read_description() == DESCRIPTION
    value = json.loads(folder.config.read_text(encoding="utf-8"))
    assert value["versions"]["torch"] == torch.__version__
    assert value["settings"]["units"] == 3


def test_weights_round_trip_and_the_same_weights_give_the_same_bytes(folder):
    weights = {"b": torch.randn(3, 2).t(), "a": torch.zeros(0, 8, dtype=torch.int64)}
    folder.write_weights(weights)
    first = folder.model.read_bytes()
    assert all(torch.equal(folder.read_weights()[name], tensor) for name, tensor in weights.items())
    folder.write_weights(dict(reversed(weights.items())))
    assert folder.model.read_bytes() == first


def test_snapshot_round_trips(folder):
    folder.write_snapshot({"counters": {"step": 3, "loss": float("inf")}, "carried": [torch.ones(2)]})
    content = folder.read_snapshot()
    assert content["counters"] == {"step": 3, "loss": float("inf")}
    assert torch.equal(content["carried"][0], torch.ones(2))


@pytest.mark.parametrize("file", ["snapshot", "model"])
def test_an_earlier_run_is_replaced_only_on_request(folder, file):
    getattr(folder, file).write_bytes(b"old")
    (folder.path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match=r"expected no earlier run there, got one. Continue it with --resume"):
        folder.create(overwrite=False)
    assert getattr(folder, file).exists()
    folder.create(overwrite=True)
    assert os.listdir(folder.path) == ["notes.txt"]


def test_a_run_killed_before_its_first_snapshot_is_no_run(folder):
    folder.write_description(DESCRIPTION)
    folder.create(overwrite=False)
    assert not folder.config.exists()


def test_a_file_in_the_folders_place(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(RunError, match="expected a folder or nothing, got a file"):
        RunFolder(tmp_path / "run").create(overwrite=True)


def test_missing_folder_config_model_and_snapshot(tmp_path, folder):
    gone = RunFolder(tmp_path / "gone")
    for read in (gone.read_description, gone.read_weights):
        with pytest.raises(RunError, match=r"gone: expected a folder with .* got no such folder"):
            read()
    with pytest.raises(RunError, match=r"expected a run's config.json, got a folder without"):
        folder.read_description()
    with pytest.raises(RunError, match=r"expected a model .model.safetensors., got a folder without"):
        folder.read_weights()
    with pytest.raises(RunError, match=r"expected a snapshot to resume from .snapshot.pt., got none"):
        folder.read_snapshot()


@pytest.mark.parametrize(
    "change, facts",
    [
        (lambda value: "{", "expected JSON"),
        (lambda value: json.dumps([1]), "expected format 1, got 'list'"),
        (lambda value: json.dumps({**value, "format": 9}), "expected format 1, got 9"),
        (lambda value: json.dumps({**value, "settings": {"units": -1}}), "damaged entry: units"),
        (lambda value: json.dumps({**value, "settings": {"magic": 1}}), "damaged entry: settings"),
        (lambda value: json.dumps({**value, "settings": None}), "damaged entry"),
        (lambda value: json.dumps({**value, "text": {}}), "damaged entry: 'source'"),
        (lambda value: json.dumps({**value, "vocabulary": {}}), "vocabulary: expected"),
    ],
)
def test_a_damaged_config_is_named(folder, change, facts):
    folder.write_description(DESCRIPTION)
    folder.config.write_text(change(json.loads(folder.config.read_text(encoding="utf-8"))))
    with pytest.raises(RunError, match=facts):
        folder.read_description()


@pytest.mark.parametrize("data", [b"", b"\x08\0\0\0\0\0\0\0{}", b"\xff" * 100], ids=["empty", "cut", "noise"])
def test_damaged_weights_are_named(folder, data):
    folder.model.write_bytes(data)
    with pytest.raises(RunError, match=r"model.safetensors: expected safetensors, got"):
        folder.read_weights()


def test_a_damaged_snapshot_is_named(folder):
    folder.write_snapshot({"counters": {}, "big": torch.ones(1000)})
    whole = folder.snapshot.read_bytes()
    for data in (b"", b"noise", whole[: len(whole) // 2], pickle.dumps({"format": 1})):
        folder.snapshot.write_bytes(data)
        with pytest.raises(RunError, match=r"snapshot.pt: expected a snapshot"):
            folder.read_snapshot()


class _Runs:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def test_a_snapshot_runs_no_code(folder, monkeypatch):
    monkeypatch.chdir(folder.path)
    torch.save({"format": 1, "counters": _Runs()}, folder.snapshot)
    with pytest.raises(RunError, match="expected a snapshot, got a damaged file"):
        folder.read_snapshot()
    assert not (folder.path / "ran").exists()
