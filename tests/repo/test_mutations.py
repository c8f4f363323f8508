"""Breaks a copy of the package in the ways that matter and sees that the tests notice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "helpers" / "mutants.py"


@pytest.mark.slow
@pytest.mark.timeout(600)  # many small runs, which a busy machine draws out
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork: faults are tested in forks of one process")
def test_every_fault_is_seen(tmp_path: Path) -> None:
    """The table is helpers/mutant_table.py; one log per fault lies in the numbered folders of tmp_path."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "COV_"))}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path)], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(done.stdout.splitlines()[-1])
    unharmed = {name: results.pop(name) for name in list(results) if name.startswith("unharmed ")}
    assert set(unharmed.values()) == {pytest.ExitCode.OK}, unharmed
    unseen = {name: status for name, status in results.items() if status != pytest.ExitCode.TESTS_FAILED}
    assert not unseen, f"not seen by their tests (0), or broken entries of the table: {unseen}"
