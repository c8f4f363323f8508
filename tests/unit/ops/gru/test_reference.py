"""One GRU step in torch against the published equations, for every form."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cellweave.ops.gru import gru_split_step, gru_step
from cellweave.specs import GRUSpec
from helpers.tolerances import assert_close
from oracles import keras, tf1

B, D, N = 3, 4, 5


def _numbers(shapes: dict[str, tuple[int, ...]], rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {name: rng.uniform(-0.6, 0.6, size=shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("activation", ["tanh", "softsign"])
def test_joined_kernels_against_the_oracle(activation: str, rng: np.random.Generator) -> None:
    oracle = tf1.GRUCell(D, N, activation)
    weights = _numbers(oracle.shapes, rng)
    oracle.set_weights(weights)
    x, h = rng.normal(size=(B, D)), rng.normal(size=(B, N))
    want, _, _ = oracle.forward(x, h)
    got = gru_step(*map(torch.tensor, (x, h, *weights.values())), spec=GRUSpec(N, activation))
    assert_close("h", got, want, 1e-14)


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("reset_after", [True, False])
@pytest.mark.parametrize("gate", ["sigmoid", "relu6"])
def test_separate_kernels_against_the_oracle(
    reset_after: bool, use_bias: bool, gate: str, rng: np.random.Generator
) -> None:
    oracle = keras.GRUCell(D, N, "tanh", gate, reset_after)
    weights = _numbers(oracle.shapes, rng)
    if not use_bias:
        weights["bias"] = np.zeros_like(weights["bias"])
    oracle.set_weights(weights)
    x, h = rng.normal(size=(B, D)), rng.normal(size=(B, N))
    want, _, _ = oracle.forward(x, [h])
    spec = GRUSpec(N, "tanh", gate, reset_after, "urc", False, use_bias)
    bias = torch.tensor(weights["bias"]) if use_bias else None
    kernels = torch.tensor(weights["kernel"]), torch.tensor(weights["recurrent_kernel"])
    got = gru_split_step(torch.tensor(x), torch.tensor(h), *kernels, bias, spec=spec)
    assert_close("h", got, want, 1e-14)


def test_the_update_gate_keeps_the_old_state() -> None:
    n = 2
    bias = torch.tensor([0.0, 0.0, 50.0, 50.0])  # reset half open, update fully on "keep"
    h = torch.tensor([[0.3, -0.7]])
    zeros = torch.zeros(1 + n, 2 * n), bias, torch.zeros(1 + n, n), torch.ones(n)
    assert torch.allclose(gru_step(torch.ones(1, 1), h, *zeros, spec=GRUSpec(n)), h)
