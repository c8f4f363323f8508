"""A kernel that is launched again gets what Triton would give it, without Triton's looking for it."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
import triton.runtime.jit as jit
from triton.runtime import driver

from cellweave.ops.common._triton_backend import driver_fault
from cellweave.ops.common._triton_launch import Launch
from helpers.absent_device import Started, pretend_a_device

_KERNEL = "cellweave.ops.rnn._triton_step_kernels", "rnn_gates_again"


def launch_of(gates: torch.Tensor, **changed: Any) -> Launch:
    arguments = {"gates": gates, "B": 3, "H": 16, "ROWS": 4, "U": 16, "ACTIVATION": 1, **changed}
    return Launch(*_KERNEL, 1, arguments, {"num_warps": 4, "enable_fp_fusion": True})


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    return pretend_a_device(monkeypatch)


def start(launch: Launch) -> None:
    launch.starter()(*launch.values())


def told(arguments: tuple[Any, ...]) -> list[Any]:
    """Grid, stream, kernel, hooks and the kernel's own arguments; not the texts for profilers, made anew each time."""
    return [id(value) if isinstance(value, torch.Tensor) else value for n, value in enumerate(arguments) if n != 6]


def test_a_launch_gives_the_kernel_what_triton_would(started: Started) -> None:
    launch = launch_of(torch.zeros(3, 16))
    start(launch)
    start(launch)
    launch.function()[(launch.grid,)](**launch.arguments, **launch.options)
    first, second, as_triton_does = (told(arguments) for arguments in started)
    assert first == second == as_triton_does


def test_it_is_compiled_once_for_all_it_is_compiled_for(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    run = jit.JITFunction.run

    def count(self: Any, *args: Any, **kwargs: Any) -> Any:
        asked.append(args)
        return run(self, *args, **kwargs)

    monkeypatch.setattr(jit.JITFunction, "run", count)
    memory = torch.zeros(200)
    gates = memory[:48].view(3, 16)
    for rows, tensor in ((3, gates), (5, gates), (1, torch.ones(3, 16)), (16, gates)):
        start(launch_of(tensor, B=rows))
    assert len(asked) == 1  # the number of rows and the tensor are no matter
    others = [
        launch_of(memory[1:49].view(3, 16)), launch_of(gates.half()), launch_of(gates, ACTIVATION=2),
        launch_of(gates)._replace(options={"num_warps": 8, "enable_fp_fusion": True}),
    ]  # fmt: skip
    for number, launch in enumerate(others, 2):
        start(launch)
        start(launch)
        assert len(asked) == number
    assert len({arguments[4] for arguments in started}) == 1 + len(others)


def test_a_machine_that_cannot_launch_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one without a C compiler, which Triton looks for at its first launch."""
    faults: list[Exception] = [RuntimeError("Failed to find C compiler."), AssertionError()]

    def fail() -> Any:
        raise faults.pop(0)

    monkeypatch.setattr(sys.modules["triton.runtime.driver"], "_create_driver", fail)
    monkeypatch.setattr(driver, "_active", None)
    monkeypatch.setattr(driver, "_default", None)
    for expected in ("Triton cannot launch kernels: Failed to find C compiler.", "AssertionError"):
        driver_fault.cache_clear()
        assert expected in str(driver_fault())
    driver_fault.cache_clear()
    pretend_a_device(monkeypatch)
    assert driver_fault() is None
    driver_fault.cache_clear()
