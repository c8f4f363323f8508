"""The benchmark on GPUs, interpreted: programs of its kernels meet, and its check and clock run our kernels."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from gpu import calibration, correctness, layers, timing
from gpu.clock import Clock
from gpu.plan import PLANS, TRITON, WRAPPED, GpuCase

CLOCK, PLAN = Clock("cpu"), dataclasses.replace(PLANS["cpu"], warmups=1, repeats=1)


@pytest.mark.parametrize("programs", [1, 4])
def test_programs_meet_at_a_counter(programs: int) -> None:
    launch = calibration.barrier_launch(3, programs, "cpu")
    launch.run()
    assert launch.arguments["counters"].tolist() == [[3 * programs if programs > 1 else 0, 0]]


@pytest.mark.parametrize("programs", [2, 3])
def test_programs_wait_for_the_data_itself(programs: int) -> None:
    """Each begins with its own number; the mean of all is everybody's next one."""
    launch = calibration.flag_launch(4, programs, "cpu")
    launch.run()
    slots = launch.arguments["slots"]
    assert slots[0].unique().tolist() == list(range(programs))
    assert slots[1:].unique().tolist() == [(programs - 1) / 2]


def test_a_program_that_waits_for_data_in_vain_says_so() -> None:
    launch = calibration.flag_launch(2, 3, "cpu")
    launch = launch._replace(grid=2, arguments=launch.arguments | {"SPINS": 3})
    with pytest.raises(RuntimeError, match="waited in vain"):
        launch.run()


def test_everybody_reads_all_of_an_operand() -> None:
    launch = calibration.read_launch(3, 2, 16, "cpu")
    launch.run()
    operand, sums = launch.arguments["operand"], launch.arguments["sums"]
    assert torch.allclose(sums, operand[:3].sum().expand(2), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("kind, name", [("lstm", WRAPPED), ("gru_before", TRITON)])
def test_our_kernels_are_checked_and_timed(kind: str, name: str) -> None:
    case = GpuCase(kind, "training", "float32", 2, 2, 11)
    found = correctness.check(case, name, CLOCK, PLAN, seed=3)
    assert found["passes"] and found["repeats"]

    def work() -> layers.Work:
        return layers.work_of(layers.layer(name, case, "cpu", torch.float32), case, "cpu")

    timed = timing.compare({name: work}, CLOCK, PLAN)[name]
    assert timed["ms"] > 0 and timed["saved_bytes"] > 0
