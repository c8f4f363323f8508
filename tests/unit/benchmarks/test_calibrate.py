"""The measurement that choices rest on: it forces what it says, and leaves nothing behind."""

from __future__ import annotations

import calibrate
import pytest
import torch
from registry import Case

import cellweave as cw
from cellweave.ops.common import _native_form
from cellweave.weave import _choice

CASE = Case("lstm", "training", "bare", 4, 4, 8, 8)


def test_every_way_is_measured_or_refused_with_a_reason() -> None:
    torch.set_num_threads(1)
    milliseconds, refused = calibrate.measure(CASE, threads=2, seconds=0.0)
    assert set(milliseconds) | set(refused) == {"torch", "native 1", "native 2 units", "native 2 rows"}
    assert min(milliseconds.values()) > 0
    found = calibrate.row(CASE, milliseconds, refused)
    assert milliseconds[found["choice"]] == min(milliseconds.values())
    assert found["margin"] is None or found["margin"] >= 1


def test_rows_are_shared_out_only_where_there_are_several() -> None:
    assert [candidate.name for candidate in calibrate.candidates(2, 1)] == ["torch", "native 1", "native 2 units"]
    assert [candidate.name for candidate in calibrate.candidates(1, 8)] == ["torch", "native 1"]


@pytest.mark.parametrize("candidate", calibrate.candidates(3, 8), ids=lambda candidate: candidate.name)
def test_a_way_is_forced_while_it_lasts(candidate: calibrate.Candidate) -> None:
    before = _choice.threads_for, _native_form._ROWS_PER_THREAD, _native_form._FEW_UNITS
    with candidate.forced():
        plan = cw.explain(cw.LSTMCell(8), torch.zeros(4, 8, 8), dtype="float32")
        assert _native_form._ROWS_PER_THREAD * 3 <= 8 or not candidate.rows_shared
    assert (_choice.threads_for, _native_form._ROWS_PER_THREAD, _native_form._FEW_UNITS) == before
    (row,) = plan.rows
    if row.backend != "none":
        assert (row.backend, row.threads) == (candidate.backend, candidate.threads)


def test_fastest_and_runner_up() -> None:
    found = calibrate.row(CASE, {"torch": 3.0, "native 1": 2.0, "native 2 rows": 4.0}, {})
    assert (found["choice"], found["margin"]) == ("native 1", 1.5)
    assert calibrate.row(CASE, {}, {"torch": "no"})["choice"] is None
