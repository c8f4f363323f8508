"""Kernels of single steps in graphs: the same bits, and from a graph nothing but what was captured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import cellweave as cw
from cellweave.ops.common import _triton_graphs
from cellweave.ops.common._triton_steps import Step
from helpers.gate_mask_cases import gate_call
from helpers.layer_cases import LayerCase, backend_of, make_call, make_data
from helpers.step_form import take_steps
from helpers.tolerances import assert_same_bits
from helpers.triton_cases import variant_named

pytestmark = pytest.mark.usefixtures("nan_poison")
#: Steps: one that runs by itself, three graphs of two, and one that is left.
STEPS, CHUNK = 8, 2
EVERYTHING: dict[str, Any] = {"lengths": "ragged", "resets": "given", "reverse": True, "states": True}


class Graph:
    """Runs what was captured: kernels with the numbers of then."""

    made: list[Graph]

    def __init__(self, launch: Callable[[], None], device: torch.device) -> None:
        self.replays, self._launch = 0, launch
        Graph.made.append(self)

    def replay(self) -> None:
        self.replays += 1
        self._launch()


@pytest.fixture(autouse=True)
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[Graph]:
    """Graphs of two steps that a processor can run, and a device on which nothing else fits."""
    take_steps(monkeypatch)
    Graph.made = []
    monkeypatch.setattr(_triton_graphs, "CHUNK", CHUNK)
    monkeypatch.setattr(_triton_graphs, "captured", Graph)
    monkeypatch.setattr(_triton_graphs, "_can_capture", lambda like: True)
    return Graph.made


def results(call: Any) -> list[torch.Tensor]:
    out, state, states = backend_of(call.spec, "triton").run(call)
    sources = [call.x, *call.state, *(call.reset_state or ()), *call.weights.values()]
    wanted = sum(value.sin().sum() for value in (out, *state, *states))
    grads = torch.autograd.grad(wanted, sources, allow_unused=True)
    return [out, *state, *states, *(d for d in grads if d is not None)]


def compare(call: Any, graphs: list[Graph], patch: pytest.MonkeyPatch) -> None:
    wanted = results(call)
    assert not graphs
    patch.setenv("CELLWEAVE_STEP_GRAPHS", "1")
    got = results(call)
    assert [graph.replays for graph in graphs] == [3, 3]  # forward, backward
    for number, (a, b) in enumerate(zip(got, wanted, strict=True)):
        assert_same_bits(f"result {number}", a, b)


@pytest.mark.parametrize("name", ["rnn", "gru", "gru-after", "all", "coupled-norm"])
def test_the_bits_of_steps_launched_one_by_one(name: str, graphs: list[Graph], monkeypatch: pytest.MonkeyPatch) -> None:
    case = LayerCase(variant_named(name), STEPS, 2, 5, "zones", **EVERYTHING, dtype="float32")
    compare(make_call(case, make_data(case)), graphs, monkeypatch)


def test_masks_of_each_gate(graphs: list[Graph], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_triton_graphs, "CHUNK", 1)  # of the four steps of these calls
    compare(gate_call("gru", "steps"), graphs, monkeypatch)


def test_what_a_graph_launches_has_numbers_from_its_own_first_step(
    graphs: list[Graph], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number that counted from the sequence's start would be the same at each replay."""
    monkeypatch.setenv("CELLWEAVE_STEP_GRAPHS", "1")
    numbers: list[tuple[str, int]] = []
    launch = Step.__call__

    def note(self: Step, number: int = 0) -> None:
        numbers.append((self.launch.kernel, number))
        launch(self, number)

    monkeypatch.setattr(Step, "__call__", note)
    case = LayerCase(variant_named("rnn"), STEPS, 2, 5, dtype="float32")
    results(make_call(case, make_data(case)))
    forward, backward = ([n for kernel, n in numbers if kernel == f"rnn_{way}_step"] for way in ("fwd", "bwd"))
    assert forward == [0, 0, 1, 0, 1, 0, 1, 0]
    assert backward == [0, 0, -1, 0, -1, 0, -1, 0]


def test_short_sequences_have_none(graphs: list[Graph], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLWEAVE_STEP_GRAPHS", "1")
    case = LayerCase(variant_named("rnn"), 2 * CHUNK, 2, 5, dtype="float32")
    results(make_call(case, make_data(case)))
    assert not graphs


def test_another_value_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLWEAVE_STEP_GRAPHS", "yes")
    case = LayerCase(variant_named("rnn"), STEPS, 2, 5, dtype="float32")
    with pytest.raises(cw.BackendError, match="CELLWEAVE_STEP_GRAPHS: expected 0 or 1, got 'yes'"):
        results(make_call(case, make_data(case)))
