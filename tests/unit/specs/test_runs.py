"""Specs of runs and of wrappers: frozen, hashable, equal by what they say."""

from __future__ import annotations

import dataclasses

import pytest

from cellweave.specs import (
    DeviceSpec,
    DropoutSpec,
    GRUSpec,
    LSTMSpec,
    MaskSpec,
    ResidualSpec,
    RunSpec,
    StackSpec,
)

MASK = MaskSpec("h", per_step=True, per_row=True)
SPECS = [
    MASK,
    RunSpec(GRUSpec(3), (MASK,), residual=True, lengths=True, resets=True, reverse=True),
    DropoutSpec(GRUSpec(3), 0.5, None, 1.0, variational=True),
    ResidualSpec(None, is_sum=True),
    DeviceSpec(LSTMSpec(3), "cpu"),
    StackSpec((GRUSpec(3), None), joined_state=True),
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: type(spec).__name__)
def test_is_frozen_and_hashable(spec: object) -> None:
    name = dataclasses.fields(spec)[0].name  # type: ignore[arg-type]
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(spec, name, None)
    copy = dataclasses.replace(spec)  # type: ignore[type-var]
    assert copy == spec and hash(copy) == hash(spec) and copy is not spec


def test_a_run_has_no_options_unless_told() -> None:
    run = RunSpec(GRUSpec(3))
    assert run.masks == () and not (run.residual or run.lengths or run.resets or run.reverse or run.all_states)
    assert run != RunSpec(GRUSpec(3), lengths=True)
