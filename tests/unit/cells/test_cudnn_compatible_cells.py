"""CudnnCompatibleLSTMCell and CudnnCompatibleGRUCell: equations, variables, starting values, errors.

Unrolls of both are in tests/numerics, checkpoints of layers read by them in tests/golden.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import cellweave as cw
from cellweave.ops.common._library import missing_reason
from helpers import nest
from helpers.tolerances import assert_close
from helpers.woven import assert_same_run
from oracles import tf1

B, D, N = 3, 4, 5


def _pair(name: str, rng: np.random.Generator) -> tuple[Any, Any]:
    oracle = tf1.LSTMCell(D, N, forget_bias=0.0) if "LSTM" in name else tf1.CudnnCompatibleGRUCell(D, N)
    oracle.set_weights({k: rng.uniform(-0.8, 0.8, size=shape) for k, shape in oracle.shapes.items()})
    cell = getattr(cw, name)(N, dtype="float64")
    cell.build([B, D])
    cell.set_weights(list(oracle.weights.values()))
    return cell, oracle


CELLS = pytest.mark.parametrize("name", ["CudnnCompatibleLSTMCell", "CudnnCompatibleGRUCell"])


@CELLS
def test_one_step_against_the_oracle(name: str, rng: np.random.Generator) -> None:
    cell, oracle = _pair(name, rng)
    x = rng.normal(size=(B, D))
    states = [rng.normal(size=(B, N)) for _ in range(2 if "LSTM" in name else 1)]
    out, state = cell(torch.tensor(x), nest.pack(cell.state_size, [torch.tensor(s) for s in states]))
    wanted, wanted_state, _ = oracle.forward(x, tf1.LSTMState(*states) if len(states) == 2 else states[0])
    assert_close("output", out, wanted, 1e-13)
    leaves = list(wanted_state) if len(states) == 2 else [wanted_state]
    for got, truth in zip(nest.flatten(state), leaves, strict=True):
        assert_close("state", got, truth, 1e-13)
    if "LSTM" in name:
        assert type(state) is cw.LSTMStateTuple


def test_variables() -> None:
    with cw.VariableStore() as store:
        cells = cw.MultiRNNCell([cw.CudnnCompatibleLSTMCell(N), cw.CudnnCompatibleGRUCell(N)])
        cw.dynamic_rnn(cells, torch.zeros(B, 2, D), dtype="float32")
    lstm = "rnn/multi_rnn_cell/cell_0/cudnn_compatible_lstm_cell"
    gru = "rnn/multi_rnn_cell/cell_1/cudnn_compatible_gru_cell"
    assert {name: tuple(v.shape) for name, v in store.variables.items()} == {
        f"{lstm}/kernel": (D + N, 4 * N),
        f"{lstm}/bias": (4 * N,),
        f"{gru}/gates/kernel": (2 * N, 2 * N),
        f"{gru}/gates/bias": (2 * N,),
        f"{gru}/candidate/input_projection/kernel": (N, N),
        f"{gru}/candidate/hidden_projection/kernel": (N, N),
        f"{gru}/candidate/input_projection/bias": (N,),
        f"{gru}/candidate/hidden_projection/bias": (N,),
    }
    assert list(store.variables)[2:] == [f"{gru}/{name}" for name in tf1.CudnnCompatibleGRUCell(D, N).shapes]


def test_starting_values() -> None:
    gru = cw.CudnnCompatibleGRUCell(N, kernel_initializer="ones")
    gru.build([None, D])
    kernels = (gru.gates_kernel, gru.candidate_input_projection_kernel, gru.candidate_hidden_projection_kernel)
    assert all((kernel == 1).all() for kernel in kernels)
    assert (gru.gates_bias == 1).all()
    assert not gru.candidate_input_projection_bias.any() and not gru.candidate_hidden_projection_bias.any()
    lstm = cw.CudnnCompatibleLSTMCell(N)
    lstm.build([None, D])
    assert not lstm.bias.any() and lstm.kernel.abs().max() <= (6 / (D + N + 4 * N)) ** 0.5


def test_an_lstm_without_forget_bias_is_the_same(rng: np.random.Generator) -> None:
    cell, _ = _pair("CudnnCompatibleLSTMCell", rng)
    other = cw.LSTMCell(N, forget_bias=0.0, dtype="float64")
    other.build([B, D])
    other.set_weights(cell.get_weights())
    x, state = torch.randn(B, D).double(), cw.LSTMStateTuple(torch.randn(B, N).double(), torch.randn(B, N).double())
    assert torch.equal(cell(x, state)[0], other(x, state)[0])


def test_the_reset_comes_after_the_product(rng: np.random.Generator) -> None:
    """Where the reset gate is shut, only the candidate's hidden bias goes, too."""
    cell, _ = _pair("CudnnCompatibleGRUCell", rng)
    with torch.no_grad():
        cell.gates_kernel.zero_()
        cell.gates_bias[:N] = -1000.0  # reset: 0
        cell.gates_bias[N:] = -1000.0  # update: 0, so the new state is the candidate
    x = torch.randn(B, D).double()
    out, _ = cell(x, torch.randn(B, N).double())
    wanted = torch.tanh(x @ cell.candidate_input_projection_kernel + cell.candidate_input_projection_bias)
    torch.testing.assert_close(out, wanted)


def test_errors() -> None:
    lstm, x = cw.CudnnCompatibleLSTMCell(N), torch.zeros(B, D)
    with pytest.raises(ValueError, match="pair of tensors, got 3 elements"):
        lstm(x, (torch.zeros(B, N),) * 3)
    with pytest.raises(ValueError, match=r"expected state \[3, 5\], got \[3, 4\]"):
        cw.CudnnCompatibleGRUCell(N)(x, torch.zeros(B, N - 1))
    for cls in (cw.CudnnCompatibleLSTMCell, cw.CudnnCompatibleGRUCell):
        with pytest.raises(ValueError, match=f"{cls.__name__} num_units: expected a positive int, got 0"):
            cls(0)


@CELLS
def test_config_round_trip(name: str) -> None:
    cell = getattr(cw, name)(N, name="mine", dtype="float64")
    config = cell.get_config()
    assert config["num_units"] == N
    again = type(cell).from_config(config)
    assert again.get_config() == config
    wrapped = cw.DropoutWrapper.from_config({**cw.DropoutWrapper(cell).get_config(), "cell": again})
    assert wrapped.wrapped_cell is again


@CELLS
def test_woven_in_wrappers(name: str) -> None:
    """Masks, a residual sum and lengths inside one run, equal to single steps."""
    x, lengths, runs, weights = torch.randn(B, 6, D), torch.tensor([6, 0, 3]), [], None
    for backend in ("reference", None):
        inner = getattr(cw, name)(D)
        cell = cw.ResidualWrapper(cw.DropoutWrapper(inner, state_keep_prob=0.7, seed=1))
        inner.build([None, D])
        weights = inner.get_weights() if weights is None else weights
        inner.set_weights(weights)
        with cw.use_backend(backend):
            plan = cw.explain(cell, x, lengths, show=False)
            runs.append(cw.dynamic_rnn(cell, x, lengths, dtype="float32"))
    assert plan.backends == ("native" if missing_reason() is None else "reference",)
    assert_same_run(None, runs[1], runs[0])


@CELLS
def test_one_step_at_a_time(name: str) -> None:
    cell, x = getattr(cw, name)(N), torch.randn(B, 3, D)
    state = cell.zero_state(B, "float32")
    cell(x[:, 0], state)  # makes the weights, which a Stepper packs
    step = cw.Stepper(cell, batch_size=B)
    for t in range(3):
        out, state = cell(x[:, t], state)
        torch.testing.assert_close(step(x[:, t]), out)
    with torch.no_grad():
        cell.weights[0].zero_()
    torch.testing.assert_close(step(x[:, 0]), cell(x[:, 0], state)[0])
