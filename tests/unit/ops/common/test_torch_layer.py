"""What torch's own layers cannot express, and in which words; that they are called at all."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cellweave.ops import gru, lstm, rnn
from cellweave.ops.common import Backend, LayerCall, RunContext
from cellweave.specs import GRUSpec, LSTMSpec, MaskSpec, RNNSpec, RunSpec

CONTEXT: dict[str, Any] = {
    "dtype": torch.float32, "device_type": "cpu", "T": 3, "B": 2, "I": 5, "needs_grad": True, "transforms": False,
}  # fmt: skip
AFTER = GRUSpec(4, reset_after=True, gate_order="urc", joined_kernel=False)


def _torch(recurrence: Any) -> Backend:
    found: Backend = next(backend for backend in recurrence.BACKENDS if backend.name == "torch")
    return found


def _refuses(recurrence: Any, run: RunSpec, **changes: Any) -> str | None:
    return _torch(recurrence).refuses(run, RunContext(**(CONTEXT | changes)))


@pytest.mark.parametrize("cell, recurrence", [
    (RNNSpec(4), rnn), (RNNSpec(4, "relu", joined_kernel=False, use_bias=False), rnn), (AFTER, gru),
    (LSTMSpec(4, forget_bias=1.0), lstm), (LSTMSpec(4, gate_order="ofij"), lstm),
])  # fmt: skip
def test_runs(cell: Any, recurrence: Any) -> None:
    masks = (MaskSpec("input", True, True), MaskSpec("output", False, False))
    run = RunSpec(cell, masks, residual=True, lengths=True, reverse=True)
    assert _refuses(recurrence, run, I=cell.output_size) is None
    assert _refuses(recurrence, run, I=cell.output_size, device_type="cuda", dtype=torch.bfloat16) is None


def test_projections_run_on_other_devices() -> None:
    assert _refuses(lstm, RunSpec(LSTMSpec(4, projection=3)), device_type="cuda") is None


@pytest.mark.parametrize("cell, recurrence, reason", [
    (RNNSpec(4, "sigmoid"), rnn, "its layer has the activations tanh and relu only"),
    (GRUSpec(4), gru, "candidate resets before the product"),
    (GRUSpec(4, gate_order="urc", joined_kernel=False), gru, "candidate resets before the product"),
    (GRUSpec(4, "relu", "sigmoid", True, "urc", False), gru, "its layer has the activations tanh and sigmoid only"),
    (LSTMSpec(4, "relu"), lstm, "its layer has the activations tanh and sigmoid only"),
    (LSTMSpec(4, recurrent_activation="hard_sigmoid"), lstm, "its layer has the activations tanh and sigmoid only"),
    (LSTMSpec(4, peepholes=True), lstm, "its layer has no peepholes"),
    (LSTMSpec(4, cell_clip=1.0), lstm, "its layer does not clip the cell"),
    (LSTMSpec(4, projection=2, proj_clip=1.0), lstm, "its layer does not clip the projection"),
    (LSTMSpec(4, projection=4), lstm, "its layer projects to fewer than H values only"),
    (LSTMSpec(4, projection=3), lstm, "its fused layer has no projection on the CPU"),
])  # fmt: skip
def test_cells(cell: Any, recurrence: Any, reason: str) -> None:
    assert _refuses(recurrence, RunSpec(cell)) == reason


@pytest.mark.parametrize("run, changes, reason", [
    (RunSpec(AFTER, (MaskSpec("h", False, False),)), {}, "masks on the state act inside the time loop"),
    (RunSpec(AFTER, (MaskSpec("zone_h", True, True),)), {}, "zoneout acts inside the time loop"),
    (RunSpec(AFTER, resets=True), {}, "resets act inside the time loop"),
    (RunSpec(AFTER, residual=True), {}, "the residual sum needs inputs as wide as the outputs, 4, got 5"),
    (RunSpec(AFTER), {"transforms": True}, "its layers know no torch.func transforms and no forward-mode gradients"),
    (RunSpec(AFTER), {"plain": False}, "needs ordinary dense tensors"),
    (RunSpec(AFTER), {"dtype": torch.complex64}, "its layers know no complex64"),
])  # fmt: skip
def test_runs_that_are_not_one_call(run: RunSpec, changes: dict[str, Any], reason: str) -> None:
    assert _refuses(gru, run, **changes) == reason


def test_states_after_each_step() -> None:
    """They are the outputs of a cell whose state is h; those of an LSTM would need every c."""
    assert _refuses(lstm, RunSpec(LSTMSpec(4), all_states=True)) == "its layer gives the last c alone"
    assert _refuses(gru, RunSpec(AFTER, all_states=True)) is None


@pytest.mark.parametrize("cell, recurrence, function", [
    (RNNSpec(4), rnn, "rnn_tanh"), (AFTER, gru, "gru"), (LSTMSpec(4, use_bias=False), lstm, "lstm"),
])  # fmt: skip
@pytest.mark.parametrize("lengths", [None, torch.tensor([3, 0], dtype=torch.int32)])
def test_one_call_of_torchs_layer(
    cell: Any, recurrence: Any, function: str, lengths: torch.Tensor | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    fused, calls = getattr(torch, function), []

    def counted(*arguments: Any) -> Any:
        calls.append(len(arguments))
        return fused(*arguments)

    monkeypatch.setattr(torch, function, counted)
    weights = {weight.name: torch.randn(weight.shape) for weight in cell.weights(5)}
    state = tuple(torch.randn(2, 4) for _ in range(2 if recurrence is lstm else 1))
    call = LayerCall(RunSpec(cell, lengths=lengths is not None), torch.randn(3, 2, 5), state, weights, lengths=lengths)
    out, last, _ = _torch(recurrence).run(call)
    expected, expected_last, _ = recurrence.BACKENDS[-1].run(call)
    assert len(calls) == 1
    for got, wanted in zip((out, *last), (expected, *expected_last), strict=True):
        torch.testing.assert_close(got, wanted)
