"""The Keras-style cells: forms of states, biases, starting values. Numbers: tests/numerics/test_keras_cells.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import cellweave as cw
from cellweave import keras
from helpers.tolerances import assert_close
from helpers.woven import assert_same_run, both_ways
from oracles import keras as oracles

B, D, N = 3, 4, 5
X = torch.linspace(-1.0, 1.0, B * D, dtype=torch.float64).reshape(B, D)
H = torch.linspace(-0.5, 0.5, B * N, dtype=torch.float64).reshape(B, N)
SINGLE = [keras.SimpleRNNCell, keras.GRUCell]
EVERY = [*SINGLE, keras.LSTMCell]


def _state(cell: Any) -> Any:
    return [H, -H] if isinstance(cell, keras.LSTMCell) else H


def _built(kind: Any, rng: np.random.Generator, **options: Any) -> Any:
    cell = kind(N, dtype="float64", **options)
    cell.build([B, D])
    cell.set_weights([rng.uniform(-0.7, 0.7, size=w.shape) for w in cell.weights])
    return cell


@pytest.mark.parametrize("kind", SINGLE)
def test_a_state_comes_back_as_it_came(kind: Any, rng: np.random.Generator) -> None:
    cell = _built(kind, rng)
    bare, bare_state = cell(X, H)
    listed, listed_state = cell(X, [H])
    assert isinstance(bare_state, torch.Tensor) and torch.equal(bare_state, bare)
    assert isinstance(listed_state, list) and len(listed_state) == 1 and torch.equal(listed_state[0], bare)
    assert torch.equal(bare, listed)
    with pytest.raises(cw.ShapeError, match=f"{kind.__name__}: expected states as .h. or h, got 2"):
        cell(X, [H, H])


def test_an_lstm_takes_h_before_c(rng: np.random.Generator) -> None:
    cell = _built(keras.LSTMCell, rng)
    oracle = oracles.LSTMCell(D, N)
    oracle.set_weights(dict(zip(oracle.shapes, cell.get_weights(), strict=True)))
    want, (want_h, want_c), _ = oracle.forward(X.numpy(), [H.numpy(), -H.numpy()])
    out, state = cell(X, [H, -H])
    assert isinstance(state, list)
    for what, a, b in (("out", out, want), ("h", state[0], want_h), ("c", state[1], want_c)):
        assert_close(what, a, b, 1e-13)


def test_sizes_and_initial_states() -> None:
    assert keras.SimpleRNNCell(N).state_size == keras.GRUCell(N).state_size == N
    assert keras.LSTMCell(N).state_size == [N, N]
    for kind in EVERY:
        assert kind(N).output_size == N
        assert not hasattr(kind(N), "zero_state")
    assert keras.GRUCell(N).get_initial_state(X).shape == (B, N)
    zeros = keras.LSTMCell(N).get_initial_state(batch_size=2, dtype="float64")
    assert isinstance(zeros, list) and [z.shape for z in zeros] == [(2, N)] * 2 and zeros[0].dtype == torch.float64
    with pytest.raises(cw.ArgumentError, match="batch_size"):
        keras.GRUCell(N).get_initial_state(dtype="float32")


@pytest.mark.parametrize("reset_after", [True, False])
def test_gru_forms(reset_after: bool, rng: np.random.Generator) -> None:
    cell = _built(keras.GRUCell, rng, reset_after=reset_after)
    assert cell.bias.shape == ((2, 3 * N) if reset_after else (3 * N,))
    oracle = oracles.GRUCell(D, N, reset_after=reset_after)
    oracle.set_weights(dict(zip(oracle.shapes, cell.get_weights(), strict=True)))
    assert_close("h", cell(X, H)[0], oracle.forward(X.numpy(), [H.numpy()])[0], 1e-13)


@pytest.mark.parametrize("kind", EVERY)
def test_without_bias(kind: Any, rng: np.random.Generator) -> None:
    cell = _built(kind, rng, use_bias=False)
    assert [n for n, _ in cell.named_parameters()] == ["kernel", "recurrent_kernel"]
    other = kind(
        N, dtype="float64", bias_initializer="zeros", **({"unit_forget_bias": False} if kind is keras.LSTMCell else {})
    )
    other.build([B, D])
    other.set_weights([*cell.get_weights(), np.zeros(other.weights[2].shape)])
    assert torch.allclose(cell(X, _state(cell))[0], other(X, _state(other))[0], rtol=0, atol=1e-15)


@pytest.mark.parametrize("kind", EVERY)
def test_activations(kind: Any, rng: np.random.Generator) -> None:
    """None is linear, unlike TF1's cells."""
    base = _built(kind, rng)
    weights = base.get_weights()
    names = ["activation"] if kind is keras.SimpleRNNCell else ["activation", "recurrent_activation"]
    for name in names:
        results = []
        for value in (None, "linear", "relu", torch.relu):
            cell = kind(N, dtype="float64", **{name: value})
            cell.build([B, D])
            cell.set_weights(weights)
            results.append(cell(X, _state(cell))[0])
            assert not torch.allclose(results[-1], base(X, _state(base))[0])
        assert torch.equal(results[0], results[1]) and torch.equal(results[2], results[3])
        assert not torch.equal(results[0], results[2])


def test_unit_forget_bias() -> None:
    ones, without = keras.LSTMCell(N), keras.LSTMCell(N, unit_forget_bias=False)
    mixed = keras.LSTMCell(N, bias_initializer=cw.initializers.Constant(0.5))
    for cell in (ones, without, mixed):
        cell.build([B, D])
    expected = torch.zeros(4, N)
    assert torch.equal(without.bias.reshape(4, N), expected)
    expected[1] = 1.0  # i, f, c, o
    assert torch.equal(ones.bias.reshape(4, N), expected)
    assert torch.equal(mixed.bias.reshape(4, N), torch.tensor([0.5, 1.0, 0.5, 0.5])[:, None].expand(4, N))


@pytest.mark.parametrize("kind", EVERY)
def test_starting_values(kind: Any) -> None:
    cell = kind(16)
    cell.build([None, 40])
    square = cell.recurrent_kernel @ cell.recurrent_kernel.T  # rows are orthonormal
    assert torch.allclose(square, torch.eye(16), atol=1e-5)
    limit = (6.0 / (40 + cell.kernel.shape[1])) ** 0.5
    assert 0.9 * limit < cell.kernel.abs().max() <= limit
    given = kind(2, kernel_initializer="ones", recurrent_initializer="zeros", bias_initializer="ones")
    given.build([None, 3])
    assert (given.kernel == 1).all() and (given.recurrent_kernel == 0).all() and (given.bias == 1).all()


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("part", ["kernel", "recurrent", "bias"])
def test_regularizers(kind: Any, part: str) -> None:
    cell = kind(N, **{f"{part}_regularizer": lambda weight: 3.0 * weight.abs().sum()})
    cell.build([B, D])
    weight = cell.recurrent_kernel if part == "recurrent" else getattr(cell, part)
    with torch.no_grad():
        weight.fill_(0.5)
    (loss,) = cell.losses
    assert loss.item() == pytest.approx(1.5 * weight.numel())
    loss.backward()
    assert (weight.grad == 3.0).all()


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("part", ["kernel", "recurrent", "bias"])
def test_constraints(kind: Any, part: str) -> None:
    cell = kind(N, **{f"{part}_constraint": lambda weight: weight.clamp(min=2.0)})
    cell.build([B, D])
    cw.apply_constraints(cell)
    for name, weight in cell.named_parameters():
        assert (weight >= 2.0).all() == (name.startswith(part)), name


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("name", ["dropout", "recurrent_dropout"])
def test_dropout_is_the_wrappers_work(kind: Any, name: str) -> None:
    with pytest.raises(cw.ArgumentError, match=f"{kind.__name__}: expected {name}=0, got 0.5.*RNNCellDropoutWrapper"):
        kind(N, **{name: 0.5})
    assert kind(N, **{name: 0.0}).get_config()[name] == 0.0


def test_unknown_keyword() -> None:
    for kind in EVERY:
        with pytest.raises(cw.ArgumentTypeError, match=f"{kind.__name__}.*'num_units'"):
            kind(N, num_units=3)


@pytest.mark.parametrize("kind", EVERY)
def test_configs_keep_options(kind: Any, rng: np.random.Generator) -> None:
    options: dict[str, Any] = {"activation": "relu", "use_bias": False, "kernel_initializer": "ones", "name": "foo"}
    if kind is keras.GRUCell:
        options |= {"reset_after": False, "recurrent_activation": "softsign", "implementation": 1}
    if kind is keras.LSTMCell:
        options |= {"unit_forget_bias": False, "recurrent_activation": "softsign", "implementation": 1}
    cell = _built(kind, rng, **options)
    other = kind.from_config(cell.get_config())
    assert other.get_config() == cell.get_config()
    other.build([B, D])
    assert (other.kernel == 1).all()
    other.set_weights(cell.get_weights())
    assert torch.equal(other(X, _state(other))[0], cell(X, _state(cell))[0])


@both_ways
def test_in_an_unroll(rng: np.random.Generator, backend: str | None) -> None:
    cell = _built(keras.LSTMCell, rng)
    xs = torch.stack([X, 2 * X, -X], dim=1)
    with cw.use_backend(backend):
        out, state = cw.dynamic_rnn(cell, xs, initial_state=[H, -H])
    hand = [H, -H]
    for t in range(3):
        step, hand = cell(xs[:, t], hand)
        assert_same_run(backend, out[:, t], step)
    assert isinstance(state, list)
    assert_same_run(backend, state, hand)
    with pytest.raises(cw.ArgumentTypeError, match="initial_state"):
        cw.dynamic_rnn(cell, xs, initial_state=(H, H))
