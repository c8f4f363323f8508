"""The gate before any number: the golden tests must be green."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def verified() -> bool:
    """Run the golden tests; their output is shown when they fail."""
    command = [sys.executable, "-m", "pytest", "-q", "-n", "auto", "tests/golden"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        print(done.stdout + done.stderr, file=sys.stderr)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(0 if verified() else 1)
