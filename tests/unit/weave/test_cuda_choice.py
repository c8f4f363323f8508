"""What was measured on a CUDA device decides which backend comes first there, and says so."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cellweave.ops.common import RunContext
from cellweave.specs import GRUSpec, LSTMSpec, RNNSpec, RunSpec
from cellweave.weave import _cuda_choice as cuda_choice
from cellweave.weave import backend_names, choose
from cellweave.weave._cuda_choice import ROWS, UNITS, Key, size_class, table_of
from helpers.fake_backend import Fake, fakes

LSTM = RunSpec(LSTMSpec(512))
ENTRY = {
    "recurrence": "lstm", "dtype": "bfloat16", "gradients": True, "units": 640, "rows": 96,
    "backend": "triton", "ms": {"torch": 6.0, "triton": 3.1234},
}  # fmt: skip


def context(rows: int = 64, dtype: torch.dtype = torch.bfloat16, grad: bool = True, device: str = "cuda") -> RunContext:
    return RunContext(dtype, device, 10, rows, 8, grad, transforms=False)


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> None:
    """One entry, of a device that does not exist."""
    found = table_of({"device": "Some GPU", "choices": [ENTRY]})
    monkeypatch.setattr(cuda_choice, "checked_in", lambda: found)


def test_choice_follows_the_table(table: None) -> None:
    with fakes(Fake("torch"), Fake("triton")):
        choice = choose(LSTM, context(), None)
    assert (choice.name, choice.why) == ("triton", "measured faster on Some GPU: 3.12 ms, torch 6 ms")


@pytest.mark.parametrize(
    "spec, changes",
    [
        (LSTM, {"grad": False}),
        (LSTM, {"dtype": torch.float16}),
        (LSTM, {"rows": 97}),
        (LSTM, {"rows": 32}),
        (RunSpec(LSTMSpec(384)), {}),
        (RunSpec(LSTMSpec(641)), {}),
        (RunSpec(GRUSpec(512, reset_after=True, joined_kernel=False)), {}),
        (RunSpec(RNNSpec(512)), {}),
        (RunSpec(LSTMSpec(512, projection=9)), {}),
        (RunSpec(LSTMSpec(512), lengths=True), {}),
    ],
    ids=["inference", "dtype", "more-rows", "fewer-rows", "smaller", "larger", "gru", "rnn", "projected", "lengths"],
)
def test_what_was_not_measured_keeps_the_order(table: None, spec: RunSpec, changes: dict[str, Any]) -> None:
    with fakes(Fake("torch"), Fake("triton")):
        choice = choose(spec, context(**changes), None)
    assert (choice.name, choice.why) == ("torch", "cuDNN computes exactly this")


def test_a_measured_backend_that_refuses_gives_its_reason_and_the_next_runs(table: None) -> None:
    with fakes(Fake("torch"), Fake("triton", "Triton is not installed")):
        choice = choose(LSTM, context(), None)
    assert (choice.name, choice.why) == ("torch", "triton: Triton is not installed; cuDNN computes exactly this")
    with fakes(Fake("torch", "masks inside"), Fake("triton", "too large")):
        choice = choose(LSTM, context(), None)
    assert (choice.name, choice.why) == ("reference", "triton: too large; torch: masks inside")


def test_wishes_autocast_and_other_devices_go_before_the_table(table: None) -> None:
    with fakes(Fake("torch"), Fake("triton"), Fake("native")):
        assert choose(LSTM, context(), "torch").name == "torch"
        assert choose(LSTM, context(device="cpu"), None).name == "native"
        cast = choose(LSTM, context(), None, autocast=True)
    assert cast.name == "reference" and cast.why.index("triton: autocast") < cast.why.index("torch: autocast")


def test_table_of_the_package_names_its_device() -> None:
    """Empty until something was measured."""
    for key, found in cuda_choice.checked_in().items():
        assert found.backend in backend_names() and "None" not in found.why
        assert key.units in (*UNITS, None) and key.rows in (*ROWS, None)


@pytest.mark.parametrize("size, expected", [(1, 8), (8, 8), (9, 32), (192, 192), (193, None)])
def test_classes_of_sizes(size: int, expected: int | None) -> None:
    assert size_class(size, ROWS) == expected


def test_an_entry_is_read_by_its_key() -> None:
    whole = {"device": "Some GPU", "choices": [{**ENTRY, "units": None, "backend": "torch"}]}
    assert table_of(whole)[Key("lstm", "bfloat16", True, None, 96)].why.endswith("6 ms, triton 3.12 ms")
