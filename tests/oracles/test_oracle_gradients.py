"""The oracles' hand-written backward steps against finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from helpers.tolerances import FINITE_DIFFERENCE, assert_close
from oracles import keras, tf1
from oracles.activations import ACTIVATIONS
from oracles.composition import DeviceWrapper, DropoutWrapper, MultiRNNCell, ResidualWrapper, Run, flatten, rebuild
from oracles.contrib import LSTMVariant
from oracles.unroll import unroll, unroll_backward

STEP = 1e-6
B, D, N, T = 2, 3, 4, 3

PLAIN = {
    "rnn": lambda: tf1.BasicRNNCell(D, N),
    "rnn-softsign": lambda: tf1.BasicRNNCell(D, N, activation="softsign"),
    "gru": lambda: tf1.GRUCell(D, N),
    "gru-swish": lambda: tf1.GRUCell(D, N, activation="swish"),
    "gru-after": lambda: tf1.CudnnCompatibleGRUCell(D, N),
    "lstm": lambda: tf1.LSTMCell(D, N),
    "lstm-concatenated": lambda: tf1.LSTMCell(D, N, state_is_tuple=False, forget_bias=0.3),
    "lstm-peephole": lambda: tf1.LSTMCell(D, N, use_peepholes=True, activation="softplus"),
    "lstm-clip": lambda: tf1.LSTMCell(D, N, cell_clip=0.4),
    "lstm-projection": lambda: tf1.LSTMCell(D, N, num_proj=2, use_peepholes=True),
    "lstm-everything": lambda: tf1.LSTMCell(D, N, True, 0.5, 3, 0.2, 0.0, False, "elu"),
    "lstm-coupled": lambda: LSTMVariant(D, N, coupled=True, peepholes=True, projection=2, proj_clip=0.3),
    "lstm-normalized": lambda: LSTMVariant(D, N, layer_norm=True, activation="softplus"),
    "lstm-coupled-normalized": lambda: LSTMVariant(D, N, coupled=True, layer_norm=True, peepholes=True, projection=2),
    "lstm-peepholes-ifo": lambda: LSTMVariant(D, N, peepholes=True, peephole_order="ifo", forget_bias=0.3),
    "keras-rnn": lambda: keras.SimpleRNNCell(D, N),
    "keras-gru-before": lambda: keras.GRUCell(D, N, reset_after=False),
    "keras-gru-after": lambda: keras.GRUCell(D, N),
    "keras-lstm": lambda: keras.LSTMCell(D, N),
}


def _state(size: Any, rng: np.random.Generator) -> Any:
    if isinstance(size, tuple | list):
        return rebuild(size, [_state(item, rng) for item in size])
    return rng.normal(size=(B, size))


def _plain_cells(cell: Any) -> list[Any]:
    if isinstance(cell, MultiRNNCell):
        return [leaf for inner in cell.cells for leaf in _plain_cells(inner)]
    return _plain_cells(cell.cell) if hasattr(cell, "cell") else [cell]


def _check(cell: Any, rng: np.random.Generator, make_run: Any = Run) -> None:
    for plain in _plain_cells(cell):
        plain.set_weights({k: rng.normal(size=s) * 0.5 for k, s in plain.shapes.items()})
    x, state = rng.normal(size=(T, B, D)), _state(cell.state_size, rng)
    lengths = [T, 1]
    c_out, c_state = rng.normal(size=(T, B, cell.output_size)), _state(cell.state_size, rng)

    def loss() -> float:
        out, final, _ = unroll(cell, x, state, lengths, make_run())
        pairs = zip(flatten(final), flatten(c_state), strict=True)
        return float((out * c_out).sum() + sum((a * b).sum() for a, b in pairs))

    _, _, caches = unroll(cell, x, state, lengths, make_run())
    d_x, d_state = unroll_backward(cell, x, caches, c_out, c_state)
    checked = [("x", x, d_x)]
    checked += [(f"state {k}", a, g) for k, (a, g) in enumerate(zip(flatten(state), flatten(d_state), strict=True))]
    for number, plain in enumerate(_plain_cells(cell)):
        checked += [(f"cell {number} {k}", plain.weights[k], plain.grads[k]) for k in plain.weights]
    for name, array, gradient in checked:
        numeric = np.zeros_like(array)
        for index in np.ndindex(array.shape):
            kept = array[index]
            array[index] = kept + STEP
            above = loss()
            array[index] = kept - STEP
            numeric[index] = (above - loss()) / (2 * STEP)
            array[index] = kept
        assert_close(name, gradient, numeric, FINITE_DIFFERENCE)


@pytest.mark.parametrize("name", PLAIN)
def test_cells(name: str, rng: np.random.Generator) -> None:
    _check(PLAIN[name](), rng)


def test_layers_and_residuals(rng: np.random.Generator) -> None:
    lstm, gru = tf1.LSTMCell(D, D), tf1.GRUCell(D, N)
    _check(MultiRNNCell([ResidualWrapper(lstm, "gate"), DeviceWrapper(gru)]), rng)


def test_layers_of_concatenated_states(rng: np.random.Generator) -> None:
    gru, rnn = tf1.GRUCell(D, N), tf1.BasicRNNCell(N, N)
    _check(MultiRNNCell([gru, ResidualWrapper(rnn, "out_minus_in")], state_is_tuple=False), rng)


@pytest.mark.parametrize("variational", [False, True], ids=["per-step", "variational"])
def test_dropout(variational: bool, rng: np.random.Generator) -> None:
    keep = {"input": 0.7, "state": 0.6, "output": 0.8}
    cell = DropoutWrapper(
        MultiRNNCell([tf1.LSTMCell(D, N), tf1.GRUCell(N, N)]), keep, 5, None, "float64", variational, D
    )

    def fresh_run() -> Run:
        cell.blocks.clear()  # the same masks every time
        return Run()

    _check(cell, rng, fresh_run)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name: str) -> None:
    x = np.linspace(-3.05, 7.05, 102)  # no kink on the grid
    function = ACTIVATIONS[name]
    numeric = (function.value(x + STEP) - function.value(x - STEP)) / (2 * STEP)
    assert_close(name, function.slope(x), numeric, FINITE_DIFFERENCE)


def test_clip_passes_gradient_on_its_bound() -> None:
    cell = tf1.LSTMCell(1, 1, cell_clip=0.5, num_proj=1, proj_clip=0.25)
    cell.set_weights({"kernel": np.zeros((2, 4)), "bias": np.zeros(4), "projection/kernel": np.zeros((1, 1))})
    cell.weights["bias"][:] = [0.0, 0.0, 1e3 - 1.0, 1e3]  # f = o = 1 exactly: c' is c, on the bound
    cell.weights["projection/kernel"][:] = 0.25 / np.tanh(0.5)
    one = np.ones((1, 1))
    _, new, cache = cell.forward(one, tf1.LSTMState(0.5 * one, 0 * one))
    assert new.c == 0.5 and new.h == 0.25
    _, d_old = cell.backward(cache, one, tf1.LSTMState(one, 0 * one))
    assert d_old.c > 1.0  # through c' itself and through h'
