"""Which backend runs a layer, with how many threads, and why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

import cellweave as cw
from cellweave.ops.common import RunContext
from cellweave.specs import GRUSpec, LSTMSpec, MaskSpec, RNNSpec, RunSpec
from cellweave.weave import asked_backend, choose, choose_in_graph
from cellweave.weave._choice import FLOPS_WORTH_A_THREAD
from helpers.fake_backend import Fake, fakes

GRU = RunSpec(GRUSpec(128))


def context(rows: int = 1, grad: bool = False, device: str = "cpu") -> RunContext:
    return RunContext(torch.float32, device, 10, rows, 8, grad, transforms=False)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_the_fastest_that_can() -> None:
    with fakes(Fake("torch"), Fake("native")):
        choice = choose(GRU, context(), None)
    assert (choice.name, choice.backend is not None) == ("native", True) and "fastest" in choice.why


def test_the_next_with_the_reason_of_the_first() -> None:
    with fakes(Fake("native", "library not built"), Fake("torch")):
        choice = choose(GRU, context(), None)
    assert choice.name == "torch" and choice.why.startswith("native: library not built; ")


def test_torch_only_without_gradients() -> None:
    with fakes(Fake("native", "no"), Fake("torch")):
        choice = choose(GRU, context(grad=True), None)
    assert choice.name == "reference" and "torch: chosen only where no gradient is needed" in choice.why


def test_reference_where_nothing_can() -> None:
    with fakes(Fake("native", "a b c"), Fake("torch", "d e f")):
        choice = choose(GRU, context(), None)
    assert (choice.name, choice.why) == ("reference", "native: a b c; torch: d e f")
    with fakes():
        assert choose(GRU, context(), None).why == "no other backend knows this recurrence"


def test_on_a_cuda_device_cudnn_comes_first_with_gradients_too() -> None:
    with fakes(Fake("triton"), Fake("torch"), Fake("native")):
        choice = choose(GRU, context(grad=True, device="cuda"), None)
    assert (choice.name, choice.why) == ("torch", "cuDNN computes exactly this")


def test_on_a_cuda_device_then_triton_with_the_reason_of_cudnn() -> None:
    with fakes(Fake("triton"), Fake("torch", "masks inside"), Fake("native")):
        choice = choose(GRU, context(grad=True, device="cuda"), None)
    assert choice.name == "triton" and choice.why.startswith("torch: masks inside; kernels of cellweave")


def test_on_a_cuda_device_reference_where_neither_can() -> None:
    with fakes(Fake("triton", "Triton is not installed"), Fake("torch", "masks inside"), Fake("native")):
        choice = choose(GRU, context(device="cuda"), None)
    assert (choice.name, choice.why) == ("reference", "torch: masks inside; triton: Triton is not installed")


def test_autocast_on_a_cuda_device_leaves_both_out() -> None:
    with fakes(Fake("triton"), Fake("torch")):
        choice = choose(GRU, context(device="cuda"), None, autocast=True)
        asked = choose(GRU, context(device="cuda"), "triton", autocast=True)
    assert choice.name == "reference" and choice.why.count("autocast") == 2
    assert asked.backend is None and "autocast" in asked.why


@pytest.mark.parametrize(
    "features, why",
    [
        ({"lengths": True}, "in graphs"),
        ({"masks": (MaskSpec("input", False, False),)}, "in graphs"),
        ({}, "apart into single steps"),
    ],
)
def test_in_a_graph_triton_runs_what_torch_has_outside_of_graphs_only(features: dict[str, Any], why: str) -> None:
    spec = RunSpec(GRUSpec(128), **features)
    on_device = context(device="cuda")
    with fakes(Fake("triton"), Fake("torch")):
        outside = choose(spec, on_device, None)
        choice = choose_in_graph(outside, spec, on_device, None)
        assert (outside.name, choice.name) == ("torch", "triton") and why in choice.why
        assert choose_in_graph(outside, spec, on_device, "torch") is outside
    with fakes(Fake("triton", "not here"), Fake("torch")):
        assert choose_in_graph(outside, spec, on_device, None) is outside
    with fakes(Fake("triton"), Fake("torch")):
        on_cpu = choose(GRU, context(), "torch")
        assert choose_in_graph(on_cpu, GRU, context(), None) is on_cpu


def test_triton_is_never_chosen_on_the_cpu() -> None:
    with fakes(Fake("triton"), Fake("native", "no")):
        assert choose(GRU, context(), None).name == "reference"


def test_what_is_asked_for_or_nothing() -> None:
    with fakes(Fake("native", "too small"), Fake("torch")):
        assert choose(GRU, context(grad=True), "torch").why == "asked for by use_backend"
        refused = choose(GRU, context(), "native")
        assert (refused.name, refused.backend, refused.why) == ("none", None, "native: too small")
        assert choose(GRU, context(), "elsewhere").why == "elsewhere: elsewhere does not know this recurrence"


@pytest.mark.parametrize(
    "spec, flops",
    [(RNNSpec(32), 2048), (GRUSpec(32), 3 * 2048), (LSTMSpec(32), 4 * 2048), (LSTMSpec(32, projection=8), 2048)],
    ids=["rnn", "gru", "lstm", "projected"],
)  # fmt: skip
def test_more_threads_where_a_step_is_worth_it(spec: Any, flops: int, two_threads: None) -> None:
    enough = -(-FLOPS_WORTH_A_THREAD // flops)
    with fakes(Fake()):
        assert [choose(RunSpec(spec), context(rows), None).threads for rows in (enough - 1, enough)] == [1, 2]
        torch.set_num_threads(1)
        assert choose(RunSpec(spec), context(1000), None).threads == 1


def test_use_backend_lasts_as_long_as_its_block() -> None:
    assert asked_backend() is None
    with cw.use_backend("native"):
        assert asked_backend() == "native"
        with cw.use_backend(None):
            assert asked_backend() is None
        with pytest.raises(KeyError), cw.use_backend("reference"):
            raise KeyError
        assert asked_backend() == "native"
    assert asked_backend() is None


def test_use_backend_knows_its_names() -> None:
    with (
        pytest.raises(cw.ArgumentError, match="use_backend: expected one of reference, .*got 'cuda'"),
        cw.use_backend("cuda"),
    ):
        pass
