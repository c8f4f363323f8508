"""One LSTM step in torch against the published equations, for every option."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from cellweave.ops.lstm import lstm_step
from cellweave.specs import LSTMSpec
from helpers.tolerances import assert_close
from oracles import keras, tf1

B, D, N = 3, 4, 5


def _numbers(shapes: dict[str, tuple[int, ...]], rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {name: rng.uniform(-0.6, 0.6, size=shape) for name, shape in shapes.items()}


def _torch(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value) for name, value in arrays.items()}


OPTIONS = [
    {"peepholes": p, "cell_clip": clip, "projection": proj, "proj_clip": pclip, "forget_bias": fb, "activation": act}
    for p, clip, (proj, pclip), fb, act in itertools.product(
        (False, True), (None, 0.2), ((None, None), (2, None), (2, 0.1)), (0.0, 1.3), ("tanh", "relu")
    )
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(f"{v}" for v in o.values()))
def test_every_option_against_the_oracle(options: dict[str, Any], rng: np.random.Generator) -> None:
    oracle = tf1.LSTMCell(
        D, N, options["peepholes"], options["cell_clip"], options["projection"], options["proj_clip"],
        options["forget_bias"], activation=options["activation"],
    )  # fmt: skip
    weights = _numbers(oracle.shapes, rng)
    oracle.set_weights(weights)
    m = options["projection"] or N
    x, c, h = rng.normal(size=(B, D)), rng.normal(size=(B, N)), rng.normal(size=(B, m))
    _, (want_c, want_h), _ = oracle.forward(x, tf1.LSTMState(c, h))
    new_c, new_h = lstm_step(*map(torch.tensor, (x, c, h)), _torch(weights), spec=LSTMSpec(N, **options))
    assert_close("c", new_c, want_c, 1e-14)
    assert_close("h", new_h, want_h, 1e-14)


@pytest.mark.parametrize("use_bias", [True, False])
def test_separate_kernels_in_keras_order(use_bias: bool, rng: np.random.Generator) -> None:
    oracle = keras.LSTMCell(D, N, recurrent_activation="relu")
    weights = _numbers(oracle.shapes, rng)
    if not use_bias:
        weights["bias"] = np.zeros(4 * N)
    oracle.set_weights(weights)
    x, c, h = rng.normal(size=(B, D)), rng.normal(size=(B, N)), rng.normal(size=(B, N))
    _, (want_h, want_c), _ = oracle.forward(x, [h, c])
    given = _torch(weights)
    if not use_bias:
        del given["bias"]
    spec = LSTMSpec(N, recurrent_activation="relu", gate_order="ifjo", joined_kernel=False, use_bias=use_bias)
    new_c, new_h = lstm_step(*map(torch.tensor, (x, c, h)), given, spec=spec)
    assert_close("c", new_c, want_c, 1e-14)
    assert_close("h", new_h, want_h, 1e-14)


def test_inputs_are_left_alone(rng: np.random.Generator) -> None:
    weights = _torch(_numbers(tf1.LSTMCell(D, N).shapes, rng))
    given = [torch.randn(B, D), torch.randn(B, N), torch.randn(B, N)]
    kept = [t.clone() for t in given]
    lstm_step(*given, {k: v.float() for k, v in weights.items()}, spec=LSTMSpec(N, cell_clip=0.1))
    assert all(torch.equal(a, b) for a, b in zip(given, kept, strict=True))
