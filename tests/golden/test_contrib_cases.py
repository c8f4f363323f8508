"""TF1's block cells against the kernels that TensorFlow still has: values, gradients, names, starting values."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

import cellweave as cw
from cellweave.ops.common._library import missing_reason
from helpers.golden_graph import check_in_graph
from helpers.golden_runs import check_values, check_variables
from helpers.golden_set import CONTRIB, Arrays, read_arrays, read_manifest

CASES = read_manifest(CONTRIB)["cases"]
each_case = pytest.mark.parametrize("block_case", CASES, ids=lambda case: case["id"])
pytestmark = pytest.mark.usefixtures("nan_poison")


def _arrays(case: dict[str, Any]) -> Arrays:
    return Arrays(read_arrays(CONTRIB, case))


@each_case
def test_file_is_the_one_that_was_written(block_case: dict[str, Any]) -> None:
    content = (CONTRIB / block_case["file"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == block_case["sha256"]


@each_case
@pytest.mark.parametrize("backend", [None, "reference"])
def test_values(block_case: dict[str, Any], backend: str | None) -> None:
    with cw.use_backend(backend):
        check_values(block_case, _arrays(block_case))


@each_case
def test_values_on_the_native_core(block_case: dict[str, Any]) -> None:
    reason = missing_reason()
    if reason is not None:
        pytest.skip(f"native: {reason}")
    with cw.use_backend("native"):
        check_values(block_case, _arrays(block_case))


@each_case
def test_variables(block_case: dict[str, Any]) -> None:
    check_variables(block_case, _arrays(block_case))


@each_case
def test_values_of_a_recorded_graph(block_case: dict[str, Any]) -> None:
    check_in_graph(block_case, _arrays(block_case))
