"""Tests on a CUDA device: `make test-gpu`.

They run in processes of pytest-xdist: a kernel that hangs, or after which the device answers no more, costs its test
and its process; the next test gets a new one. `CELLWEAVE_TEST_DEVICE=cpu TRITON_INTERPRET=1` tries the tests themselves
in Triton's interpreter.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest
import torch

collect_ignore_glob = [] if os.environ.get("CELLWEAVE_TRITON_TESTS") == "device" else ["test_*.py"]


@pytest.fixture(scope="session")
def device() -> str:
    """Where tensors lie; a machine without such a device fails, for nothing was tested there."""
    name = os.environ.get("CELLWEAVE_TEST_DEVICE", "cuda")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.fail("expected a CUDA device, got none: these tests need one")
    return name


def pytest_itemcollected(item: pytest.Item) -> None:
    """Who waits for a device is inside its driver, where no signal reaches Python: too late, the process is ended."""
    item.add_marker(pytest.mark.timeout(method="thread"))


@pytest.fixture(autouse=True)
def a_device_that_answers(device: str) -> Iterator[None]:
    """After an error on the device every later call of the process fails: it ends."""
    yield
    if device != "cuda":
        return
    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        if "PYTEST_XDIST_WORKER" not in os.environ:
            pytest.exit(f"the device answers no more: {error}", returncode=1)
        sys.stderr.write(f"the device answers no more: {error}\n")
        os._exit(1)


@pytest.fixture(autouse=True)
def all_programs_at_once(device: str) -> Iterator[None]:
    """In the interpreter, programs of a launch can wait for each other."""
    if device == "cuda":
        yield
        return
    from helpers.threaded_grid import programs_at_once

    with programs_at_once():
        yield


@pytest.fixture(autouse=True)
def full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of float32 as such, unless a test says otherwise."""
    monkeypatch.setattr(torch.backends.cudnn.rnn, "fp32_precision", "ieee")
