"""Every case of a golden set: what TensorFlow computed is what cellweave computes.

`pytest tests/golden --goldens DIR` checks another set in the same format (its manifest's `conventions` explain it).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from helpers.golden_drivers import DRIVERS
from helpers.golden_eager import check_cudnn, check_eager, check_rng
from helpers.golden_graph import NOT_RECORDED, check_in_graph
from helpers.golden_runs import check_values, check_variables
from helpers.golden_set import Arrays, read_arrays

VALUE_CHECKS = {
    **dict.fromkeys(DRIVERS, check_values),
    "v2_eager": check_eager,
    "rng": check_rng,
    "cudnn": check_cudnn,
}
pytestmark = pytest.mark.usefixtures("nan_poison")


def test_values(case: dict[str, Any], golden_directory: Path) -> None:
    if case["driver"] not in VALUE_CHECKS:
        pytest.fail(f"the golden harness does not know the driver {case['driver']!r}; it knows {sorted(VALUE_CHECKS)}")
    VALUE_CHECKS[case["driver"]](case, Arrays(read_arrays(golden_directory, case)))


@pytest.mark.drivers(*DRIVERS, "cudnn")
def test_variables(case: dict[str, Any], golden_directory: Path) -> None:
    """Names, shapes, dtypes, starting values and creation order (v2_eager: see test_values)."""
    if case["driver"] == "cudnn":
        check_cudnn(case, Arrays({}))
    else:
        check_variables(case, Arrays(read_arrays(golden_directory, case)))


@pytest.mark.drivers(*(DRIVERS.keys() - NOT_RECORDED))
def test_values_of_a_recorded_graph(case: dict[str, Any], golden_directory: Path) -> None:
    """The same numbers when the driver is recorded with symbolic inputs and run by a Model, streams included."""
    check_in_graph(case, Arrays(read_arrays(golden_directory, case)))
