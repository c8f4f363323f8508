"""Every case of a golden set: what TensorFlow computed is what cellweave computes.

`pytest tests/golden --goldens DIR` checks another set in the same format (its manifest's `conventions` explain it).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cellweave as cw
from cellweave.ops.common._library import missing_reason
from helpers.golden_cudnn import check_cudnn, check_cudnn_variables
from helpers.golden_drivers import DRIVERS
from helpers.golden_eager import check_eager, check_rng
from helpers.golden_graph import NOT_RECORDED, check_in_graph
from helpers.golden_runs import check_values, check_variables
from helpers.golden_set import DEFAULT, Arrays, MissingFeatureError, read_arrays

VALUE_CHECKS = {
    **dict.fromkeys(DRIVERS, check_values),
    "v2_eager": check_eager,
    "rng": check_rng,
    "cudnn": check_cudnn,
}
pytestmark = pytest.mark.usefixtures("nan_poison")

#: Words of a refusal, and whether a case has what they speak of.
REFUSALS: list[tuple[str, Callable[[dict[str, Any]], bool]]] = [
    ("has a residual_fn of its own", lambda case: "residual_fn" in str(case)),
    ("computes in float32 and float64", lambda case: case["dtype"] not in ("float32", "float64")),
    ("has no activation", lambda case: any(name in str(case) for name in ("gelu", "swish", "silu", "softmax", "mish"))),
    ("activation is a function of the caller's", lambda case: "log_" in str(case)),
    ("keep probability", lambda case: "keep_prob" in str(case)),
    ("one mask per step for several states in one tensor", lambda case: "'state_is_tuple': False" in str(case)),
    ("of a layer that only runs step by step", lambda case: any(shows(case) for _, shows in REFUSALS[:-1])),
]
#: The cases of our own set that are refused.
STEPWISE = {"residual_fn_half"}


def test_values(case: dict[str, Any], golden_directory: Path) -> None:
    if case["driver"] not in VALUE_CHECKS:
        raise MissingFeatureError(
            f"the golden harness does not know the driver {case['driver']!r}; it knows {sorted(VALUE_CHECKS)}"
        )
    VALUE_CHECKS[case["driver"]](case, Arrays(read_arrays(golden_directory, case)))


#: Drivers that run whole sequences themselves; the others call the cell.
UNROLLS = [*(name for name in DRIVERS if name not in ("cell", "raw_rnn")), "cudnn"]


@pytest.mark.drivers(*UNROLLS)
def test_values_step_by_step(case: dict[str, Any], golden_directory: Path) -> None:
    """What `test_values` judges woven is right step by step, too: the truth that every backend is compared with."""
    with cw.use_backend("reference"):
        VALUE_CHECKS[case["driver"]](case, Arrays(read_arrays(golden_directory, case)))


@pytest.mark.drivers(*UNROLLS)
def test_values_on_the_native_core(case: dict[str, Any], golden_directory: Path) -> None:
    """Every layer on the core; only a case that shows a reason may be refused, and then for that reason."""
    reason = missing_reason()
    if reason is not None:
        pytest.skip(f"native: {reason}")
    reasons = [words for words, shows in REFUSALS if shows(case)]
    try:
        with cw.use_backend("native"):
            VALUE_CHECKS[case["driver"]](case, Arrays(read_arrays(golden_directory, case)))
    except cw.BackendError as error:
        if not any(words in str(error) for words in reasons):
            raise
        if golden_directory == DEFAULT and case["id"] not in STEPWISE:
            raise


@pytest.mark.drivers(*DRIVERS, "cudnn")
def test_variables(case: dict[str, Any], golden_directory: Path) -> None:
    """Names, shapes, dtypes, starting values and creation order (v2_eager: see test_values)."""
    if case["driver"] == "cudnn":
        check_cudnn_variables(case)
    else:
        check_variables(case, Arrays(read_arrays(golden_directory, case)))


@pytest.mark.drivers(*(DRIVERS.keys() - NOT_RECORDED))
def test_values_of_a_recorded_graph(case: dict[str, Any], golden_directory: Path) -> None:
    """The same numbers when the driver is recorded with symbolic inputs and run by a Model, streams included."""
    check_in_graph(case, Arrays(read_arrays(golden_directory, case)))
