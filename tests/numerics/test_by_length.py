"""Rows in groups of similar lengths: the same results as all rows together, at less work."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from cellweave.ops.common import LayerCall, LayerResult, _native_backend
from cellweave.ops.common._by_length import by_length
from cellweave.ops.common._library import missing_reason
from helpers.layer_cases import VARIANTS, LayerCase, backend_of, make_call, make_data
from helpers.layer_checks import check_layer

needs_core = pytest.mark.skipif(missing_reason() is not None, reason=f"native: {missing_reason()}")
BY_NAME = {variant.name: variant for variant in VARIANTS}
#: (variant, rows, options)
CASES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "lstm": ("lstm", 50, {}),
    "lstm-reverse": ("peephole", 24, {"reverse": True, "resets": "given", "masks": "variational"}),
    "gru": ("gru", 37, {"resets": "zeros", "masks": "variational"}),
    "gru-after-residual": ("gru-after", 64, {"residual": True, "layout": "strided"}),
    "rnn": ("rnn", 26, {"reverse": True, "layout": "batchmajor"}),
}


def case_of(name: str, dtype: str = "float32") -> LayerCase:
    variant, rows, options = CASES[name]
    return LayerCase(BY_NAME[variant], 9, rows, 10, **options, lengths="ragged", dtype=dtype)


def calls_seen(monkeypatch: pytest.MonkeyPatch) -> list[LayerCall]:
    """Every call that the core runs from now on."""
    seen: list[LayerCall] = []
    run = _native_backend._run_eagerly

    def watched(op: Any, call: LayerCall) -> Any:
        seen.append(call)
        return run(op, call)

    monkeypatch.setattr(_native_backend, "_run_eagerly", watched)
    return seen


@needs_core
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_groups(name: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case, seen = case_of(name, dtype), calls_seen(monkeypatch)
    check_layer(case, "native")
    assert len(seen) == min(4, case.B // 12)
    steps = [call.x.shape[0] for call in seen]
    assert steps[0] == case.T and steps == sorted(steps, reverse=True) and steps[-1] < case.T
    assert sum(call.x.shape[1] for call in seen) == case.B


@needs_core
def test_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row's values do not depend on the rows beside it."""
    case = case_of("lstm-reverse")
    data = make_data(case)

    def run() -> LayerResult:
        return backend_of(data.run, "native").run(make_call(case, data))

    grouped = run()
    monkeypatch.setattr(_native_backend, "by_length", lambda call: None)
    whole = run()
    for a, b in zip((grouped.outputs, *grouped.state), (whole.outputs, *whole.state), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("lengths", [[9] * 50, [9] * 40 + [1] * 10])
def test_not_worth_it(lengths: list[int]) -> None:
    assert by_length(_call(lengths)) is None


def test_stays_together() -> None:
    lengths = [9] * 12 + [2] * 38
    call = _call(lengths)
    assert by_length(call) is not None
    assert by_length(_call(lengths[3:26])) is None  # too few rows for two groups
    for change in ({"lengths": None}, {"spec": dataclasses.replace(call.spec, all_states=True)}):
        assert by_length(dataclasses.replace(call, **change)) is None
    for masks in ("rows", "steps", "expected"):  # the last: of outputs by row
        assert by_length(_call(lengths, masks)) is None
    expected = _call(lengths, "expected")
    for call in (_call(lengths, "variational"), dataclasses.replace(expected, masks=expected.masks[:2])):
        assert by_length(call) is not None


def test_no_steps() -> None:
    """A group of rows without steps runs one, which gives them nothing."""
    groups = by_length(_call([9] * 12 + [0] * 38))
    assert groups is not None and [call.x.shape[0] for call in groups.calls] == [9, 1, 1, 1]


def _call(lengths: list[int], masks: str = "none") -> LayerCall:
    case = LayerCase(BY_NAME["lstm"], 9, len(lengths), 10, lengths="ragged", masks=masks)
    return dataclasses.replace(make_call(case, make_data(case)), lengths=torch.tensor(lengths, dtype=torch.int32))
