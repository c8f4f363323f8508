"""From each checkpoint of the set to a model and back: the printed program, the weights, the round trip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import cellweave as cw
from cellweave.checkpoint import open_checkpoint
from helpers.checkpoint_set import assert_same_bits, expected_arrays, read_expected
from helpers.printed_code import run_printed


def _keys(parts: tuple[cw.InspectedPart, ...]) -> list[str]:
    return [key for part in parts for key in [*(v.key for v in part.variables), *_keys(part.parts)]]


def _path(case: Path) -> Path:
    return case / read_expected(case)["prefix"]


def test_the_printed_program_loads_all_that_was_recognised(checkpoint_case: Path, tmp_path: Path) -> None:
    found = cw.inspect_tf1(_path(checkpoint_case))
    names = run_printed(_path(checkpoint_case), tmp_path)
    if not found.parts:
        assert "report" not in names
        return
    report = names["report"]
    assert report.missing == ()
    read = {key for row in report.loaded for key in row.keys}
    assert set(_keys(found.parts)) <= read
    assert read.isdisjoint(v.key for v in found.others)


def test_every_loaded_parameter_has_the_stored_bits(checkpoint_case: Path, tmp_path: Path) -> None:
    names = run_printed(_path(checkpoint_case), tmp_path)
    if "report" not in names:
        pytest.skip("no cell or layer is in this checkpoint")
    arrays = expected_arrays(checkpoint_case)
    parameters = dict(names["model"].named_parameters())
    for row in names["report"].loaded:
        (key,) = row.keys
        if row.parameter not in parameters:  # a tensor that stands for a cuDNN layer; the round trip judges these
            continue
        value = parameters[row.parameter].detach().numpy()
        assert_same_bits(np.ascontiguousarray(value.T if "transposed" in row.note else value), arrays[key], key)


def test_saved_again_under_the_same_names(checkpoint_case: Path, tmp_path: Path) -> None:
    names = run_printed(_path(checkpoint_case), tmp_path)
    if "report" not in names:
        pytest.skip("no cell or layer is in this checkpoint")
    saved = cw.save_tf1(names["model"], tmp_path / "again", names=names["report"])
    arrays = expected_arrays(checkpoint_case)
    with open_checkpoint(tmp_path / "again") as again:
        for row in names["report"].loaded:
            name = names["report"].names[row.parameter]
            assert saved[row.parameter] == name
            if "cudnn" in name and name.endswith("bias"):  # a sum is split into halves and summed again
                torch.testing.assert_close(torch.tensor(again[name]), torch.tensor(arrays[row.keys[0]]))
            else:
                assert_same_bits(again[name], arrays[row.keys[0]], name)
