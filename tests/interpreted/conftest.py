"""Tests of the kernels in Triton's interpreter: a process of their own, which tests/numerics/test_triton.py starts.

Triton decides whether a kernel is interpreted when the kernel's module is imported.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

collect_ignore_glob = [] if os.environ.get("CELLWEAVE_TRITON_TESTS") == "interpreted" else ["test_*.py"]


@pytest.fixture(autouse=True)
def all_programs_at_once() -> Iterator[None]:
    """Programs of a launch can wait for each other."""
    from helpers.threaded_grid import programs_at_once  # imports Triton, which another process may lack

    with programs_at_once():
        yield


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the kernels that are launched from now on; a step's counts each time."""
    from cellweave.ops.common._triton_launch import Launch
    from cellweave.ops.common._triton_steps import Step

    found: list[str] = []
    whole, step = Launch.run, Step.__call__

    def run_whole(self: Launch) -> None:
        found.append(self.kernel)
        whole(self)

    def run_step(self: Step, number: int = 0) -> None:
        found.append(self.launch.kernel)
        step(self, number)

    monkeypatch.setattr(Launch, "run", run_whole)
    monkeypatch.setattr(Step, "__call__", run_step)
    return found
