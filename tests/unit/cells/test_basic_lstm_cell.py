"""BasicLSTMCell."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import cellweave as cw
from helpers.tolerances import assert_close
from oracles import tf1

B, D, N = 3, 4, 5


def _pair(rng: np.random.Generator, **options: object) -> tuple[cw.BasicLSTMCell, tf1.LSTMCell]:
    oracle = tf1.LSTMCell(D, N, **options)
    oracle.set_weights({k: rng.uniform(-0.8, 0.8, size=shape) for k, shape in oracle.shapes.items()})
    cell = cw.BasicLSTMCell(N, dtype="float64", **options)
    cell.build([B, D])
    cell.set_weights(list(oracle.weights.values()))
    return cell, oracle


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"forget_bias": 0.0},
        {"forget_bias": -2.5},
        {"activation": "relu"},
        {"forget_bias": 0.3, "activation": "elu"},
    ],
    ids=str,
)
def test_against_the_oracle(options: dict[str, object], rng: np.random.Generator) -> None:
    cell, oracle = _pair(rng, **options)
    x, c, h = rng.normal(size=(B, D)), rng.normal(size=(B, N)), rng.normal(size=(B, N))
    want, (want_c, want_h), _ = oracle.forward(x, tf1.LSTMState(c, h))
    out, state = cell(*map(torch.tensor, (x,)), cw.LSTMStateTuple(torch.tensor(c), torch.tensor(h)))
    assert type(state) is cw.LSTMStateTuple
    assert_close("c", state.c, want_c, 1e-13)
    assert_close("h", state.h, want_h, 1e-13)
    assert_close("output", out, want, 1e-13)


def test_forget_bias_is_not_stored(rng: np.random.Generator) -> None:
    cell = cw.BasicLSTMCell(N, forget_bias=5.0)
    cell.build([B, D])
    assert (cell.bias == 0).all()
    assert cw.BasicLSTMCell(N).get_config()["forget_bias"] == 1.0


def test_one_tensor_as_state(rng: np.random.Generator) -> None:
    """c in the first columns, h in the last; the numbers are those of the pair."""
    pair, _oracle = _pair(rng)
    joined = cw.BasicLSTMCell(N, state_is_tuple=False, dtype="float64")
    joined.build([B, D])
    joined.set_weights(pair.get_weights())
    x, c, h = (torch.tensor(rng.normal(size=(B, k))) for k in (D, N, N))
    out, state = joined(x, torch.cat([c, h], dim=1))
    want, want_state = pair(x, (c, h))
    assert joined.state_size == 2 * N and joined.output_size == N and state.shape == (B, 2 * N)
    assert torch.equal(out, want) and torch.equal(state, torch.cat(list(want_state), dim=1))


@pytest.mark.parametrize("state", ["list", "tuple", "namedtuple"])
def test_any_pair_is_a_state(state: str, rng: np.random.Generator) -> None:
    cell, _ = _pair(rng)
    x, c, h = (torch.tensor(rng.normal(size=(B, k))) for k in (D, N, N))
    forms = {"list": [c, h], "tuple": (c, h), "namedtuple": cw.LSTMStateTuple(c, h)}
    out, new = cell(x, forms[state])
    assert torch.equal(out, cell(x, (c, h))[0]) and type(new) is cw.LSTMStateTuple


def test_states_of_other_forms() -> None:
    cell = cw.BasicLSTMCell(N)
    x, h = torch.zeros(B, D), torch.zeros(B, N)
    with pytest.raises(cw.ArgumentTypeError, match="BasicLSTMCell: expected state as a pair"):
        cell(x, h)
    with pytest.raises(cw.ShapeError, match="BasicLSTMCell: expected state as a pair.*3"):
        cell(x, (h, h, h))
    with pytest.raises(cw.ShapeError, match=r"expected state \[B, 10\]"):
        cw.BasicLSTMCell(N, state_is_tuple=False)(x, (h, h))


def test_sizes() -> None:
    size = cw.BasicLSTMCell(N).state_size
    assert size == (N, N) and type(size) is cw.LSTMStateTuple and cw.BasicLSTMCell(N).output_size == N


def test_config_keys() -> None:
    own = ["num_units", "forget_bias", "state_is_tuple", "activation", "reuse"]
    assert list(cw.BasicLSTMCell(N).get_config()) == ["name", "trainable", "dtype", *own]
    config = cw.BasicLSTMCell(N, 0.5, False, "relu", None, "foo", "float64").get_config()
    assert config == {
        "name": "foo", "trainable": True, "dtype": "float64", "num_units": N, "forget_bias": 0.5,
        "state_is_tuple": False, "activation": "relu", "reuse": None,
    }  # fmt: skip
