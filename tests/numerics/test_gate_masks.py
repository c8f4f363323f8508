"""Masks of each gate's own against the NumPy oracle."""

from __future__ import annotations

import numpy as np
import pytest

from cellweave.ops.common._library import missing_reason
from cellweave.specs import MaskSpec, RunSpec
from helpers.gate_mask_cases import KINDS, NAMES, B, check_gate_masks, gate_case, gate_masks
from helpers.layer_cases import backend_of, context_of


@pytest.mark.parametrize("backend", ["reference", "native"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_against_the_oracle(name: str, kind: str, backend: str) -> None:
    if backend == "native" and missing_reason() is not None:
        pytest.skip(f"native: {missing_reason()}")
    for dtype, reverse in (("float64", False), ("float64", True), ("float32", True)):
        check_gate_masks(name, kind, backend, dtype, reverse=reverse)


def test_gates_have_masks_of_their_own() -> None:
    """Else one mask for all gates would pass much of the above."""
    case = gate_case("lstm", "float64", reverse=False)
    _, factors = gate_masks(case.run().cell, case.D, False, True, "float64")
    for values in factors.values():
        assert any((values[0, b, 0] != values[0, b, gate]).any() for b in range(B) for gate in range(1, 4))
    assert 0.2 < np.mean([(values == 0).mean() for values in factors.values()]) < 0.5


def test_what_backends_refuse() -> None:
    case = gate_case("gru-after", "float32", reverse=False)
    run = RunSpec(case.run().cell, (MaskSpec("input", False, False, per_gate=True),))
    assert backend_of(run, "torch").refuses(run, context_of(case)) == "its gates have no masks of their own"
