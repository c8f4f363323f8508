"""One step of the plain recurrence in torch against the published equation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cellweave.ops.rnn import rnn_step
from cellweave.specs import RNNSpec
from helpers.tolerances import assert_close
from oracles.activations import ACTIVATIONS

B, D, N = 3, 4, 5


@pytest.mark.parametrize("activation", ["tanh", "relu", "sigmoid"])
@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("joined", [True, False])
def test_against_the_equation(joined: bool, use_bias: bool, activation: str, rng: np.random.Generator) -> None:
    x, h = rng.normal(size=(B, D)), rng.normal(size=(B, N))
    w, r, b = rng.normal(size=(D, N)), rng.normal(size=(N, N)), rng.normal(size=N) * use_bias
    want = ACTIVATIONS[activation].value(x @ w + h @ r + b)
    kernels = (np.vstack([w, r]), None) if joined else (w, r)
    kernel, recurrent = (None if k is None else torch.tensor(k) for k in kernels)
    bias = torch.tensor(b) if use_bias else None
    spec = RNNSpec(N, activation, joined, use_bias)
    got = rnn_step(torch.tensor(x), torch.tensor(h), kernel, recurrent, bias, spec=spec)
    assert_close("h", got, want, 1e-13)
