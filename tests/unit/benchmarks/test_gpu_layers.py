"""What is timed on a GPU, tried on the processor: the check catches wrong kernels, contestants are what they claim."""

from __future__ import annotations

import ctypes
import dataclasses
import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from gpu import calibration, clusters, correctness, layers, loops, timing
from gpu.clock import Clock
from gpu.layers import Layer, Work
from gpu.plan import (
    CUDNN,
    GRAPHED,
    KERNELS_OF_OURS,
    OURS_ON_CUDNN,
    PEEPHOLES,
    PLANS,
    PROJECTED,
    TRITON,
    WRAPPED,
    GpuCase,
    checks,
    variations,
)
from program import NotTaken

from cellweave.ops.common._triton_graphs import CHUNK

CLOCK, PLAN = Clock("cpu"), PLANS["cpu"]
SIZES = (3, 2, 6)
LSTM, GRU = GpuCase("lstm", "training", "float32", *SIZES), GpuCase("gru_before", "training", "float32", *SIZES)


@pytest.fixture(autouse=True)
def precision() -> Any:
    yield
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True  # torch's defaults


def stand_in(monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], Any] = lambda result: result) -> None:
    """The native core in place of the Triton kernels, its results changed."""
    true = layers.layer

    def layer(name: str, case: GpuCase, device: str, dtype: torch.dtype, backend: str | None = None) -> Layer:
        found = true(name, case, device, dtype, backend or "native")
        if backend is not None:
            return found
        return dataclasses.replace(found, run=lambda x, hx=None: change(found.run(x, hx)))

    monkeypatch.setattr(correctness, "layer", layer)


def check(case: GpuCase, name: str) -> dict[str, Any]:
    return correctness.check(case, name, CLOCK, PLAN, seed=5)


@pytest.mark.parametrize("name", KERNELS_OF_OURS)
def test_what_is_right_passes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    found = check(LSTM, name)
    assert found["passes"] and found["repeats"]
    assert 0 < found["worst"]["share"] < 1


@pytest.mark.parametrize("kind", ["gru_before", "gru_after", "rnn"])
def test_every_recurrence_passes(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    assert check(GpuCase(kind, "training", "float32", *SIZES), WRAPPED)["passes"]


@pytest.mark.parametrize("name", [TRITON, WRAPPED])
@pytest.mark.parametrize(
    "change, tensor",
    [
        (lambda result: (result[0] * (1 + 1e-4), result[1]), None),
        (lambda result: (result[0], (result[1][0], result[1][1] + 1e-4)), "c"),
        (lambda result: (result[0] * float("nan"), result[1]), None),
        (lambda result: (result[0], (result[1][0].detach() + 0 * result[1][0], result[1][1])), None),
    ],
    ids=["outputs", "c", "nan", "gradient"],
)
def test_what_is_wrong_does_not(
    name: str, change: Callable[[Any], Any], tensor: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, change)
    found = check(LSTM, name)
    assert not found["passes"]
    assert tensor in (None, found["worst"]["tensor"])
    assert not found["worst"]["share"] <= 1


def test_other_masks_do_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    true = torch.manual_seed
    seeds = iter(range(100))
    monkeypatch.setattr(torch, "manual_seed", lambda seed: true(seed if seed == 1 else next(seeds)))
    assert not check(LSTM, WRAPPED)["passes"]


def test_bits_that_differ_from_call_to_call_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter([0.0, 1e-7])
    stand_in(monkeypatch, lambda result: (result[0] + next(calls), result[1]))
    found = check(LSTM, TRITON)
    assert (found["passes"], found["repeats"]) == (False, False)


def test_memory_that_nobody_wrote_is_nan() -> None:
    before = torch.are_deterministic_algorithms_enabled()
    with layers.fresh_memory_is_nan():
        assert torch.empty(3).isnan().all()
    assert torch.are_deterministic_algorithms_enabled() == before


def test_contestants_share_start_values() -> None:
    theirs, ours = (layers.layer(name, LSTM, "cpu", torch.float32) for name in (CUDNN, OURS_ON_CUDNN))
    x = torch.randn(SIZES)
    assert torch.allclose(theirs.run(x)[0], ours.run(x)[0], atol=1e-6)
    bare, wrapped = (layers.layer(name, GRU, "cpu", torch.float32, "reference") for name in (TRITON, WRAPPED))
    assert all(torch.equal(a, b) for a, b in zip(bare.weights, wrapped.weights, strict=True))
    assert not torch.allclose(bare.run(x)[0], wrapped.run(x)[0])


def test_wrapped_is_everything_at_once() -> None:
    case = dataclasses.replace(LSTM, T=200, B=4, H=16)
    run = layers.layer(WRAPPED, case, "cpu", torch.float32, "native").run
    outputs = run(torch.zeros(200, 4, 16))[0]
    dropped = (outputs == 0).all(0)
    assert 0.05 < dropped.float().mean() < 0.4
    x = torch.full((200, 4, 16), 1e3)
    assert (run(x)[0] - x).abs().median() < 2  # the residual sum


@pytest.mark.parametrize("name", [CUDNN, OURS_ON_CUDNN])
def test_work_is_gradients_in_training_and_outputs_else(name: str) -> None:
    given = layers.layer(name, LSTM, "cpu", torch.float32)
    work = layers.work_of(given, LSTM, "cpu")
    gradients = work.call(0)
    assert [tuple(d.shape) for d in gradients] == [SIZES, *(tuple(w.shape) for w in given.weights)]
    assert not torch.equal(gradients[0], work.call(1)[0])  # another set of inputs
    assert torch.equal(gradients[0], work.call(3)[0])
    assert work.kept() > 0
    forward = layers.work_of(given, dataclasses.replace(LSTM, mode="inference"), "cpu").call(0)
    assert forward.shape == SIZES and not forward.requires_grad


def test_large_inputs_do_not_take_turns() -> None:
    assert layers.number_of_sets(GpuCase("lstm", "training", "bfloat16", 512, 16, 256)) == 3
    assert layers.number_of_sets(GpuCase("lstm", "training", "bfloat16", 512, 128, 512)) == 1


@pytest.mark.parametrize("kind", ["lstm", "gru_after", "rnn"])
def test_a_step_of_the_compiled_loop_is_torchs_cell(kind: str) -> None:
    case = GpuCase(kind, "training", "float32", *SIZES)
    products, step, weights = loops._parts(case, "cpu", torch.float32)
    cell = loops._CELLS[kind](6, 6)
    with torch.no_grad():
        for mine, its in zip((*weights, torch.zeros(())), cell.parameters(), strict=False):
            its.copy_(mine)
    x, state = torch.randn(2, 6), [torch.randn(2, 6) for _ in range(2 if kind == "lstm" else 1)]
    expected = cell(x, tuple(state) if kind == "lstm" else state[0])
    got = step(products(x), *state)
    assert torch.allclose(torch.stack(got), torch.stack(expected if kind == "lstm" else [expected]), atol=1e-6)


def test_a_step_of_the_compiled_loop_is_our_gru() -> None:
    products, step, (w, r, b) = loops._parts(GRU, "cpu", torch.float32)
    ours = layers.layer(TRITON, GRU, "cpu", torch.float32, "reference")
    with torch.no_grad():
        for mine, its in zip((w, r, b, torch.zeros(18)), ours.weights, strict=True):
            its.copy_(mine)
    x, h = torch.randn(1, 2, 6), torch.randn(1, 2, 6)
    assert torch.allclose(step(products(x[0]), h[0])[0], ours.run(x, h)[0][0], atol=1e-6)


@pytest.mark.parametrize("kind", ["lstm", "gru_before", "gru_after", "rnn"])
def test_an_eager_loop_runs(kind: str) -> None:
    case = GpuCase(kind, "training", "float32", 70, 2, 6)
    assert loops.eager_steps(case) == 64
    gradients = loops.eager_loop(case, "cpu").call(0)
    assert gradients[0].shape == (64, 2, 6) and all(d.abs().max() > 0 for d in gradients)


def test_a_graph_needs_a_device() -> None:
    with pytest.raises(NotTaken, match="need a CUDA device"):
        loops.compiled_loop(LSTM, "cpu")


def test_who_fails_is_recorded_and_the_others_go_on() -> None:
    calls = []

    def late(number: int) -> None:
        calls.append(number)
        if len(calls) > PLAN.warmups:
            raise RuntimeError("fell over")

    def missing() -> Work:
        raise NotTaken("not here")

    makers = {"a": lambda: Work(late, lambda: 0.0), "b": missing, "c": lambda: Work(lambda n: None, lambda: 2.0)}
    found = timing.compare(makers, CLOCK, PLAN)
    assert found["a"] == {"error": "RuntimeError: fell over"} and found["b"] == {"error": "not here"}
    assert found["c"]["calls"] == PLAN.repeats and found["c"]["saved_bytes"] == 2.0


def test_a_slow_case_stops_after_its_share() -> None:
    calls: list[int] = []
    patient = dataclasses.replace(PLAN, repeats=1000, warmups=1, seconds=0.01)
    found = timing.compare({"a": lambda: Work(calls.append, lambda: 0.0)}, CLOCK, patient)
    assert 3 <= found["a"]["calls"] <= 1000
    slow = dataclasses.replace(patient, seconds=0.0)
    assert timing.compare({"a": lambda: Work(calls.append, lambda: 0.0)}, CLOCK, slow)["a"]["calls"] == 3


@pytest.mark.parametrize("what", ["M1", "M2"])
def test_what_a_processor_has_is_measured(what: str) -> None:
    assert calibration.calibrate(what, CLOCK, PLAN.scale)["value"] > 0


def test_what_it_lacks_is_refused() -> None:
    with pytest.raises(NotTaken, match="needs a CUDA device"):
        calibration.calibrate("M3", CLOCK)
    if not torch.cuda.is_available():
        with pytest.raises(NotTaken, match="driver"):
            clusters.active_clusters(8)


def test_a_size_of_clusters_that_is_refused_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(size: int) -> int:
        if size > most:
            raise NotTaken(f"no clusters of {size}")
        return 128 // size

    monkeypatch.setattr(calibration, "active_clusters", ask)
    monkeypatch.setattr(calibration, "attempt", lambda measure, *_: measure)
    clock = Clock("cpu")
    most = 8
    assert calibration._clusters(clock, 1)["values"] == {"8": 16}
    most = 4
    with pytest.raises(NotTaken, match="no clusters of"):
        calibration._clusters(clock, 1)


def test_structures_of_the_driver_have_its_sizes() -> None:
    """On the 64-bit systems that CUDA runs on."""
    assert ctypes.sizeof(clusters.LaunchAttribute) == 72 and clusters.LaunchAttribute.value.offset == 8
    assert ctypes.sizeof(clusters.LaunchConfig) == 56
    assert (clusters.LaunchConfig.stream.offset, clusters.LaunchConfig.count.offset) == (32, 48)


@pytest.mark.parametrize("device", PLANS)
def test_all_that_is_timed_of_ours_is_checked(device: str) -> None:
    plan = PLANS[device]
    checked = set(checks(plan))
    for case in (*plan.ours, *plan.loops):
        short = dataclasses.replace(case, mode="training", T=plan.check_steps)
        long_enough = dataclasses.replace(short, T=plan.graph_steps)
        names = (TRITON, *variations(case))
        assert {(long_enough if name == GRAPHED else short, name) for name in names} <= checked
    assert len(checked) == len(checks(plan))


def test_what_is_checked_in_graphs_fills_some() -> None:
    assert PLANS["cuda"].graph_steps > 3 * CHUNK


def test_a_run_shows_every_option() -> None:
    cases = PLANS["cuda"].ours
    assert {name for case in cases for name in variations(case)} == {WRAPPED, PROJECTED, PEEPHOLES, GRAPHED}
    anchor = next(case for case in cases if (case.kind, case.dtype) == ("lstm", "bfloat16"))
    assert variations(anchor) == (WRAPPED, PROJECTED, PEEPHOLES)


@pytest.mark.parametrize("name, setting", [(TRITON, "0"), (GRAPHED, "1")])
def test_a_call_decides_on_graphs_for_its_backward_too(
    name: str, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELLWEAVE_STEP_GRAPHS", "unknown")
    run = layers.layer(name, GRU, "cpu", torch.float32, "reference").run
    run(torch.zeros(GRU.T, GRU.B, GRU.H))
    assert os.environ["CELLWEAVE_STEP_GRAPHS"] == setting
