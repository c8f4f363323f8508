"""Learning rate schedules."""

from __future__ import annotations

import pytest

from cellweave.training import make_config
from cellweave.training._schedule import learning_rate


def rates(steps=100, factor=1.0, **settings):
    config = make_config({"lr": 1.0, **settings})
    return [learning_rate(config, step, steps, factor) for step in range(steps)]


def test_cosine_falls_from_lr_to_a_twentieth():
    curve = rates(schedule="cosine")
    assert curve[0] == 1.0
    assert curve[50] == pytest.approx((1 + 0.05) / 2)
    assert curve[-1] == pytest.approx(0.05, abs=1e-3)
    assert curve == sorted(curve, reverse=True)


@pytest.mark.parametrize("schedule", ["cosine", "plateau", "constant"])
def test_warm_up_rises_in_a_line(schedule):
    curve = rates(schedule=schedule, warmup=4)
    assert curve[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_plateau_takes_the_factor_and_the_others_do_not():
    assert set(rates(schedule="plateau", factor=0.25)) == {0.25}
    assert set(rates(schedule="constant", factor=0.25)) == {1.0}
    assert rates(schedule="cosine", factor=0.25)[0] == 1.0


def test_a_warm_up_longer_than_the_run():
    assert rates(steps=3, warmup=9) == pytest.approx([0.1, 0.2, 0.3])
