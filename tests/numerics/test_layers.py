"""Whole layers with masks, lengths, resets, directions and residuals: every backend against the NumPy oracle."""

from __future__ import annotations

import pytest

from cellweave.specs import LSTMSpec
from helpers.layer_cases import FEATURES, VARIANTS, LayerCase, layer_cases, make_data, needs_backend, refusal
from helpers.layer_checks import check_layer

pytestmark = pytest.mark.usefixtures("nan_poison")


@pytest.mark.parametrize("backend", ["reference", "native"])
@pytest.mark.parametrize("case", layer_cases(), ids=lambda case: case.id)
def test_against_the_oracle(case: LayerCase, backend: str) -> None:
    needs_backend(backend, case)
    check_layer(case, backend)


@pytest.mark.parametrize("case", [case for case in layer_cases() if refusal("torch", case) is None], ids=lambda c: c.id)
def test_torch_layers_of_the_table(case: LayerCase) -> None:
    check_layer(case, "torch")


TORCH = (
    "rnn", "rnn-relu", "rnn-split", "rnn-by-unit", "gru-after", "gru-after-unbiased", "gru-after-by-unit", "lstm",
    "lstm-split", "lstm-by-unit", "proj", "proj-by-unit",
)  # fmt: skip


@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize("lengths", ["full", "ragged"])
@pytest.mark.parametrize("name", TORCH)
def test_torch_layers_against_the_oracle(name: str, lengths: str, reverse: bool) -> None:
    """With everything that torch's layers can have around them."""
    variant = next(variant for variant in VARIANTS if variant.name == name)
    for masks, dtype in (("input", "float32"), ("output", "float64")):
        states = not isinstance(variant.spec(6), LSTMSpec)
        case = LayerCase(variant, 5, 4, 6, masks, lengths, reverse=reverse, residual=True, states=states, dtype=dtype)
        if name.startswith("proj") and dtype == "float32":
            continue  # refused on the CPU, where torch warns of it in this dtype; the code is that of other devices
        assert name.startswith("proj") or refusal("torch", case) is None
        check_layer(case, "torch")


def test_table_covers_what_it_must() -> None:
    cases = layer_cases()
    assert {c.T for c in cases} == {0, 1, 2, 7, 65} and {c.B for c in cases} == {1, 3, 32}
    assert {c.H for c in cases} == {1, 7, 8, 9, 63, 64, 65}
    assert len({case.id for case in cases}) == len(cases)
    names = list(FEATURES)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            seen = {(getattr(c, first), getattr(c, second)) for c in cases if c.T > 1}
            wanted = {(a, b) for a in FEATURES[first] for b in FEATURES[second]}
            assert wanted <= seen, f"{first} with {second}: {wanted - seen}"
    for variant in VARIANTS:
        mine = [c for c in cases if c.variant is variant and c.T > 1]
        assert {c.lengths for c in mine} == {"full", "ragged"} and {c.reverse for c in mine} == {False, True}
        assert len({c.masks for c in mine}) >= 3


def test_masks_keep_what_they_should() -> None:
    """The library's masks themselves, since a mask that keeps everything would pass much of the above."""
    dropped = total = 0
    for case in layer_cases():
        for mask in make_data(case).oracle_masks if case.T == 7 else ():
            dropped, total = dropped + int((mask.values == 0).sum()), total + mask.values.size
    assert 0.2 < dropped / total < 0.4
