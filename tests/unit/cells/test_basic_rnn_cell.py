"""BasicRNNCell."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import cellweave as cw
from helpers.ids import named
from helpers.tolerances import assert_close
from oracles.activations import ACTIVATIONS

B, D, N = 3, 4, 5


@pytest.fixture
def arrays(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    return rng.normal(size=(B, D)), rng.normal(size=(B, N)), rng.normal(size=(D + N, N)), rng.normal(size=N)


@pytest.mark.parametrize(
    "activation, name",
    [(None, "tanh"), ("", "tanh"), ("relu", "relu"), (torch.sigmoid, "sigmoid"), (torch.nn.ReLU6(), "relu6")],
    ids=named,
)
def test_activation(activation: object, name: str, arrays: tuple[np.ndarray, ...]) -> None:
    x, h, kernel, bias = arrays
    cell = cw.BasicRNNCell(N, activation, dtype="float64")
    cell.build([B, D])
    cell.set_weights([kernel, bias])
    out, state = cell(torch.tensor(x), torch.tensor(h))
    assert_close("output", out, ACTIVATIONS[name].value(np.hstack([x, h]) @ kernel + bias), 1e-13)
    assert state is out or torch.equal(state, out)
    assert cell.get_config()["activation"] == name


def test_own_activation(arrays: tuple[np.ndarray, ...]) -> None:
    x, h, kernel, bias = arrays
    cell = cw.BasicRNNCell(N, lambda z: z * z, dtype="float64")
    cell.build([B, D])
    cell.set_weights([kernel, bias])
    assert_close("output", cell(torch.tensor(x), torch.tensor(h))[0], (np.hstack([x, h]) @ kernel + bias) ** 2, 1e-12)


def test_sizes() -> None:
    assert cw.BasicRNNCell(N).state_size == cw.BasicRNNCell(N).output_size == N


def test_config_keys() -> None:
    keys = ["name", "trainable", "dtype", "num_units", "activation", "reuse"]
    assert list(cw.BasicRNNCell(N).get_config()) == keys
    config = cw.BasicRNNCell(7, "relu", cw.AUTO_REUSE).get_config()
    assert (config["num_units"], config["activation"], config["reuse"]) == (7, "relu", cw.AUTO_REUSE)


def test_positions_of_the_arguments() -> None:
    cell = cw.BasicRNNCell(N, "relu", None, "foo", "float64")
    config = cell.get_config()
    assert (config["activation"], config["name"], config["dtype"]) == ("relu", "foo", "float64")
