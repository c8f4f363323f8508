"""The Triton kernels without a GPU: interpreted, and compiled for one. Both in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cellweave.ops.common._triton_backend import missing_reason

TESTS = Path(__file__).resolve().parents[1]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("folder", ["interpreted", "compiled"])
def test_in_its_own_process(folder: str) -> None:
    """Triton decides whether a kernel is interpreted when its module is imported."""
    if missing_reason() is not None:
        pytest.skip(f"{missing_reason()}")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(TESTS / folder)]
    environment = os.environ | {
        "TRITON_INTERPRET": str(int(folder == "interpreted")), "CELLWEAVE_TRITON_TESTS": folder,
        "TRITON_CACHE_DIR": str(TESTS.parent / ".cache" / "triton"),
    }  # fmt: skip
    done = subprocess.run(command, env=environment, cwd=TESTS.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
