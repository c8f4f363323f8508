"""What the native backend refuses, and in which words."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cellweave.ops import gru, lstm, rnn
from cellweave.ops.common import Backend, LayerCall, RunContext
from cellweave.ops.common import _native_backend as module
from cellweave.ops.common._library import missing_reason
from cellweave.ops.common._native_call import POOL, release_workspace
from cellweave.ops.common._pool import SMALLEST
from cellweave.specs import GRUSpec, LSTMSpec, RNNSpec, RunSpec

CONTEXT: dict[str, Any] = {
    "dtype": torch.float32, "device_type": "cpu", "T": 3, "B": 2, "I": 5, "needs_grad": True, "transforms": False,
}  # fmt: skip
LSTM = RunSpec(LSTMSpec(4))


@pytest.fixture(autouse=True)
def built(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the core were there, whether it is or not."""
    monkeypatch.setattr(module, "missing_reason", lambda: None)


def _native(recurrence: Any) -> Backend:
    found: Backend = next(backend for backend in recurrence.BACKENDS if backend.name == "native")
    return found


def _refuses(recurrence: Any, run: RunSpec, **changes: Any) -> str | None:
    return _native(recurrence).refuses(run, RunContext(**(CONTEXT | changes)))


@pytest.mark.parametrize("recurrence", [rnn, gru, lstm])
def test_order_and_names(recurrence: Any) -> None:
    assert [backend.name for backend in recurrence.BACKENDS] == ["native", "torch", "triton", "reference"]
    assert recurrence.BACKENDS[-1].refuses(LSTM, RunContext(**CONTEXT)) is None


@pytest.mark.parametrize("cell, recurrence", [
    (RNNSpec(4, "relu6"), rnn), (GRUSpec(4, "selu"), gru), (GRUSpec(4, reset_after=True, joined_kernel=False), gru),
    (LSTMSpec(4, "softsign", "hard_sigmoid", peepholes=True, cell_clip=1.0, projection=2, proj_clip=0.5), lstm),
])  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_runs(cell: Any, recurrence: Any, dtype: torch.dtype) -> None:
    assert _refuses(recurrence, RunSpec(cell, lengths=True, resets=True, reverse=True), dtype=dtype) is None


@pytest.mark.parametrize("changes, reason", [
    ({"dtype": torch.complex64}, "computes in float64, float32, bfloat16 and float16, not in complex64"),
    ({"device_type": "cuda"}, "runs on the CPU, not on cuda"),
    ({"transforms": True}, "knows no torch.func transforms and no forward-mode gradients"),
    ({"plain": False}, "needs ordinary dense tensors"),
    ({"I": 0}, "needs inputs with at least one column"),
])  # fmt: skip
def test_surroundings(changes: dict[str, Any], reason: str) -> None:
    assert _refuses(lstm, LSTM, **changes) == reason


@pytest.mark.parametrize("cell, recurrence, reason", [
    (RNNSpec(4, "gelu"), rnn, "has no activation gelu"),
    (LSTMSpec(4, "swish"), lstm, "has no activation swish"),
    (LSTMSpec(4, recurrent_activation="softmax"), lstm, "has no activation softmax"),
    (GRUSpec(4, "mish"), gru, "has no activation mish"),
    (GRUSpec(4, torch.sin), gru, "activation is a function of the caller's"),
    (LSTMSpec(4, recurrent_activation=torch.sin), lstm, "recurrent_activation is a function of the caller's"),
    (GRUSpec(4, reset_after=True), gru, "a reset after the product needs a recurrent kernel of its own"),
])  # fmt: skip
def test_cells(cell: Any, recurrence: Any, reason: str) -> None:
    assert _refuses(recurrence, RunSpec(cell)) == reason


def test_a_residual_of_another_width() -> None:
    run = RunSpec(LSTMSpec(4), residual=True)
    assert _refuses(lstm, run) == "the residual sum needs inputs as wide as the outputs, 4, got 5"
    assert _refuses(lstm, run, I=4) is None


def test_a_missing_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "missing_reason", lambda: "library not built: no compiler")
    assert _refuses(lstm, LSTM) == "library not built: no compiler"


def test_workspace_is_released_on_demand() -> None:
    reason = missing_reason()
    if reason is not None:
        pytest.skip(f"native: {reason}")
    POOL.empty((SMALLEST,), torch.uint8)
    assert POOL.idle_bytes() >= SMALLEST
    release_workspace()
    assert POOL.idle_bytes() == 0


def test_reference_runs_any_function() -> None:
    weights = {"kernel": torch.randn(9, 4), "bias": torch.zeros(4)}
    call = LayerCall(RunSpec(RNNSpec(4, torch.sin)), torch.randn(3, 2, 5), (torch.zeros(2, 4),), weights)
    out, (last,), _ = rnn.BACKENDS[-1].run(call)
    assert torch.equal(out[-1], last) and out.shape == (3, 2, 4)
