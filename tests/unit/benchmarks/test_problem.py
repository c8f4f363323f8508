"""Weights change their layout and come back."""

from __future__ import annotations

import numpy as np
import problem
import pytest
from registry import KINDS, Case


def case_of(kind: str) -> Case:
    return Case(kind, "training", "bare", 4, 2, 3, 5)


@pytest.mark.parametrize("kind", KINDS)
def test_splitting_and_joining_is_the_identity(kind: str) -> None:
    weights = problem.weights(case_of(kind))
    again = problem.joined(case_of(kind), *problem.split(case_of(kind), weights))
    assert again.keys() == weights.keys()
    for name, values in weights.items():
        np.testing.assert_array_equal(again[name], values)


def test_blocks_are_reordered_and_restored() -> None:
    columns = np.arange(8).reshape(1, 8)
    np.testing.assert_array_equal(problem.reordered(columns, (0, 3, 2, 1)), [[0, 1, 6, 7, 4, 5, 2, 3]])
    for order in ((1, 0, 2, 3), (2, 0, 3, 1)):
        np.testing.assert_array_equal(problem.restored(problem.reordered(columns, order), order), columns)


def test_resets_come_as_often_as_promised() -> None:
    long = problem.resets(Case("lstm", "training", "resets", 2000, 10, 4, 4))
    assert long.mean() == pytest.approx(1 / 20, rel=0.1)
    assert problem.resets(Case("lstm", "training", "resets", 7, 3, 4, 4)).sum() >= 3


def test_numbers_are_the_same_every_time() -> None:
    case = case_of("lstm")
    np.testing.assert_array_equal(problem.inputs(case), problem.inputs(case))
    assert problem.weights(case)["kernel"].std() > 0.1
