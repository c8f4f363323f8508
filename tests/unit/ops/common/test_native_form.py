"""What native calls of one layer share: never a number or an address of an earlier call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import cellweave as cw
from cellweave import keras
from cellweave.ops import rnn
from cellweave.ops.common import LayerCall, _native_form
from cellweave.ops.common._library import missing_reason
from cellweave.specs import RNNSpec, RunSpec
from helpers.tolerances import assert_close

pytestmark = pytest.mark.skipif(missing_reason() is not None, reason=str(missing_reason()))

T, B, I, H = 5, 3, 4, 6
CELLS: dict[str, Callable[[], Any]] = {
    "rnn": lambda: cw.BasicRNNCell(H),
    "gru": lambda: cw.GRUCell(H),
    "gru-after": lambda: keras.GRUCell(H),
    "lstm": lambda: cw.LSTMCell(H, use_peepholes=True, num_proj=2, proj_clip=0.3, cell_clip=0.2),
    "norm": lambda: cw.contrib.LayerNormBasicLSTMCell(H),
}


def run(cell: Any, x: torch.Tensor, **options: Any) -> list[torch.Tensor]:
    x = x.clone().requires_grad_()
    outputs, state = cw.dynamic_rnn(cell, x, dtype=x.dtype, time_major=True, **options)
    leaves = list(state) if isinstance(state, tuple) else [state]
    total = outputs.square().sum() + sum(leaf.sum() for leaf in leaves)
    with torch.no_grad():
        bare = cw.dynamic_rnn(cell, x, dtype=x.dtype, time_major=True, **options)[0]
    return [bare, outputs, *leaves, *torch.autograd.grad(total, [x, *cell.parameters()])]


def check(what: str, cell: Any, x: torch.Tensor, **options: Any) -> None:
    found = run(cell, x, **options)
    with cw.use_backend("reference"):
        wanted = run(cell, x, **options)
    for number, (a, b) in enumerate(zip(found, wanted, strict=True)):
        assert_close(f"{what} {number}", a, b, 1e-5)


@pytest.mark.parametrize("name", CELLS)
def test_weights_that_move_or_change(name: str) -> None:
    cell = CELLS[name]()
    x = torch.randn(T, B, I)
    check("first", cell, x)
    for parameter in cell.parameters():
        parameter.data = torch.randn(parameter.shape) * 0.3
    check("moved", cell, x)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.mul_(-0.5)
    check("changed", cell, x)


@pytest.mark.parametrize("name", CELLS)
def test_sizes_and_options_take_turns(name: str) -> None:
    cell = CELLS[name]()
    lengths, resets = torch.tensor([5, 0, 2]), torch.rand(T, B) < 0.4
    for turn in range(2):
        for steps, rows in ((T, B), (T - 2, B), (1, B), (T, 1)):
            check(f"{turn} {steps} {rows}", cell, torch.randn(steps, rows, I))
        check(f"{turn} lengths", cell, torch.randn(T, B, I), sequence_length=lengths)
        check(f"{turn} resets", cell, torch.randn(T, B, I), resets=resets)
        check(f"{turn} both", cell, torch.randn(T, B, I), sequence_length=lengths, resets=resets)


def test_two_modules_of_one_kind_take_turns() -> None:
    x = torch.randn(T, B, I)
    modules = [cw.nn.LSTM(I, H) for _ in range(2)]
    rivals = [nn.LSTM(I, H) for _ in range(2)]
    for module, rival in zip(modules, rivals, strict=True):
        rival.load_state_dict(module.state_dict())
    for _ in range(2):
        for module, rival in zip(modules, rivals, strict=True):
            assert_close("outputs", module(x)[0], rival(x)[0], 1e-5)


def test_forms_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_native_form, "_MOST_FORMS", 2)
    cell = cw.GRUCell(H)
    for steps in (1, 2, 3, 4, 1, 2):
        check(f"{steps}", cell, torch.randn(steps, B, I))


def test_lengths_and_resets_make_other_forms() -> None:
    """Also where the same spec and memo come with other tensors: outputs recur without them only."""
    native = next(backend for backend in rnn.BACKENDS if backend.name == "native")
    spec, memo = RunSpec(RNNSpec(H)), dict[str, Any]()
    weights = {"kernel": torch.randn(I + H, H), "bias": torch.randn(H)}
    x, state = torch.randn(T, B, I), (torch.randn(B, H),)
    lengths, resets = torch.tensor([5, 0, 2], dtype=torch.int32), torch.rand(T, B) < 0.4
    for given in ({}, {"lengths": lengths}, {"resets": resets}, {}):
        expected = native.run(LayerCall(spec, x, state, weights, **given))
        found = native.run(LayerCall(spec, x, state, weights, **given, memo=memo))
        assert_close("outputs", found.outputs, expected.outputs, 0.0)
        assert_close("state", found.state[0], expected.state[0], 0.0)
