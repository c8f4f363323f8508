"""The contestants that run on torch compute what they are timed for, and a wrong one is caught."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch
from agreement import HALF_TOLERANCE, STAND_INS, worst_difference
from contestants import cellweave_layers, cellweave_modules, products, torch_layers
from processes import ContestantError
from registry import HALF, KINDS, OURS, Case, small

LAYERS = {
    "cellweave": cellweave_layers,
    "stepwise": cellweave_layers,
    "torch.nn": torch_layers,
    "torch loop": torch_layers,
}


def tiny(kind: str, mode: str = "training", variation: str = "bare") -> Case:
    return small(Case(kind, mode, variation, 100, 1, 128, 128))


PAIRS = [(name, kind) for name in LAYERS for kind in KINDS if (name, kind) not in STAND_INS]


@pytest.mark.parametrize("name, kind", PAIRS)
def test_values_and_gradients_are_the_truth(name: str, kind: str) -> None:
    case = tiny(kind)
    results = LAYERS[name].make(name, case).results()
    assert {"outputs", "inputs"} < results.keys()
    worst_difference(name, results, cellweave_layers.truth(case))


@pytest.mark.parametrize("name", ["torch.nn", "torch loop", "stepwise"])
@pytest.mark.parametrize("kind", ["lstm", "gru_after"])
def test_a_step_from_a_state_is_the_truth(name: str, kind: str) -> None:
    case = tiny(kind, "inference", "step")
    worst_difference(name, LAYERS[name].make(name, case).results(), cellweave_layers.truth(case))


@pytest.mark.parametrize("kind", ["lstm", "gru_before"])
def test_a_loop_with_resets_is_the_truth(kind: str) -> None:
    case = tiny(kind, variation="resets")
    truth = cellweave_layers.truth(case)
    worst_difference("torch loop", torch_layers.make("torch loop", case).results(), truth)
    without = cellweave_layers.truth(tiny(kind))
    assert np.abs(without["outputs"] - truth["outputs"]).max() > 0.01


@pytest.mark.parametrize("kind", ["lstm", "gru_after"])
@pytest.mark.parametrize("module, name", [(cellweave_modules, OURS), (torch_layers, "torch.nn")])
def test_half_precision_is_near_the_truth(module: ModuleType, name: str, kind: str) -> None:
    case = tiny(kind, "inference", HALF)
    truth = cellweave_layers.truth(tiny(kind, "inference"))
    results = module.make(name, case).results()
    assert worst_difference(name, results, truth, HALF_TOLERANCE) > 1e-4


@pytest.mark.parametrize("variation", ["variational", "per-step"])
@pytest.mark.parametrize("module, name", [(cellweave_layers, OURS), (torch_layers, "torch loop")])
def test_masks_show_in_the_outputs(module: ModuleType, name: str, variation: str) -> None:
    outputs = module.make(name, tiny("lstm", variation=variation)).results()["outputs"]
    assert 0.02 < (outputs == 0).mean() < 0.6
    shared = (outputs == 0) == (outputs == 0)[:1, :1]
    assert bool(shared.all()) == (variation == "variational")


def test_swapped_gates_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(torch_layers._ORDER, "lstm", (0, 1, 2, 3))
    case = tiny("lstm", "inference")
    with pytest.raises(ContestantError, match="torch.nn: expected outputs"):
        worst_difference("torch.nn", torch_layers.make("torch.nn", case).results(), cellweave_layers.truth(case))


def test_nan_and_other_shapes_are_caught() -> None:
    truth = {"outputs": np.zeros((2, 3))}
    assert worst_difference("x", {"outputs": np.zeros((2, 1, 3), np.float32)}, truth) == 0.0
    with pytest.raises(ContestantError, match=r"\[1, 2\] = 0, got nan"):
        worst_difference("x", {"outputs": np.array([[0, 0, 0], [0, 0, np.nan]])}, truth)
    with pytest.raises(ContestantError, match=r"outputs \[2, 3\], got \[3\]"):
        worst_difference("x", {"outputs": np.zeros(3)}, truth)


def test_the_largest_difference_is_relative_to_the_truth() -> None:
    found = worst_difference("x", {"outputs": np.array([1000.001])}, {"outputs": np.array([1000.0])})
    assert found == pytest.approx(1e-6)


def test_saved_floats_are_counted_once_and_without_weights() -> None:
    case = tiny("lstm")
    weight = torch.ones(case.H, requires_grad=True)

    def run(inputs: torch.Tensor) -> torch.Tensor:
        wide = inputs[..., :1] * weight  # keeps the inputs and the weight
        tanh = torch.tanh(wide)  # keeps its result, one float for each unit
        last = (tanh * tanh)[-1].clone()  # keeps it again
        return last * last.square()  # keeps states: one step only

    layer = cellweave_layers.TorchLayer(case, [weight], run, lambda gradients: {})
    assert layer.saved_floats() == pytest.approx(1.0)


def test_yardsticks_do_all_products_of_a_training_step() -> None:
    case = Case("lstm", "training", "bare", 3, 2, 4, 4)
    with torch.profiler.profile(with_flops=True) as profile:
        products.make("own products", case).call()
    assert sum(event.flops for event in profile.key_averages()) == case.flops
