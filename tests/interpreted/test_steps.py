"""The kernels of single steps, interpreted, on a chip that nothing else fits: the same tables and tolerances."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import cellweave as cw
from cellweave.ops.common._triton_schedule import Chip
from cellweave.specs import GRUSpec, LSTMSpec, RNNSpec
from helpers.layer_cases import LayerCase, backend_of, context_of, make_call, make_data, refusal
from helpers.layer_checks import check_layer
from helpers.step_form import TINY, take_steps
from helpers.tolerances import assert_close, assert_same_bits
from helpers.triton_cases import check_half, kernel_cases, variant_named

pytestmark = pytest.mark.usefixtures("nan_poison")
#: Every other case of those that the kernels of whole sequences run.
CASES = [case for kind in (RNNSpec, GRUSpec, LSTMSpec) for case in kernel_cases(kind)[1::2]]
EVERYTHING: dict[str, Any] = {"lengths": "ragged", "resets": "given", "reverse": True, "residual": True, "states": True}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_against_the_oracle(case: LayerCase, monkeypatch: pytest.MonkeyPatch) -> None:
    take_steps(monkeypatch)
    check_layer(case, "triton")


@pytest.mark.parametrize("name", ["rnn", "gru", "gru-after", "all", "coupled-all", "norm-all", "gru-norm-after"])
def test_several_tiles(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """130 units are two tiles, or one of 256 where they are normalized; 6 rows are two of 4, or three of 2."""
    take_steps(monkeypatch)
    case = LayerCase(variant_named(name), 2, 6, 130, "twice", **EVERYTHING, dtype="float32")
    check_layer(case, "triton")


@pytest.mark.parametrize(
    "name",
    ["rnn", "gru", "gru-after", "lstm", "all", "rnn-norm", "gru-norm", "gru-norm-after", "norm-all", "coupled-norm"],
)
def test_half_precision(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    take_steps(monkeypatch)
    check_half(LayerCase(variant_named(name), 3, 3, 9, "none", "ragged", "zeros", dtype="float16"))


@pytest.mark.parametrize("name", ["rnn", "gru", "gru-after", "lstm", "all"])
def test_the_masks_of_the_other_form(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both draw the same elements, and where sums do not differ, so do results."""
    case = LayerCase(variant_named(name), 3, 3, 5, "zones", **EVERYTHING, dtype="float32")
    found = []
    for chip in (Chip(132, 224 << 10), TINY):
        take_steps(monkeypatch, chip)
        call = make_call(case, make_data(case))
        out, state, states = backend_of(call.spec, "triton").run(call)
        found.append([out, *state, *states])
    for number, (a, b) in enumerate(zip(*found, strict=True)):
        assert_close(f"result {number}", a, b, 2e-6)
        assert torch.equal(a == 0, b == 0)


def test_each_way_takes_the_form_that_fits(monkeypatch: pytest.MonkeyPatch, launches: list[str]) -> None:
    """On this chip the forward kernel of 33 units fits and the backward one does not."""
    case = LayerCase(variant_named("lstm"), 2, 2, 33, "rows", **EVERYTHING, dtype="float32")
    take_steps(monkeypatch, Chip(4, 1 << 14))
    check_layer(case, "triton")
    assert launches == ["lstm_fwd_persistent", "lstm_bwd_step", "lstm_bwd_step", "first_gradient"]
    context, record = context_of(case), backend_of(case.run(), "triton")
    assert record.remarks is not None
    assert str(record.remarks(case.run(), context)).startswith("backward, one kernel per step: 33 units at 2 rows")


@pytest.mark.parametrize("name, kernels", [("lstm", 2 + 3), ("proj", 2 + 2 * 3), ("gru", 1 + 2 * 3), ("rnn", 1 + 3)])
def test_launches_of_three_steps(name: str, kernels: int, monkeypatch: pytest.MonkeyPatch, launches: list[str]) -> None:
    take_steps(monkeypatch)
    case = LayerCase(variant_named(name), 3, 2, 4, dtype="float32")
    call = make_call(case, make_data(case))
    with torch.no_grad():
        backend_of(call.spec, "triton").run(call)
    assert len(launches) == kernels


@pytest.mark.parametrize("name", ["rnn", "gru", "gru-after", "all"])
def test_without_gradients_nothing_changes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    take_steps(monkeypatch)
    case = LayerCase(variant_named(name), 3, 3, 5, "twice", "ragged", "given", dtype="float32")
    call = make_call(case, make_data(case))
    out, state, _ = backend_of(call.spec, "triton").run(call)
    with torch.no_grad():
        again, last, _ = backend_of(call.spec, "triton").run(call)
    for number, (a, b) in enumerate(zip((again, *last), (out, *state), strict=True)):
        assert_same_bits(f"result {number}", a, b)
        assert not a.requires_grad


@pytest.mark.parametrize("name", ["rnn", "gru", "gru-after", "all"])
def test_the_same_bits_every_time(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    take_steps(monkeypatch)
    case = LayerCase(variant_named(name), 2, 2, 11, "rows", resets="given", dtype="float32")
    call = make_call(case, make_data(case))
    runs = []
    for _ in range(2):
        out, state, _ = backend_of(call.spec, "triton").run(call)
        sources = [call.x, *call.state, *(call.reset_state or ()), *call.weights.values()]
        runs.append([out, *state, *torch.autograd.grad(out.sum(), sources, allow_unused=True)])
    for number, (a, b) in enumerate(zip(*runs, strict=True)):
        if a is not None:
            assert_same_bits(f"result {number}", a, b)


def test_a_plan_says_which_form_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    case = LayerCase(variant_named("lstm"), 2, 2, 33, dtype="float32")
    take_steps(monkeypatch, Chip(4, 1 << 14))
    assert refusal("triton", case) is None
    cell, inputs = cw.LSTMCell(70), torch.zeros(2, 3, 4)
    cell.build([2, 4])
    with cw.use_backend("triton"):
        (row,) = cw.explain(cell, inputs, dtype=torch.float32, show=False).rows
        out, _ = cw.dynamic_rnn(cell, inputs, dtype=torch.float32)
    assert row.backend == "triton" and "; one kernel per step: 70 units at 2 rows do not fit: all programs" in row.why
    assert "on 4 multiprocessors" in row.why and "in 16 KiB" in row.why
    assert torch.isfinite(out).all()
    narrow = cw.LSTMCell(8)
    narrow.build([2, 4])
    with cw.use_backend("triton"):
        assert "per step" not in cw.explain(narrow, inputs, dtype=torch.float32, show=False).rows[0].why


def test_a_plan_of_a_normalized_layer_says_why() -> None:
    module, x = cw.nn.LSTM(4, 5, layer_norm=True, state_dropout=0.3), torch.randn(3, 2, 4)
    with cw.use_backend("triton"):
        (row,) = cw.explain(module, x, show=False).rows
    assert row.backend == "triton"
    assert "one kernel per step: normalized rows are whole in one program" in row.why


def test_a_plan_of_torchs_modules_says_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    take_steps(monkeypatch)
    module, x = cw.nn.LSTM(4, 5, num_layers=2, state_dropout=0.3), torch.randn(3, 2, 4)
    with cw.use_backend("triton"):
        rows = cw.explain(module, x, show=False).rows
        out, _ = module(x)
    assert [row.backend for row in rows] == ["triton", "triton"]
    assert all("; one kernel per step: 5 units at 2 rows" in row.why for row in rows)
    assert torch.isfinite(out).all()
