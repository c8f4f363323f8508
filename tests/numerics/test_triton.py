"""The Triton kernels without a GPU: interpreted, and compiled for one. Each file runs in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cellweave.ops.common._triton_backend import missing_reason

TESTS = Path(__file__).resolve().parents[1]
FILES = [*sorted((TESTS / "interpreted").glob("test_*.py")), *sorted((TESTS / "compiled").glob("test_*.py"))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_in_its_own_process(path: Path) -> None:
    if missing_reason() is not None:
        pytest.skip(f"{missing_reason()}")
    interpret = "1" if path.parent.name == "interpreted" else "0"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(path)]
    environment = os.environ | {
        "TRITON_INTERPRET": interpret, "CELLWEAVE_TRITON_TESTS": path.parent.name,
        "TRITON_CACHE_DIR": str(TESTS.parent / ".cache" / "triton"),
    }  # fmt: skip
    done = subprocess.run(command, env=environment, cwd=TESTS.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
