"""LSTMCell: each of its options does what it says; clips have a file of their own."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

import cellweave as cw
from helpers.tolerances import assert_close
from oracles import tf1

B, D, N, P = 3, 4, 5, 2


def _pair(rng: np.random.Generator, **options: Any) -> tuple[cw.LSTMCell, tf1.LSTMCell]:
    oracle = tf1.LSTMCell(D, N, **options)
    oracle.set_weights({k: rng.uniform(-0.8, 0.8, size=shape) for k, shape in oracle.shapes.items()})
    cell = cw.LSTMCell(N, dtype="float64", **options)
    cell.build([B, D])
    cell.set_weights(list(oracle.weights.values()))
    return cell, oracle


def _given(rng: np.random.Generator, m: int = N) -> tuple[torch.Tensor, ...]:
    return tuple(torch.tensor(rng.normal(size=(B, k))) for k in (D, N, m))


OPTIONS = [
    {"use_peepholes": p, "num_proj": proj, "forget_bias": fb, "activation": act, "state_is_tuple": tup}
    for p, proj, fb, act, tup in itertools.product(
        (False, True), (None, P), (1.0, -0.4), ("tanh", "relu"), (True, False)
    )
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(f"{v}" for v in o.values()))
def test_against_the_oracle(options: dict[str, Any], rng: np.random.Generator) -> None:
    cell, oracle = _pair(rng, **options)
    m = options["num_proj"] or N
    x, c, h = _given(rng, m)
    state = cw.LSTMStateTuple(c, h) if options["state_is_tuple"] else torch.cat([c, h], dim=1)
    given = tf1.LSTMState(c.numpy(), h.numpy()) if options["state_is_tuple"] else np.hstack([c, h])
    want, want_state, _ = oracle.forward(x.numpy(), given)
    out, new = cell(x, state)
    assert_close("output", out, want, 1e-13)
    if options["state_is_tuple"]:
        assert type(new) is cw.LSTMStateTuple
        assert_close("c", new.c, want_state.c, 1e-13)
        assert_close("h", new.h, want_state.h, 1e-13)
    else:
        assert_close("state", new, want_state, 1e-13)


def test_peepholes_do_something_each(rng: np.random.Generator) -> None:
    cell, _ = _pair(rng, use_peepholes=True)
    x, c, h = _given(rng)
    before = cell(x, (c, h))[0]
    for name in ("w_f_diag", "w_i_diag", "w_o_diag"):
        weight = getattr(cell, name)
        with torch.no_grad():
            weight.add_(0.5)
        assert not torch.allclose(cell(x, (c, h))[0], before)
        with torch.no_grad():
            weight.sub_(0.5)


def test_the_output_gate_sees_the_new_clipped_c(rng: np.random.Generator) -> None:
    cell = cw.LSTMCell(1, use_peepholes=True, cell_clip=2.0, forget_bias=0.0, dtype="float64")
    cell.build([1, 1])
    with torch.no_grad():
        for weight in cell.weights:
            weight.zero_()
        cell.bias[2] = 40.0  # forget gate open: c' = c + sigmoid(0) * tanh(0) = c, then clipped
        cell.w_o_diag.fill_(1.0)
    zero = torch.zeros(1, 1, dtype=torch.float64)
    out, state = cell(zero, (zero + 7.0, zero))
    assert state.c.item() == 2.0
    assert out.item() == pytest.approx(torch.sigmoid(torch.tensor(2.0)).item() * np.tanh(2.0), abs=1e-7)


def test_sizes() -> None:
    assert cw.LSTMCell(N).state_size == cw.LSTMStateTuple(N, N) and cw.LSTMCell(N).output_size == N
    projected = cw.LSTMCell(N, num_proj=P)
    assert projected.state_size == cw.LSTMStateTuple(N, P) and projected.output_size == P
    assert cw.LSTMCell(N, num_proj=P, state_is_tuple=False).state_size == N + P
    assert cw.LSTMCell(N, state_is_tuple=False).state_size == 2 * N
    wide = cw.LSTMCell(N, num_proj=9)
    assert wide(torch.zeros(B, D), wide.zero_state(B, "float32"))[0].shape == (B, 9)


@pytest.mark.parametrize("num_proj", [0, -1, 1.5])
def test_no_empty_projection(num_proj: Any) -> None:
    with pytest.raises((cw.ArgumentError, cw.ArgumentTypeError), match="LSTMCell num_proj: expected a positive int"):
        cw.LSTMCell(N, num_proj=num_proj)


def test_projection_has_no_bias() -> None:
    cell = cw.LSTMCell(N, num_proj=P)
    cell.build([B, D])
    assert [name for name, _ in cell.named_parameters()] == ["kernel", "bias", "projection_kernel"]


def test_initializer_is_for_all_but_the_bias() -> None:
    cell = cw.LSTMCell(N, use_peepholes=True, num_proj=P, initializer=cw.initializers.Constant(0.25))
    cell.build([B, D])
    for name, weight in cell.named_parameters():
        assert (weight == (0.0 if name == "bias" else 0.25)).all(), name


def test_initializer_overrides_the_scopes() -> None:
    with cw.variable_scope("s", initializer=cw.initializers.Constant(9.0)):
        cell = cw.LSTMCell(N, initializer="ones")
        cell.build([B, D])
    assert (cell.kernel == 1).all() and (cell.bias == 0).all()


def test_shards_are_recorded_and_change_no_number(rng: np.random.Generator) -> None:
    plain, _ = _pair(rng, num_proj=P)
    cell = cw.LSTMCell(N, num_proj=P, num_unit_shards=3, num_proj_shards=2, dtype="float64")
    cell.build([B, D])
    cell.set_weights(plain.get_weights())
    x, c, h = _given(rng, P)
    assert torch.equal(cell(x, (c, h))[0], plain(x, (c, h))[0])
    assert [record.pieces for record in cell.variable_records()] == [3, 1, 2]
    assert [record.pieces for record in plain.variable_records()] == [1, 1, 1]
    for name in ("num_unit_shards", "num_proj_shards"):
        with pytest.raises(cw.ArgumentError, match=f"LSTMCell {name}.*0"):
            cw.LSTMCell(N, **{name: 0})


def test_config_keys() -> None:
    own = [
        "num_units", "use_peepholes", "cell_clip", "initializer", "num_proj", "proj_clip", "num_unit_shards",
        "num_proj_shards", "forget_bias", "state_is_tuple", "activation", "reuse",
    ]  # fmt: skip
    assert list(cw.LSTMCell(N).get_config()) == ["name", "trainable", "dtype", *own]


def test_positions_of_the_arguments() -> None:
    config = cw.LSTMCell(N, True, 0.5, "ones", P, 0.25, 3, 2, 0.1, False, "relu", None, "foo", "float64").get_config()
    initializer = config.pop("initializer")
    assert initializer["class_name"] == "Ones"
    assert config == {
        "name": "foo", "trainable": True, "dtype": "float64", "num_units": N, "use_peepholes": True, "cell_clip": 0.5,
        "num_proj": P, "proj_clip": 0.25, "num_unit_shards": 3, "num_proj_shards": 2, "forget_bias": 0.1,
        "state_is_tuple": False, "activation": "relu", "reuse": None,
    }  # fmt: skip


def test_config_round_trip_of_every_option(rng: np.random.Generator) -> None:
    cell, _ = _pair(
        rng, use_peepholes=True, cell_clip=0.0, num_proj=P, proj_clip=0.3, forget_bias=0.2, activation="elu"
    )
    other = cw.LSTMCell.from_config(cell.get_config())
    other.build([B, D])
    other.set_weights(cell.get_weights())
    x, c, h = _given(rng, P)
    assert torch.equal(other(x, (c, h))[0], cell(x, (c, h))[0])
    assert other.get_config() == cell.get_config() and other.get_config()["cell_clip"] == 0.0


@pytest.mark.parametrize("name", ["forget_bias", "cell_clip", "proj_clip"])
@pytest.mark.parametrize("value", ["1", "a", [1.0], torch.zeros(2)], ids=str)
def test_no_numbers(name: str, value: Any) -> None:
    with pytest.raises(cw.ArgumentTypeError, match=f"LSTMCell {name}: expected a number, got "):
        cw.LSTMCell(3, **{name: value})


@pytest.mark.parametrize("kind", [cw.LSTMCell, cw.GRUCell, cw.BasicRNNCell, cw.keras.LSTMCell])
def test_an_input_size_as_in_torch_is_refused(kind: Any) -> None:
    with pytest.raises(cw.ArgumentTypeError, match="got 64. A cell takes no input size"):
        kind(32, 64)


@pytest.mark.parametrize("flag", [True, 1, np.True_])
def test_a_flag_may_be_a_number(flag: Any) -> None:
    assert cw.LSTMCell(3, flag).get_config()["use_peepholes"] is True
