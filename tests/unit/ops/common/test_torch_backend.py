"""Gradients of torch's layers as they are on CUDA devices, where the layer itself can be differentiated only once."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import pytest
import torch
from torch.autograd.gradcheck import GradcheckError

from cellweave.ops import lstm
from cellweave.ops.common import LayerCall, LayerResult
from cellweave.ops.common._torch_backend import run_with_second_derivatives
from cellweave.ops.common._torch_layer import in_one_buffer
from helpers.layer_cases import VARIANTS, LayerCase, backend_of, make_call, make_data
from helpers.tolerances import assert_same_bits

NAMES = ("rnn", "gru-after", "lstm", "lstm-split")


class _OnceOnly(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
        return value.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[misc]
    def backward(ctx: Any, d_value: torch.Tensor) -> torch.Tensor:
        return d_value


def _once(call: LayerCall) -> LayerResult:
    """Torch's layer, which now refuses second derivatives as cuDNN's does."""
    out, state, states = backend_of(call.spec, "torch").run(call)
    return LayerResult(_OnceOnly.apply(out), tuple(_OnceOnly.apply(leaf) for leaf in state), states)


def _case(name: str) -> LayerCall:
    case = LayerCase(next(v for v in VARIANTS if v.name == name), 3, 2, 3, "input", "ragged", residual=True)
    return make_call(case, make_data(case))


def _values(call: LayerCall, sources: list[torch.Tensor], run: Any) -> list[torch.Tensor]:
    found = run(call)
    loss = torch.stack([value.sin().sum() for value in (found.outputs, *found.state)]).sum()
    return [found.outputs, *found.state, *torch.autograd.grad(loss, sources, retain_graph=True)]


@pytest.mark.parametrize("name", NAMES)
def test_first_derivatives_are_the_layers_own(name: str) -> None:
    call = _case(name)
    sources = [call.x, *call.state, *call.weights.values()]
    reference, plain = backend_of(call.spec, "reference").run, backend_of(call.spec, "torch").run
    got = _values(call, sources, lambda c: run_with_second_derivatives(_once, reference, c))
    for number, (a, b) in enumerate(zip(got, _values(call, sources, plain), strict=True)):
        assert_same_bits(f"result {number}", a, b)


def _check_second_derivatives(name: str, run: Any) -> None:
    call, names = _case(name), list(_case(name).weights)

    def function(x: torch.Tensor, h: torch.Tensor, *weights: torch.Tensor) -> Any:
        changed = LayerCall(
            call.spec, x, (*call.state[:-1], h), dict(zip(names, weights, strict=True)), call.masks, call.lengths
        )
        found = run(changed)
        return (found.outputs, *found.state)

    torch.autograd.gradgradcheck(function, (call.x, call.state[-1], *call.weights.values()))


@pytest.mark.parametrize("name", NAMES)
def test_second_derivatives_are_the_references(name: str) -> None:
    reference = backend_of(_case(name).spec, "reference").run
    _check_second_derivatives(name, lambda call: run_with_second_derivatives(_once, reference, call))


def test_without_the_detour_they_are_wrong() -> None:
    """So that the test above shows something."""
    with pytest.raises(GradcheckError):
        _check_second_derivatives("lstm", _once)


def test_backward_twice_where_the_graph_is_kept() -> None:
    call = _case("lstm")
    found = run_with_second_derivatives(_once, lstm.BACKENDS[-1].run, call)
    loss = found.outputs.sum()
    (first,) = torch.autograd.grad(loss, [call.x], retain_graph=True)
    (second,) = torch.autograd.grad(loss, [call.x])
    assert_same_bits("d x", second, first)


def test_no_gradient_no_detour() -> None:
    call = _case("lstm")
    with torch.no_grad():
        found = run_with_second_derivatives(_once, lstm.BACKENDS[-1].run, call)
    assert found.outputs.grad_fn is None


def test_weights_in_one_buffer() -> None:
    """As cuDNN has them: a projection, which torch has last, stands before the biases."""
    sources = [torch.randn(4, 3, requires_grad=True), torch.randn(4), torch.randn(4, 2).t().requires_grad_()]
    weights = [sources[0], sources[1], sources[2]]
    found = in_one_buffer(weights)
    start = found[0].untyped_storage().data_ptr()
    assert found[0].untyped_storage().nbytes() == 4 * sum(weight.numel() for weight in weights)
    assert [part.data_ptr() - start for part in found] == [0, 80, 48]
    for part, weight in zip(found, weights, strict=True):
        assert_same_bits("weight", part, weight)
    (found[0].sum() + (found[2] * 2).sum()).backward()
    assert torch.equal(weights[0].grad, torch.ones(4, 3))  # type: ignore[arg-type]
    assert torch.equal(weights[2].grad, torch.full((2, 4), 2.0))  # type: ignore[arg-type]


@pytest.mark.parametrize("lengths", ["full", "ragged"])
@pytest.mark.parametrize("name", ["lstm", "gru-after-unbiased", "rnn"])
def test_cudnn_gets_dense_states_and_both_biases(name: str, lengths: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It refuses states with gaps, and copies weights at every call where biases are missing."""
    case = LayerCase(next(v for v in VARIANTS if v.name == name), 3, 2, 4, "none", lengths)
    call = make_call(case, make_data(case))
    halves = tuple(torch.cat([leaf, leaf], dim=1)[:, : leaf.shape[1]] for leaf in call.state)
    seen: list[tuple[Any, ...]] = []

    def spy(real: Any, *arguments: Any) -> Any:
        seen.append(arguments)
        return real(*arguments)

    for kind in ("lstm", "gru", "rnn_tanh"):
        monkeypatch.setattr(torch, kind, functools.partial(spy, getattr(torch, kind)))
    backend_of(call.spec, "torch").run(dataclasses.replace(call, state=halves))
    states, weights = seen[0][2:4] if lengths == "ragged" else seen[0][1:3]
    assert all(state.is_contiguous() for state in (states if isinstance(states, tuple) else [states]))
    assert len(weights) == 4
