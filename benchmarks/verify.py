"""The gate before any number: values and gradients must be right. There is no way around it.

It runs tests/numerics (every backend against the oracles; not the interpreted GPU kernels, which no case here times)
and tests/golden (what TensorFlow computed).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = ("tests/numerics", "tests/golden", "--ignore=tests/numerics/test_triton.py")


def verified() -> bool:
    """Run the tests; their output is shown when they fail."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "auto", *TESTS]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # the tests' processes share the cores
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        print(done.stdout + done.stderr, file=sys.stderr)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(0 if verified() else 1)
