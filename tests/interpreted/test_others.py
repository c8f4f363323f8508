"""The kernels of the GRU and the plain recurrent network, interpreted; and what all kernels share."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cellweave.ops.common import BoundMask, LayerCall
from cellweave.ops.common._masks import apply_mask
from cellweave.ops.common._triton_backend import ACTIVATIONS
from cellweave.specs import GRUSpec, MaskSpec, RNNSpec, RunSpec
from helpers.layer_cases import LayerCase, backend_of, make_call, make_data, refusal
from helpers.layer_checks import check_layer
from helpers.tolerances import assert_close, assert_same_bits
from helpers.triton_cases import check_half, kernel_cases, variant_named

pytestmark = pytest.mark.usefixtures("nan_poison")


@pytest.mark.parametrize("case", kernel_cases(RNNSpec) + kernel_cases(GRUSpec), ids=lambda case: case.id)
def test_against_the_oracle(case: LayerCase) -> None:
    check_layer(case, "triton")


@pytest.mark.parametrize("name", ["rnn", "gru", "gru-after"])
def test_operands_of_two_pieces_in_two_groups(name: str) -> None:
    """36 units are tiles of 32 and 16; 18 rows are two groups."""
    check_layer(LayerCase(variant_named(name), 1, 18, 36, dtype="float32"), "triton")


@pytest.mark.parametrize(
    "name, masks", [("rnn", "none"), ("gru", "none"), ("gru-after", "none"), ("lstm", "rows"), ("all", "none")]
)
def test_half_precision(name: str, masks: str) -> None:
    case = LayerCase(variant_named(name), 3, 3, 9, masks, "ragged", "zeros", dtype="float16")
    assert refusal("triton", case) is None
    check_half(case)


@pytest.mark.parametrize("name", ["rnn", "gru", "gru-after", "all", "coupled-all"])
def test_second_derivatives(name: str) -> None:
    """The kernels' gradients, differentiated, are those of the reference."""
    case = LayerCase(
        variant_named(name), 2, 2, 2, "zones", "ragged", "given", residual=True, states=True, dtype="float32"
    )
    data = make_data(case)
    found = []
    for backend in ("triton", "reference"):
        call = make_call(case, data)
        out, state, states = backend_of(data.run, backend).run(call)
        sources = [call.x, *call.state, *(call.reset_state or ()), *call.weights.values()]
        loss = torch.stack([value.sin().sum() for value in (out, *state, *states)]).sum()
        first = torch.autograd.grad(loss, sources, create_graph=True)
        found.append([*first, *torch.autograd.grad(torch.stack([d.sin().sum() for d in first]).sum(), sources)])
    for number, (a, b) in enumerate(zip(*found, strict=True)):
        assert_close(f"derivative {number}", a, b, 3e-6)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation(activation: str) -> None:
    """Values and gradients on both sides of zero, and beyond every bend."""
    run = RunSpec(RNNSpec(8, activation, joined_kernel=False, use_bias=False))
    x = torch.linspace(-7.3, 7.1, 16).reshape(2, 8, 1).expand(2, 8, 8).clone().requires_grad_()
    weights = {"kernel": torch.eye(8), "recurrent_kernel": torch.zeros(8, 8)}
    found = []
    for backend in ("triton", "reference"):
        out = backend_of(run, backend).run(LayerCall(run, x, (torch.zeros(8, 8),), weights)).outputs
        found.append((out, torch.autograd.grad((out * torch.arange(128).reshape(2, 8, 8).sin()).sum(), [x])[0]))
    for name, a, b in zip(("out", "d x"), *found, strict=True):
        assert_close(name, a, b, 2e-6)


_STARTS = {"plain": 5, "carry32": 2**32 - 2, "carry64": 2**64 - 1, "carry128": 2**128 - 1}


@pytest.mark.parametrize("by_floor", [True, False])
@pytest.mark.parametrize("per_step", [True, False])
@pytest.mark.parametrize("start", _STARTS)
def test_masks_are_the_references_bit_for_bit(start: str, per_step: bool, by_floor: bool) -> None:
    """The output mask of a network whose every output is 1 shows which elements it keeps."""
    T, B, H = 3, 2, 11
    counter, spec = _STARTS[start], MaskSpec("output", per_step, True)
    stream: dict[str, Any] = {"seed": 2**63 + 11, "seed2": counter >> 64, "block": counter % 2**64}
    mask = BoundMask(spec, 0.6, by_floor, **stream, stride=7 if per_step else 0)
    cell = RNNSpec(H, "linear", joined_kernel=False)
    weights = {"kernel": torch.zeros(1, H), "recurrent_kernel": torch.zeros(H, H), "bias": torch.ones(H)}
    run = RunSpec(cell, (spec,))
    record = backend_of(run, "triton")
    out, *_ = record.run(LayerCall(run, torch.zeros(T, B, 1), (torch.zeros(B, H),), weights, (mask,)))
    assert_same_bits("kept", out, apply_mask(torch.ones(T, B, H), mask))
    assert 0.3 < out.bool().float().mean() < 0.9
