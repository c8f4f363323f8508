"""Tests of the kernels compiled for a GPU that is not there, in a process that tests/numerics/test_triton.py starts."""

from __future__ import annotations

import os

collect_ignore_glob = [] if os.environ.get("CELLWEAVE_TRITON_TESTS") == "compiled" else ["test_*.py"]
