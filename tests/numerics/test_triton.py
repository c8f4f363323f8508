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


_TROUBLE = """
import hashlib
import torch

lost = []
torch.cuda.is_available = lambda: True


def synchronize():
    if lost:
        raise RuntimeError("illegal memory access")


torch.cuda.synchronize = synchronize


def test_hangs():
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # as in a driver: no signal ends it


def test_loses_the_device():
    lost.append(True)


def test_next():
    assert not lost
"""


@pytest.mark.slow
def test_a_device_in_trouble_costs_one_test(tmp_path: Path) -> None:
    """As `make test-gpu` runs them: whoever hangs or loses the device takes no other test along."""
    (tmp_path / "conftest.py").write_text((TESTS / "device" / "conftest.py").read_text(encoding="utf-8"))
    (tmp_path / "test_trouble.py").write_text(_TROUBLE)
    command = [
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", str(TESTS.parent / "pyproject.toml"),
        "-n", "1", "--max-worker-restart=1000", "--timeout=3", str(tmp_path),
    ]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment |= {"CELLWEAVE_TRITON_TESTS": "device", "CELLWEAVE_TEST_DEVICE": "cuda"}
    done = subprocess.run(command, env=environment, cwd=TESTS.parent, capture_output=True, text=True, check=False)
    assert "2 failed, 2 passed" in done.stdout, done.stdout[-6000:] + done.stderr[-2000:]
    for name in ("test_hangs", "test_loses_the_device"):
        assert f"crashed while running 'test_trouble.py::{name}'" in done.stdout
