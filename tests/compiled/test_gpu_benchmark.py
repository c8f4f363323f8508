"""The kernels that calibrate a GPU become what they should on sm_90."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from gpu import calibration

from cellweave.ops.common._triton_launch import Launch
from helpers.cross_compile import compile_launch

ATOMIC = r"(ATOM|ATOMG|RED|REDG)\.\S*"


def test_a_meeting_is_one_addition_and_a_load() -> None:
    kernel = compile_launch(calibration.barrier_launch(10, 128, "cpu"))
    assert kernel.spilled == 0
    assert kernel.count(ATOMIC) == 1


def test_data_as_flags_needs_no_atomics() -> None:
    kernel = compile_launch(calibration.flag_launch(10, 128, "cpu"))
    assert kernel.spilled == 0
    assert kernel.count(ATOMIC) == 0
    assert kernel.count(r"LDG\.\S*STRONG\S*") >= 2  # before the wait, and in it


@pytest.mark.parametrize("kib", [16, 128])
def test_an_operand_is_read_in_the_loop_by_wide_loads(kib: int) -> None:
    kernel = compile_launch(calibration.read_launch(10, 132, kib, "cpu"))
    assert kernel.spilled == 0
    assert kernel.count(r"LDG\.E\.128\S*") >= 4
    assert "scf.for" in kernel.ttgir.split("tt.load", 1)[0]


@pytest.mark.parametrize("early", [False, True])
def test_a_node_of_a_graph(early: bool) -> None:
    kernel = compile_launch(Launch("gpu.kernels", "bump", 1, {"x": torch.zeros(1), "EARLY": early}))
    assert (kernel.count(r"ACQBULK") > 0) == early
    compile_launch(Launch("gpu.kernels", "nothing", 1, {"x": torch.zeros(1)}))
