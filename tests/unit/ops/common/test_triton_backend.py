"""What the Triton backends say where they cannot run: each limit in words."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from cellweave.ops import gru, lstm, rnn
from cellweave.ops.common import RunContext
from cellweave.ops.common import _triton_backend as triton_backend
from cellweave.specs import GRUSpec, LSTMSpec, MaskSpec, RNNSpec, RunSpec

CONTEXT = RunContext(torch.float32, "cuda", 5, 3, 7, needs_grad=True, transforms=False)
RECORDS = {
    kind: next(backend for backend in recurrence.BACKENDS if backend.name == "triton")
    for kind, recurrence in ((RNNSpec, rnn), (GRUSpec, gru), (LSTMSpec, lstm))
}
RECORD = RECORDS[LSTMSpec]


@pytest.fixture(autouse=True)
def with_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_backend, "missing_reason", lambda: None)


@pytest.mark.parametrize(
    "changes, spec, words",
    [
        ({"dtype": torch.float64}, {}, "float32, float16 and bfloat16, not in float64"),
        ({"transforms": True}, {}, "torch.func"),
        ({"plain": False}, {}, "dense"),
        ({}, {"cell": LSTMSpec(4097, layer_norm=True)}, "normalize at most 4096 units, got 4097"),
        ({}, {"cell": LSTMSpec(4, "swish")}, "no activation swish"),
        ({}, {"cell": LSTMSpec(4, torch.cos)}, "a function of the caller's"),
        ({}, {"residual": True}, "as wide as the outputs, 4, got 7"),
        ({}, {"masks": (MaskSpec("h", False, False),) * 10}, "room for 9 masks"),
    ],
)
def test_limits(changes: dict[str, Any], spec: dict[str, Any], words: str) -> None:
    run = dataclasses.replace(RunSpec(LSTMSpec(4)), **spec)
    assert words in str(RECORD.refuses(run, dataclasses.replace(CONTEXT, **changes)))


@pytest.mark.parametrize(
    "cell, words",
    [
        (RNNSpec(4, "swish"), "no activation swish"),
        (GRUSpec(4, recurrent_activation=torch.cos), "a function of the caller's"),
    ],
)
def test_limits_of_the_other_recurrences(cell: Any, words: str) -> None:
    refuses = RECORDS[type(cell)].refuses
    assert words in str(refuses(RunSpec(cell), CONTEXT))
    assert refuses(RunSpec(type(cell)(4)), CONTEXT) is None
    assert "torch.func" in str(refuses(RunSpec(type(cell)(4)), dataclasses.replace(CONTEXT, transforms=True)))


@pytest.mark.parametrize(
    "cell, changes, words",
    [
        (LSTMSpec(1024), {"B": 16, "dtype": torch.bfloat16}, None),
        (LSTMSpec(1024), {"B": 64, "dtype": torch.bfloat16}, "one kernel per step: 1024 units at 64 rows do not fit"),
        (LSTMSpec(1024), {"B": 64, "needs_grad": False}, "one kernel per step: 1024 units at 64 rows do not fit"),
        (LSTMSpec(900), {"B": 16}, "backward, one kernel per step: 900 units"),
        (LSTMSpec(900), {"B": 16, "needs_grad": False}, None),
        (RNNSpec(5000), {}, "one kernel per step: 5000 units at 3 rows do not fit"),
        (GRUSpec(3000, reset_after=True), {}, "one kernel per step: 3000 units at 3 rows do not fit"),
        (GRUSpec(64), {}, None),
    ],
)
def test_what_does_not_fit_the_chip_runs_step_by_step(cell: Any, changes: dict[str, Any], words: str | None) -> None:
    record, context = RECORDS[type(cell)], dataclasses.replace(CONTEXT, **changes)
    assert record.refuses(RunSpec(cell), context) is None
    assert record.remarks is not None
    remark = record.remarks(RunSpec(cell), context)
    assert remark is None if words is None else str(remark).startswith(words)


@pytest.mark.parametrize(
    "steps, words", [(64, "one kernel per step: "), (65, "one kernel per step, 32 steps to a CUDA graph: ")]
)
def test_a_plan_says_that_steps_go_into_graphs(steps: int, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLWEAVE_STEP_GRAPHS", "1")
    for cell in (RNNSpec(5000), RNNSpec(4, layer_norm=True)):
        remarks = RECORDS[RNNSpec].remarks
        assert remarks is not None
        assert str(remarks(RunSpec(cell), dataclasses.replace(CONTEXT, T=steps))).startswith(words)


def test_a_plain_layer_on_a_cuda_device_is_not_refused() -> None:
    assert RECORD.refuses(RunSpec(LSTMSpec(4)), CONTEXT) is None
    assert RECORD.refuses(RunSpec(LSTMSpec(4)), dataclasses.replace(CONTEXT, dtype=torch.bfloat16)) is None


def test_devices_that_triton_does_not_support(monkeypatch: pytest.MonkeyPatch) -> None:
    capability = [7, 5]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: tuple(capability))
    monkeypatch.setattr(triton_backend, "interpreting", lambda: False)
    monkeypatch.setattr(triton_backend, "driver_fault", lambda: None)
    assert "compute capability 8.0, got 7.5" in str(RECORD.refuses(RunSpec(LSTMSpec(4)), CONTEXT))
    capability[:] = [8, 0]
    assert RECORD.refuses(RunSpec(LSTMSpec(4)), CONTEXT) is None
    monkeypatch.setattr(triton_backend, "driver_fault", lambda: "no C compiler")
    assert RECORD.refuses(RunSpec(LSTMSpec(4)), CONTEXT) == "no C compiler"
    monkeypatch.setattr(triton_backend, "interpreting", lambda: True)
    assert "TRITON_INTERPRET=1" in str(RECORD.refuses(RunSpec(LSTMSpec(4)), CONTEXT))


def test_the_cpu_only_for_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    on_cpu = dataclasses.replace(CONTEXT, device_type="cpu")
    monkeypatch.setattr(triton_backend, "interpreting", lambda: False)
    assert "needs a CUDA tensor" in str(RECORD.refuses(RunSpec(LSTMSpec(4)), on_cpu))
    monkeypatch.setattr(triton_backend, "interpreting", lambda: True)
    assert RECORD.refuses(RunSpec(LSTMSpec(4)), on_cpu) is None
    half = dataclasses.replace(on_cpu, dtype=torch.bfloat16)
    assert "wrongly in bfloat16" in str(RECORD.refuses(RunSpec(LSTMSpec(4)), half))


def test_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_backend, "missing_reason", lambda: "Triton is not installed")
    assert RECORD.refuses(RunSpec(LSTMSpec(4)), CONTEXT) == "Triton is not installed"


@pytest.fixture
def torchs_default() -> Iterator[None]:
    """By the older switch, which sets all that the newer ones are."""
    yield
    torch.backends.cudnn.allow_tf32 = True


@pytest.mark.usefixtures("torchs_default")
def test_products_of_float32_follow_torchs_own_setting() -> None:
    assert triton_backend.precision(torch.float32) == "tf32"
    assert triton_backend.precision(torch.float16) == "ieee"
    torch.backends.cudnn.rnn.fp32_precision = "ieee"
    assert triton_backend.precision(torch.float32) == "ieee"
    torch.backends.cudnn.allow_tf32 = True
    assert triton_backend.precision(torch.float32) == "tf32"
    torch.backends.cudnn.allow_tf32 = False
    assert triton_backend.precision(torch.float32) == "ieee"
