"""Every probe of a golden set's errors.json: what TensorFlow refused is refused, with the same kind of exception."""

from __future__ import annotations

from typing import Any

from helpers import probes_cells, probes_unrolls, probes_wrappers
from helpers.golden_set import DEFAULT, read_errors
from helpers.probes import PROBES, run_probe

#: Importing them registers their probes.
PROBE_MODULES = (probes_cells, probes_unrolls, probes_wrappers)


def test_probe(probe_entry: dict[str, Any]) -> None:
    run_probe(probe_entry)


def test_no_probe_is_idle() -> None:
    assert PROBES.keys() == {entry["id"] for entry in read_errors(DEFAULT)}
