"""Runs as text: every variant comes back as it went."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

from cellweave._errors import ArgumentError
from cellweave.ops.common._run_text import _CELLS, _FIELDS, run_from_text, run_to_text
from cellweave.specs import GRUSpec, LSTMSpec, MaskSpec, RNNSpec, RunSpec

MASKS = (MaskSpec("h", True, True), MaskSpec("output", False, False), MaskSpec("zone_c", True, True))
RUNS = {
    "rnn": RunSpec(RNNSpec(3, "relu", joined_kernel=False), MASKS, residual=True),
    "gru": RunSpec(GRUSpec(3, reset_after=True, gate_order="urc", joined_kernel=False), lengths=True, reverse=True),
    "lstm": RunSpec(
        LSTMSpec(3, forget_bias=0.1, peepholes=True, cell_clip=1e-300, projection=2, proj_clip=0.3),
        (MaskSpec("zone_h", False, True),),
        resets=True,
        all_states=True,
    ),
}


@pytest.mark.parametrize("kind", RUNS)
def test_there_and_back(kind: str) -> None:
    assert run_from_text(*run_to_text(kind, RUNS[kind])) == RUNS[kind]
    plain = RunSpec(_CELLS[kind](5))
    assert run_from_text(*run_to_text(kind, plain)) == plain


@pytest.mark.parametrize("kind", RUNS)
def test_no_field_is_forgotten(kind: str) -> None:
    assert set(_FIELDS[kind]) == {field.name for field in dataclasses.fields(_CELLS[kind])}
    flags = {field.name for field in dataclasses.fields(RunSpec)} - {"cell", "masks"}
    text = inspect.getsource(inspect.getmodule(run_to_text))  # type: ignore[arg-type]
    assert all(f'"{flag}"' in text for flag in flags)


@pytest.mark.parametrize("text", ["", "(", "('lstm', (1,), (), ())", "('other', (), (), ())", "__import__('os')"])
def test_other_text(text: str) -> None:
    with pytest.raises(ArgumentError, match="expected a run's text, got"):
        run_from_text(text, [], [])
