"""Tests on a CUDA device: `make test-gpu`.

`CELLWEAVE_TEST_DEVICE=cpu TRITON_INTERPRET=1` tries the tests themselves in Triton's interpreter.
"""

from __future__ import annotations

import os
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
