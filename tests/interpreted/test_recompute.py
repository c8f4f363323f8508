"""Gates that backward computes again, interpreted: less is kept, and gradients are those of kept gates."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch

import cellweave as cw
from cellweave.ops.common import LayerCall
from helpers.layer_cases import LayerCase, backend_of, make_call, make_data
from helpers.layer_checks import check_layer
from helpers.step_form import take_steps
from helpers.tolerances import assert_close, assert_same_bits
from helpers.triton_cases import variant_named

pytestmark = pytest.mark.usefixtures("nan_poison")
NAMES = ["rnn", "rnn-relu", "gru", "gru-after", "gru-after-unbiased", "lstm", "peephole", "clip", "all", "block",
         "coupled-all", "rnn-norm", "gru-norm", "gru-norm-after", "norm-all"]  # fmt: skip
EVERYTHING: dict[str, Any] = {"lengths": "ragged", "resets": "given", "reverse": True, "residual": True, "states": True}


@pytest.mark.parametrize("steps", [False, True], ids=["whole", "steps"])
@pytest.mark.parametrize("name", NAMES)
def test_against_the_oracle(name: str, steps: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if steps:
        take_steps(monkeypatch)
    with cw.recompute_gates():
        check_layer(LayerCase(variant_named(name), 2, 3, 11, "steps", **EVERYTHING, dtype="float32"), "triton")


def _kept(call: LayerCall) -> float:
    """Bytes for each step, row and unit that a run keeps beside its inputs and weights."""
    steps, rows, _ = call.x.shape
    found: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.shape[:2] == (steps, rows):
            found[tensor.untyped_storage().data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        alive = backend_of(call.spec, "triton").run(call)
    del alive
    found.pop(call.x.untyped_storage().data_ptr(), None)
    return sum(found.values()) / (steps * rows * call.spec.cell.units)


@pytest.mark.parametrize(
    "name, kept, less",
    [
        ("lstm", 14, 6),
        ("gru", 2 + 2 + 4 + 2, 2 + 2),
        ("gru-after", 2 + 4 + 2 + 2, 2),
        ("rnn", 4, 2),
        ("norm", 14, 6),
        ("gru-norm-after", 2 + 4 + 2 + 2, 2),
    ],
)
@pytest.mark.parametrize("steps", [False, True], ids=["whole", "steps"])
def test_bytes_that_are_kept_in_half_precision(
    name: str, kept: int, less: int, steps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if steps:
        take_steps(monkeypatch)
    case = LayerCase(variant_named(name), 3, 2, 9, dtype="float16")
    assert _kept(make_call(case, make_data(case))) == kept
    with cw.recompute_gates():
        assert _kept(make_call(case, make_data(case))) == less
        with cw.recompute_gates(False):
            assert _kept(make_call(case, make_data(case))) == kept
    assert _kept(make_call(case, make_data(case))) == kept


@pytest.mark.parametrize("name", ["rnn", "gru", "gru-after", "lstm", "all"])
def test_as_with_kept_gates_in_half_precision(name: str) -> None:
    case = LayerCase(variant_named(name), 3, 3, 9, "rows", "ragged", "given", dtype="float16")
    found = []
    for again in (False, True):
        call = make_call(case, make_data(case))
        with cw.recompute_gates(again):
            out, state, _ = backend_of(call.spec, "triton").run(call)
        sources = [call.x, *call.state, *call.weights.values()]
        found.append([out, *state, *torch.autograd.grad(torch.stack([out.sum(), state[-1].sum()]).sum(), sources)])
    for number, (a, b) in enumerate(zip(*found, strict=True)):
        assert_close(f"result {number}", a.float(), b.float(), 2.0**-7)


@pytest.mark.parametrize("name", ["rnn", "gru", "all", "rnn-norm", "gru-norm-after", "norm-all"])
def test_second_derivatives_as_ever(name: str) -> None:
    case = LayerCase(variant_named(name), 2, 2, 2, "none", "ragged", "given", dtype="float32")
    found = []
    for again in (False, True):
        call = make_call(case, make_data(case))
        with cw.recompute_gates(again):
            out = backend_of(call.spec, "triton").run(call).outputs
        (first,) = torch.autograd.grad(out.sin().sum(), [call.x], create_graph=True)
        found.append([first, *torch.autograd.grad(first.sin().sum(), [call.x, *call.weights.values()])])
    for number, (a, b) in enumerate(zip(*found, strict=True)):
        assert_close(f"derivative {number}", a, b, 0.0)


@pytest.mark.parametrize("again", [False, True])
def test_backward_inside_a_block_of_autocast(again: bool) -> None:
    """Which forward was not in: products keep their dtype."""
    case = LayerCase(variant_named("lstm"), 3, 2, 5, "none", dtype="float32")
    found = []
    for cast in (False, True):
        call = make_call(case, make_data(case))
        with cw.recompute_gates() if again else nullcontext():
            out = backend_of(call.spec, "triton").run(call).outputs
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=cast):
            found.append(torch.autograd.grad(out.sum(), [call.x, *call.weights.values()]))
    for number, (a, b) in enumerate(zip(*found, strict=True)):
        assert_same_bits(f"gradient {number}", a, b)
