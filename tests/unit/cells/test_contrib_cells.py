"""Contrib's cells: one step and unrolls against the oracles, gradients, names, starting values, configs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import cellweave as cw
from cellweave import contrib
from cellweave.cells import cell_config, cell_from_config
from cellweave.specs import SteppedSpec
from helpers import nest
from helpers.tolerances import assert_close
from helpers.woven import assert_same_run
from oracles import contrib as oracles
from oracles import tf1
from oracles.contrib import LSTMVariant

B, D, N, P = 3, 4, 5, 2
Step = Callable[[dict[str, Any], np.ndarray, list[np.ndarray]], tuple[np.ndarray, list[np.ndarray]]]


def _of(oracle: tf1.Cell) -> Step:
    def step(w: dict[str, Any], x: np.ndarray, state: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
        oracle.set_weights(w)
        out, new, _ = oracle.forward(x, state[0] if len(state) == 1 else tf1.LSTMState(*state))
        return out, list(new) if isinstance(new, tuple) else [new]

    return step


def _one(function: Callable[..., np.ndarray], **options: Any) -> Step:
    def step(w: dict[str, Any], x: np.ndarray, state: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
        new = function(w, x, *state, **options)
        return new, [new]

    return step


def _output_first(function: Callable[..., Any], **options: Any) -> Step:
    def step(w: dict[str, Any], x: np.ndarray, state: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
        out, new = function(w, x, *state, **options)
        return out, [new]

    return step


def _pair(function: Callable[..., Any], **options: Any) -> Step:
    def step(w: dict[str, Any], x: np.ndarray, state: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
        new = function(w, x, *state, **options)
        return new[1], list(new)

    return step


GRU = ["gates/kernel", "gates/bias", "candidate/kernel", "candidate/bias"]
NORMS = [f"{part}/{k}" for part in ("input", "transform", "forget", "output", "state") for k in ("gamma", "beta")]
COUPLED_NORMS = [f"{part}/{k}" for part in ("transform", "forget", "output") for k in ("gamma", "beta")]
#: Cell, its oracle, its scope and the names of its variables in creation order.
CELLS: dict[str, tuple[Callable[..., Any], Step, str, list[str]]] = {
    "block": (
        lambda **k: contrib.LSTMBlockCell(N, 0.3, **k),
        _of(LSTMVariant(D, N, forget_bias=0.3)),
        "lstm_cell",
        ["kernel", "bias"],
    ),
    "block-peephole": (
        lambda **k: contrib.LSTMBlockCell(N, cell_clip=0.4, use_peephole=True, **k),
        _of(LSTMVariant(D, N, peepholes=True, peephole_order="ifo", cell_clip=0.4, clip_stops=False)),
        "lstm_cell",
        ["kernel", "bias", "w_i_diag", "w_f_diag", "w_o_diag"],
    ),
    "gru-block": (
        lambda **k: contrib.GRUBlockCell(N, **k),
        _of(tf1.GRUCell(D, N)),
        "gru_cell",
        ["w_ru", "b_ru", "w_c", "b_c"],
    ),
    "gru-block-v2": (lambda **k: contrib.GRUBlockCellV2(N, **k), _of(tf1.GRUCell(D, N)), "gru_cell", GRU),
    "layer-norm": (
        lambda **k: contrib.LayerNormBasicLSTMCell(N, 0.3, norm_gain=0.5, norm_shift=0.1, **k),
        _of(LSTMVariant(D, N, layer_norm=True, forget_bias=0.3)),
        "layer_norm_basic_lstm_cell",
        ["kernel", *NORMS],
    ),
    "layer-norm-off": (
        lambda **k: contrib.LayerNormBasicLSTMCell(N, layer_norm=False, activation="softplus", **k),
        _of(LSTMVariant(D, N, activation="softplus")),
        "layer_norm_basic_lstm_cell",
        ["kernel", "bias"],
    ),
    "coupled": (
        lambda **k: contrib.CoupledInputForgetGateLSTMCell(N, **k),
        _of(LSTMVariant(D, N, coupled=True)),
        "coupled_input_forget_gate_lstm_cell",
        ["W_0", "B"],
    ),
    "coupled-all": (
        lambda **k: contrib.CoupledInputForgetGateLSTMCell(
            N, True, num_proj=P, proj_clip=0.3, forget_bias=0.2, activation="elu", **k
        ),
        _of(
            LSTMVariant(
                D, N, coupled=True, peepholes=True, projection=P, proj_clip=0.3, forget_bias=0.2, activation="elu"
            )
        ),
        "coupled_input_forget_gate_lstm_cell",
        ["W_0", "B", "W_F_diag", "W_O_diag", "W_P_0"],
    ),
    "nas": (
        lambda **k: contrib.NASCell(N, **k),
        _pair(oracles.nas),
        "nas_cell",
        ["recurrent_kernel", "kernel"],
    ),
    "nas-all": (
        lambda **k: contrib.NASCell(N, num_proj=P, use_bias=True, **k),
        _pair(oracles.nas),
        "nas_cell",
        ["recurrent_kernel", "kernel", "bias", "projection_weights"],
    ),
    "sru": (
        lambda **k: contrib.SRUCell(N, "elu", **k),
        _output_first(oracles.sru, activation="elu"),
        "sru_cell",
        ["kernel", "bias"],
    ),
    "ugrnn": (
        lambda **k: contrib.UGRNNCell(N, forget_bias=0.4, activation="softsign", **k),
        _one(oracles.ugrnn, forget_bias=0.4, activation="softsign"),
        "ugrnn_cell",
        ["kernel", "bias"],
    ),
    "intersection": (
        lambda **k: contrib.IntersectionRNNCell(D, forget_bias=0.6, y_activation="tanh", **k),
        _output_first(oracles.intersection, forget_bias=0.6, activation="tanh"),
        "intersection_rnn_cell",
        ["kernel", "bias"],
    ),
    "intersection-projected": (
        lambda **k: contrib.IntersectionRNNCell(N, num_in_proj=N, **k),
        _output_first(oracles.intersection),
        "intersection_rnn_cell",
        ["in_projection/kernel", "in_projection/bias", "kernel", "bias"],
    ),
    "indrnn": (
        lambda **k: contrib.IndRNNCell(N, "softplus", **k),
        _one(oracles.indrnn, activation="softplus"),
        "ind_rnn_cell",
        ["kernel_w", "kernel_u", "bias"],
    ),
    "indy-gru": (
        lambda **k: contrib.IndyGRUCell(N, **k),
        _one(oracles.indy_gru),
        "indy_gru_cell",
        [
            f"{part}/{name}"
            for part, names in (("gates", "kernel_w kernel_u bias"), ("candidate", "kernel kernel_u bias"))
            for name in names.split()
        ],
    ),
    "indy-lstm": (
        lambda **k: contrib.IndyLSTMCell(N, 0.2, **k),
        _pair(oracles.indy_lstm, forget_bias=0.2),
        "indy_lstm_cell",
        ["kernel_w", "kernel_u", "bias"],
    ),
}
each_cell = pytest.mark.parametrize("name", CELLS)


def _made(name: str, rng: np.random.Generator) -> tuple[Any, dict[str, np.ndarray]]:
    """A float64 cell with random weights, and these by the spec's names."""
    cell = CELLS[name][0](dtype="float64")
    cell.build([B, D])
    with torch.no_grad():
        for weight in cell.parameters():
            weight.copy_(torch.tensor(rng.uniform(-0.8, 0.8, size=tuple(weight.shape))))
    return cell, {key: value.detach().numpy() for key, value in cell.named_weights().items()}


def _state(cell: Any, rng: np.random.Generator, rows: int = B) -> list[np.ndarray]:
    return [rng.normal(size=(rows, size)) for size in nest.flatten(cell.state_size)]


def _tensors(cell: Any, state: list[np.ndarray]) -> Any:
    leaves = [torch.tensor(leaf) for leaf in state]
    return cw.LSTMStateTuple(*leaves) if len(leaves) == 2 else leaves[0]


@each_cell
def test_one_step(name: str, rng: np.random.Generator) -> None:
    cell, weights = _made(name, rng)
    x, state = rng.normal(size=(B, D)), _state(cell, rng)
    want, want_state = CELLS[name][1](weights, x, state)
    out, new = cell(torch.tensor(x), _tensors(cell, state))
    assert type(new) is (cw.LSTMStateTuple if len(state) == 2 else torch.Tensor)
    assert_close("output", out, want, 1e-13)
    for number, (a, b) in enumerate(zip(nest.flatten(new), want_state, strict=True)):
        assert_close(f"state {number}", a, b, 1e-13)


@each_cell
@pytest.mark.parametrize("backend", [None, "reference"])
def test_an_unroll_with_lengths(name: str, backend: str | None, rng: np.random.Generator) -> None:
    """The oracle's steps one after another; what is past a row's end is zero, and its state stays."""
    cell, weights = _made(name, rng)
    x, state = rng.normal(size=(6, B, D)), _state(cell, rng)
    lengths = np.array([6, 0, 3])
    with cw.use_backend(backend):
        got = cw.dynamic_rnn(cell, torch.tensor(x), lengths, _tensors(cell, state), time_major=True)
    outputs = []
    for t in range(6):
        live = (t < lengths)[:, None]
        out, new = CELLS[name][1](weights, x[t], state)
        outputs.append(np.where(live, out, 0.0))
        state = [np.where(live, a, b) for a, b in zip(new, state, strict=True)]
    assert_close("outputs", got[0], np.stack(outputs), 1e-12)
    for number, (a, b) in enumerate(zip(nest.flatten(got[1]), state, strict=True)):
        assert_close(f"state {number}", a, b, 1e-12)


@pytest.mark.parametrize("name", [name for name in CELLS if name != "block-peephole"])
def test_gradients(name: str, rng: np.random.Generator) -> None:
    """The bound of a block cell stops none, so finite differences say nothing of it: its goldens and numerics do."""
    cell, _ = _made(name, rng)
    x = torch.tensor(rng.normal(size=(2, D))).requires_grad_()
    state = [torch.tensor(leaf).requires_grad_() for leaf in _state(cell, rng, 2)]
    names = [key for key, _ in cell.named_parameters()]

    def run(x: torch.Tensor, *rest: torch.Tensor) -> Any:
        leaves, weights = rest[: len(state)], rest[len(state) :]
        packed = cw.LSTMStateTuple(*leaves) if len(leaves) == 2 else leaves[0]
        out, new = torch.func.functional_call(cell, dict(zip(names, weights, strict=True)), (x, packed))
        return (out, *nest.flatten(new))

    torch.autograd.gradcheck(run, (x, *state, *cell.parameters()))


@each_cell
def test_names_in_creation_order(name: str) -> None:
    make, _, scope, names = CELLS[name]
    cell = make()
    cw.dynamic_rnn(cell, torch.zeros(2, 3, D), dtype="float32")
    assert list(cw.variable_names(cell)) == [f"rnn/{scope}/{suffix}" for suffix in names]
    assert [w is v for w, v in zip(cell.weights, cw.variable_names(cell).values(), strict=True)] == [True] * len(names)


@each_cell
def test_config_and_copies(name: str, rng: np.random.Generator) -> None:
    cell, _ = _made(name, rng)
    data = cell_config(cell)
    other = cell_from_config(data, None, "here")
    assert type(other) is type(cell) and cell_config(other) == data
    other.load_state_dict(cell.state_dict())
    x, state = torch.tensor(rng.normal(size=(B, D))), _tensors(cell, _state(cell, rng))
    for same in (other, copy.deepcopy(cell)):
        assert_same_run("reference", same(x, state), cell(x, state))


STEPPED = {
    "nas": "NASCell: no backend knows its recurrence",
    "sru": "SRUCell: its output is not its state",
    "ugrnn": "UGRNNCell: no backend knows its recurrence",
    "intersection": "IntersectionRNNCell: its output is not its state",
    "indrnn": "IndRNNCell: no backend knows its recurrence",
    "indy-gru": "IndyGRUCell: no backend knows its recurrence",
    "indy-lstm": "IndyLSTMCell: no backend knows its recurrence",
}


@pytest.mark.parametrize("name", STEPPED)
def test_plans_say_why_they_run_step_by_step(name: str) -> None:
    cell = CELLS[name][0]()
    cw.dynamic_rnn(cell, torch.zeros(2, 3, D), dtype="float32")
    plan = cw.explain(cell, torch.zeros(2, 3, D), dtype="float32")
    assert plan.backends == ("reference",) and plan.rows[0].why == STEPPED[name]
    with pytest.raises(cw.BackendError, match=STEPPED[name]), cw.use_backend("native"):
        cw.dynamic_rnn(cell, torch.zeros(2, 3, D), dtype="float32")


def test_in_a_stack_the_other_layers_are_woven(rng: np.random.Generator) -> None:
    stack = cw.MultiRNNCell([cw.GRUCell(N), cw.DropoutWrapper(contrib.NASCell(N), output_keep_prob=0.5, seed=3)])
    x = torch.tensor(rng.normal(size=(B, 6, D)), dtype=torch.float32)
    woven = cw.dynamic_rnn(stack, x, [6, 0, 2], dtype="float32")
    stack.cells[1].streams.table.load_tensor(torch.zeros((0, 8), dtype=torch.int64), "here")
    with cw.use_backend("reference"):
        stepped = cw.dynamic_rnn(stack, x, [6, 0, 2], dtype="float32")
    assert_same_run(None, woven, stepped)


@pytest.mark.parametrize("cell", ["BasicLSTMCell", "contrib.UGRNNCell"])
def test_a_subclass_with_a_step_of_its_own_has_no_spec(cell: str) -> None:
    base: Any = cw.BasicLSTMCell if cell == "BasicLSTMCell" else contrib.UGRNNCell

    class Own(base):  # type: ignore[misc]
        def call(self, inputs: Any, state: Any) -> Any:
            return super().call(inputs * 2, state)

    own = Own(N)
    cw.dynamic_rnn(own, torch.zeros(2, 3, D), dtype="float32")
    assert "has its own call" in cw.explain(own, torch.zeros(2, 3, D), dtype="float32").rows[0].why


def test_stepped_spec_of_a_users_cell() -> None:
    class Own(cw.RNNCell):
        state_size = output_size = D

        def spec(self) -> SteppedSpec:
            return SteppedSpec("it asks a server")

        def call(self, inputs: Any, state: Any) -> Any:
            return inputs, inputs

    own = Own()
    cw.dynamic_rnn(own, torch.zeros(2, 3, D), dtype="float32")
    assert cw.explain(own, torch.zeros(2, 3, D), dtype="float32").rows[0].why == "Own: it asks a server"
