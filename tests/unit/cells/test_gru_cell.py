"""GRUCell."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import cellweave as cw
from helpers.tolerances import assert_close
from oracles import tf1

B, D, N = 3, 4, 5


def _pair(activation: object, name: str, rng: np.random.Generator) -> tuple[cw.GRUCell, tf1.GRUCell]:
    oracle = tf1.GRUCell(D, N, name)
    oracle.set_weights({k: rng.uniform(-0.8, 0.8, size=shape) for k, shape in oracle.shapes.items()})
    cell = cw.GRUCell(N, activation, dtype="float64")
    cell.build([B, D])
    cell.set_weights(list(oracle.weights.values()))
    return cell, oracle


@pytest.mark.parametrize(
    "activation, name", [(None, "tanh"), ("relu", "relu"), (torch.nn.functional.softsign, "softsign")]
)
def test_against_the_oracle(activation: object, name: str, rng: np.random.Generator) -> None:
    cell, oracle = _pair(activation, name, rng)
    x, h = rng.normal(size=(B, D)), rng.normal(size=(B, N))
    out, state = cell(torch.tensor(x), torch.tensor(h))
    assert_close("output", out, oracle.forward(x, h)[0], 1e-13)
    assert torch.equal(out, state)


def test_the_activation_is_the_candidates_alone(rng: np.random.Generator) -> None:
    """With a linear candidate the gates are still squashed."""
    cell, _ = _pair("linear", "identity", rng)
    with torch.no_grad():
        cell.gates_bias.fill_(40.0)
    h = torch.tensor(rng.normal(size=(B, N)))
    assert_close("kept", cell(torch.zeros(B, D, dtype=torch.float64), h)[0], h, 1e-12)


def test_kernel_initializer_is_for_both_kernels() -> None:
    cell = cw.GRUCell(N, kernel_initializer=cw.initializers.Constant(0.25))
    cell.build([B, D])
    assert (cell.gates_kernel == 0.25).all() and (cell.candidate_kernel == 0.25).all()
    assert (cell.gates_bias == 1).all() and (cell.candidate_bias == 0).all()


def test_bias_initializer_replaces_both_biases() -> None:
    cell = cw.GRUCell(N, bias_initializer=cw.initializers.Constant(0.75))
    cell.build([B, D])
    assert (cell.gates_bias == 0.75).all() and (cell.candidate_bias == 0.75).all()
    assert cell.gates_kernel.std() > 0


def test_initializers_by_name_and_function() -> None:
    cell = cw.GRUCell(N, kernel_initializer="ones", bias_initializer=torch.nn.init.zeros_)
    cell.build([B, D])
    assert (cell.gates_kernel == 1).all() and (cell.gates_bias == 0).all()
    with pytest.raises(cw.ArgumentError, match="GRUCell.*'onse'"):
        cw.GRUCell(N, kernel_initializer="onse")


def test_sizes() -> None:
    assert cw.GRUCell(N).state_size == cw.GRUCell(N).output_size == N


def test_config_keys() -> None:
    own = ["num_units", "kernel_initializer", "bias_initializer", "activation", "reuse"]
    assert list(cw.GRUCell(N).get_config()) == ["name", "trainable", "dtype", *own]


def test_config_keeps_initializers() -> None:
    cell = cw.GRUCell(N, kernel_initializer=cw.initializers.RandomUniform(-1, 1, seed=3), bias_initializer="ones")
    other = cw.GRUCell.from_config(cell.get_config())
    cell.build([B, D])
    other.build([B, D])
    assert all(torch.equal(a, b) for a, b in zip(cell.weights, other.weights, strict=True))


def test_positions_of_the_arguments() -> None:
    cell = cw.GRUCell(N, "relu", None, "ones", "zeros", "foo", "float64")
    cell.build([B, D])
    assert (cell.name, cell.dtype) == ("foo", "float64") and cell.get_config()["activation"] == "relu"
    assert (cell.gates_kernel == 1).all() and (cell.gates_bias == 0).all()
