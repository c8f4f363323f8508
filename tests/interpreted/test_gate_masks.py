"""Masks of each gate's own on the kernels, interpreted."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import cellweave as cw
from helpers.gate_mask_cases import KINDS, NAMES, B, check_gate_masks, gate_call
from helpers.layer_cases import backend_of
from helpers.tolerances import assert_close

pytestmark = pytest.mark.usefixtures("nan_poison")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_against_the_oracle(name: str, kind: str) -> None:
    check_gate_masks(name, kind, "triton", "float32", reverse=True)


@pytest.mark.parametrize("name", NAMES)
def test_gates_that_come_again(name: str) -> None:
    with cw.recompute_gates():
        check_gate_masks(name, "steps", "triton", "float32", reverse=False)


@pytest.mark.parametrize("name", ["rnn", "gru", "gru-after", "coupled-all"])
def test_second_derivatives(name: str) -> None:
    found = []
    for backend in ("triton", "reference"):
        call = gate_call(name, "rows")
        out, _, _ = backend_of(call.spec, backend).run(call)
        sources = [call.x, *call.state, *call.weights.values()]
        first = torch.autograd.grad(out.sin().sum(), sources, create_graph=True)
        total = torch.stack([d.sin().sum() for d in first]).sum()
        found.append([out, *first, *torch.autograd.grad(total, sources)])
    for number, (a, b) in enumerate(zip(*found, strict=True)):
        assert_close(f"result {number}", a, b, 3e-6)


@pytest.mark.parametrize("name", ["gru", "coupled-norm"])
def test_masks_on_h_alone(name: str) -> None:
    """Inputs meet all gates at once, also the columns of one that a cell has not."""
    found = []
    for backend in ("triton", "reference"):
        call = gate_call(name, "rows")
        spec = dataclasses.replace(call.spec, masks=call.spec.masks[1:])
        out, _, _ = backend_of(spec, backend).run(dataclasses.replace(call, spec=spec, masks=call.masks[1:]))
        found.append([out, *torch.autograd.grad(out.sin().sum(), [call.x, *call.state, *call.weights.values()])])
    for number, (a, b) in enumerate(zip(*found, strict=True)):
        assert_close(f"result {number}", a, b, 3e-6)


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_given_noise(name: str) -> None:
    found, noise = [], torch.Generator().manual_seed(2)
    call = gate_call(name, "rows")
    gates = call.spec.cell.gate_count
    masks = tuple(
        dataclasses.replace(mask, noise=torch.rand(B, gates * width, generator=noise))
        for mask, width in zip(call.masks, (call.x.shape[2], call.state[-1].shape[1]), strict=True)
    )
    for backend in ("triton", "reference"):
        out, _, _ = backend_of(call.spec, backend).run(dataclasses.replace(call, masks=masks))
        found.append([out, *torch.autograd.grad(out.sin().sum(), [call.x, *call.weights.values()])])
    for number, (a, b) in enumerate(zip(*found, strict=True)):
        assert_close(f"result {number}", a, b, 2e-6)


@pytest.mark.parametrize("rows", [True, False])
def test_a_plan_says_which_form_runs(rows: bool, launches: list[str]) -> None:
    """Masks that all rows share are factors of the weights, and one kernel runs the sequence."""
    module, x = cw.nn.LSTM(4, 5, state_dropout=0.3, mask_per_gate=True, mask_per_row=rows), torch.randn(3, 2, 4)
    with cw.use_backend("triton"), torch.no_grad():
        (row,) = cw.explain(module, x, show=False).rows
        module(x)
    assert row.backend == "triton"
    assert ("one kernel per step: each gate multiplies an h of its own" in row.why) == rows
    assert launches == (
        ["first_state"] * 2 + ["gate_operands", "lstm_fwd_step"] * 3 if rows else ["lstm_fwd_persistent"]
    )
