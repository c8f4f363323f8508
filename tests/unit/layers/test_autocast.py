"""Unrolls under torch.autocast run woven, in the dtype of their weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import cellweave as cw
from cellweave.ops.common._library import core, missing_reason
from helpers import nest
from helpers.tolerances import assert_close, assert_same_bits

D, H = 4, 6
CELLS: dict[str, Callable[[], Any]] = {
    "lstm": lambda: cw.LSTMCell(H),
    "gru": lambda: cw.GRUCell(H),
    "stack": lambda: cw.MultiRNNCell([cw.ResidualWrapper(cw.GRUCell(D)), cw.BasicLSTMCell(H)]),
}


@pytest.fixture(params=list(CELLS))
def cell(request: pytest.FixtureRequest) -> Any:
    reason = missing_reason()
    if reason is not None:
        pytest.skip(f"native: {reason}")
    made = CELLS[request.param]()
    cw.dynamic_rnn(made, torch.randn(2, 3, D), dtype="float32")
    return made


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["half-inputs", "whole-inputs"])
@pytest.mark.parametrize("start", ["float32", "bfloat16"])
@pytest.mark.parametrize("lower", [torch.bfloat16, torch.float16], ids=["to-bf16", "to-fp16"])
def test_woven_in_the_dtype_of_the_weights(cell: Any, dtype: torch.dtype, start: str, lower: torch.dtype) -> None:
    x = torch.randn(2, 3, D).to(dtype).requires_grad_()
    wanted = cw.dynamic_rnn(cell, x.float(), dtype="float32")
    tiled = lower == torch.bfloat16 and core().has_bfloat16  # whose products round what they multiply
    with torch.autocast("cpu", lower):
        plan = cw.explain(cell, x, dtype=start)
        got = cw.dynamic_rnn(cell, x, dtype=start)
    assert {row.backend for row in plan.rows} == {"native"}
    for number, (a, b) in enumerate(zip(nest.flatten(got), nest.flatten(wanted), strict=True)):
        assert_close(f"result {number}", a, b, 2e-2) if tiled else assert_same_bits(f"result {number}", a, b)
    sources = [x, *cell.parameters()]
    grads = [torch.autograd.grad(out.square().sum(), sources) for out in (got[0], wanted[0])]
    assert grads[0][0].dtype == dtype
    for number, (a, b) in enumerate(zip(*grads, strict=True)):
        if tiled:
            assert_close(f"gradient {number}", a, b, 5e-2)
        else:
            assert_same_bits(f"gradient {number}", a.float(), b.float())


def test_inputs_from_a_layer_before(cell: Any) -> None:
    linear = torch.nn.Linear(5, D)
    with torch.autocast("cpu", torch.bfloat16):
        x = linear(torch.randn(2, 3, 5))
        assert x.dtype == torch.bfloat16
        out, _ = cw.dynamic_rnn(cell, x, sequence_length=torch.tensor([3, 1]), dtype="float32")
    out.sum().backward()
    assert out.dtype == torch.float32 and linear.weight.grad is not None and bool(linear.weight.grad.any())


def test_resets_to_a_state(cell: Any) -> None:
    x, resets = torch.randn(2, 3, D), torch.tensor([[False, True, False]] * 2)
    leaves = [torch.randn(2, size).bfloat16() for size in nest.flatten(cell.state_size)]
    half = nest.pack(cell.state_size, leaves)
    whole = nest.pack(cell.state_size, [leaf.float() for leaf in leaves])
    wanted, _ = cw.dynamic_rnn(cell, x, dtype="float32", resets=resets, reset_state=whole)
    with torch.autocast("cpu", torch.float16):
        got, _ = cw.dynamic_rnn(cell, x, dtype="float32", resets=resets, reset_state=half)
    assert_same_bits("outputs", got, wanted)


def test_without_autocast_dtypes_stay(cell: Any) -> None:
    plan = cw.explain(cell, torch.randn(2, 3, D).bfloat16(), dtype="float32")
    assert {row.backend for row in plan.rows} == {"reference"}
