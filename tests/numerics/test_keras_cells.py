"""The Keras-style cells, stepped by hand, against the NumPy oracles."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from cellweave import keras
from helpers.tolerances import REFERENCE_GRADIENT, REFERENCE_VALUE, assert_close
from oracles import keras as oracles
from oracles.unroll import unroll, unroll_backward

CASES = {
    "simple": ("SimpleRNNCell", {}),
    "simple-relu": ("SimpleRNNCell", {"activation": "relu"}),
    "gru-after": ("GRUCell", {}),
    "gru-before": ("GRUCell", {"reset_after": False}),
    "gru-gates": ("GRUCell", {"activation": "softsign", "recurrent_activation": "tanh"}),
    "lstm": ("LSTMCell", {}),
    "lstm-gates": ("LSTMCell", {"activation": "elu", "recurrent_activation": "softsign"}),
}
B, D = 3, 5


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("units", [1, 8, 65])
@pytest.mark.parametrize("name", CASES)
def test_steps_against_the_oracle(name: str, units: int, dtype: str, rng: np.random.Generator) -> None:
    kind, options = CASES[name]
    T = 4

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32).astype(np.float64)

    oracle = getattr(oracles, kind)(D, units, **options)
    weights = {k: normal(*s) / np.sqrt(s[-2] if len(s) > 1 else 4.0) for k, s in oracle.shapes.items()}
    weights = {k: w.astype(np.float32).astype(np.float64) for k, w in weights.items()}
    oracle.set_weights(weights)
    x, state = normal(T, B, D), [normal(B, units) for _ in oracle.state_size]
    d_out, d_state = normal(T, B, units), [normal(B, units) for _ in state]
    out, final, caches = unroll(oracle, x, state)
    d_x, d_first = unroll_backward(oracle, x, caches, d_out, d_state)

    real = getattr(torch, dtype)
    cell: Any = getattr(keras, kind)(units, dtype=dtype, **options)
    cell.build([B, D])
    cell.set_weights([w.astype(dtype) for w in weights.values()])
    inputs = torch.tensor(x, dtype=real).requires_grad_()
    leaves = [torch.tensor(s, dtype=real).requires_grad_() for s in state]
    loss, now, outputs = torch.zeros((), dtype=real), list(leaves), []
    for t in range(T):
        value, now = cell(inputs[t], now)
        assert isinstance(now, list) and torch.equal(now[0], value)
        outputs.append(value)
        loss = loss + (value * torch.tensor(d_out[t], dtype=real)).sum()
    loss = loss + sum((a * torch.tensor(b, dtype=real)).sum() for a, b in zip(now, d_state, strict=True))
    grads = torch.autograd.grad(loss, [inputs, *leaves, *cell.weights])
    assert_close("out", torch.stack(outputs), out, REFERENCE_VALUE[dtype])
    for k, (a, b) in enumerate(zip(now, final, strict=True)):
        assert_close(f"final {k}", a, b, REFERENCE_VALUE[dtype])
    wanted = [d_x, *d_first, *oracle.grads.values()]
    for label, a, b in zip(["x", *"hc"[: len(leaves)], *weights], grads, wanted, strict=True):
        assert_close(f"d {label}", a, b, REFERENCE_GRADIENT[dtype])
