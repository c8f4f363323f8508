"""InputProjectionWrapper, OutputProjectionWrapper, EmbeddingWrapper, HighwayWrapper."""

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
from helpers.tolerances import assert_close
from helpers.woven import assert_same_run, both_ways
from oracles import tf1
from oracles.activations import sigmoid

B, T, D, N, P = 3, 6, 4, 5, 2
GRU = ["gates/kernel", "gates/bias", "candidate/kernel", "candidate/bias"]
Weights = dict[str, np.ndarray]


def _inside(depth: int, units: int, w: Weights, x: np.ndarray, h: np.ndarray) -> np.ndarray:
    oracle = tf1.GRUCell(depth, units)
    oracle.set_weights({name: w[name] for name in GRU})
    return oracle.forward(x, h)[0]


def _input(w: Weights, x: np.ndarray, h: np.ndarray) -> Any:
    new = _inside(P, N, w, np.tanh(x @ w["kernel"] + w["bias"]), h)
    return new, new


def _output(w: Weights, x: np.ndarray, h: np.ndarray) -> Any:
    new = _inside(D, N, w, x, h)
    return new @ w["kernel"] + w["bias"], new


def _highway(w: Weights, x: np.ndarray, h: np.ndarray) -> Any:
    """Srivastava et al. 2015, equations 2 and 3."""
    new = _inside(D, D, w, x, h)
    carry = sigmoid(x @ w["carry_w"] + w["carry_b"])
    transform = sigmoid(x @ w["transform_w"] + w["transform_b"]) if "transform_w" in w else 1 - carry
    return x * carry + new * transform, new


IN, OUT, GATES = "input_projection_wrapper/", "output_projection_wrapper/", ["carry_w", "carry_b"]
INSIDE = [f"gru_cell/{name}" for name in GRU]
WRAPPERS: dict[str, tuple[Callable[..., Any], Callable[..., Any], list[str]]] = {
    "input": (
        lambda: contrib.InputProjectionWrapper(cw.GRUCell(N), P, activation="tanh"),
        _input,
        [IN + name for name in ("kernel", "bias", *INSIDE)],
    ),
    "output": (
        lambda: contrib.OutputProjectionWrapper(cw.GRUCell(N), P),
        _output,
        [OUT + name for name in (*INSIDE, "kernel", "bias")],
    ),
    "highway": (lambda: contrib.HighwayWrapper(cw.GRUCell(D)), _highway, [*INSIDE, *GATES]),
    "highway-two-gates": (
        lambda: contrib.HighwayWrapper(cw.GRUCell(D), False, 0.5),
        _highway,
        [*INSIDE, *GATES, "transform_w", "transform_b"],
    ),
}
each_wrapper = pytest.mark.parametrize("name", WRAPPERS)


def _made(name: str, rng: np.random.Generator) -> tuple[Any, Weights]:
    """A called wrapper with random weights, and these by their names in the GRU or in the wrapper."""
    cell = WRAPPERS[name][0]()
    cw.dynamic_rnn(cell, torch.zeros(B, T, D, dtype=torch.float64), dtype="float64")
    found = {}
    for path, weight in cw.variable_names(cell).items():
        value = rng.uniform(-0.7, 0.7, size=tuple(weight.shape))
        with torch.no_grad():
            weight.copy_(torch.tensor(value))
        found[path.split("gru_cell/")[-1] if "gru_cell" in path else path.rsplit("/", 1)[-1]] = value
    return cell, found


@each_wrapper
def test_names_and_order_of_creation(name: str) -> None:
    with cw.VariableStore() as store:
        cell = WRAPPERS[name][0]()
        for _ in range(2):
            cw.dynamic_rnn(cell, torch.zeros(B, T, D), dtype="float32")
    wanted = [f"rnn/{suffix}" for suffix in WRAPPERS[name][2]]
    assert list(store.variables) == wanted and sorted(cw.variable_names(cell)) == sorted(wanted)
    assert [w is store.variables[n] for w, n in zip(cell.weights, wanted, strict=True)] == [True] * len(wanted)


@each_wrapper
def test_built_by_hand_and_copied(name: str) -> None:
    cell, called = WRAPPERS[name][0](), WRAPPERS[name][0]()
    cell.build([None, D])
    called(torch.zeros(B, D), torch.zeros(B, cell.state_size))
    assert list(cw.variable_names(cell)) == list(cw.variable_names(called))
    assert [w.shape for w in cell.weights] == [w.shape for w in called.weights]
    other = WRAPPERS[name][0]()
    other.load_state_dict(cell.state_dict())
    x, h = torch.randn(B, D), torch.randn(B, cell.state_size)
    for same in (other, copy.deepcopy(cell)):
        assert_same_run("reference", same(x, h), cell(x, h))


@each_wrapper
@both_ways
@pytest.mark.parametrize("lengths", [None, [6, 0, 2]])
def test_unrolled_against_the_oracle(name: str, backend: str | None, lengths: Any, rng: np.random.Generator) -> None:
    cell, w = _made(name, rng)
    x, h = rng.normal(size=(T, B, D)), rng.normal(size=(B, cell.state_size))
    with cw.use_backend(backend):
        got, last = cw.dynamic_rnn(cell, torch.tensor(x), lengths, torch.tensor(h), time_major=True)
    outputs = []
    for t in range(T):
        live = np.array([t < n for n in lengths or [T] * B])[:, None]
        out, new = WRAPPERS[name][1](w, x[t], h)
        outputs.append(np.where(live, out, 0.0))
        h = np.where(live, new, h)
    assert_close("outputs", got, np.stack(outputs), 1e-12)
    assert_close("state", last, h, 1e-12)


@each_wrapper
@pytest.mark.parametrize("reverse", [False, True])
def test_woven_gradients_are_those_of_single_steps(name: str, reverse: bool, rng: np.random.Generator) -> None:
    cell, _ = _made(name, rng)
    x = torch.tensor(rng.normal(size=(B, T, D))).requires_grad_()
    h = torch.tensor(rng.normal(size=(B, cell.state_size))).requires_grad_()
    upstream = [rng.normal(size=(B, T, cell.output_size)), rng.normal(size=(B, cell.state_size))]
    found = []
    for backend in (None, "reference"):
        with cw.use_backend(backend):
            if reverse:
                (_, out), (_, last) = cw.bidirectional_dynamic_rnn(
                    cw.GRUCell(N), cell, x, [6, 0, 2], initial_state_bw=h, dtype="float64"
                )
            else:
                out, last = cw.dynamic_rnn(cell, x, [6, 0, 2], h)
        loss = sum((a * torch.tensor(b)).sum() for a, b in zip((out, last), upstream, strict=True))
        found.append(torch.autograd.grad(loss, [x, h, *cell.weights]))
    for number, (a, b) in enumerate(zip(*found, strict=True)):
        assert_close(f"gradient {number}", a, b, 1e-13)


@each_wrapper
def test_the_cell_inside_is_woven(name: str) -> None:
    cell = WRAPPERS[name][0]()
    cw.dynamic_rnn(cell, torch.randn(B, T, D), dtype="float32")
    plan = cw.explain(cell, torch.randn(B, T, D), dtype="float32")
    rows = [(row.layer, row.cell.split()[0]) for row in plan.rows]
    if len(rows) == 1:  # without a native core all of it steps
        pytest.skip(f"not woven: {plan.rows[0].why}")
    mapping, layer = ("", type(cell).__name__), ("1", "GRUCell")
    assert rows == ([mapping, layer] if name == "input" else [layer, mapping])


def test_among_other_wrappers(rng: np.random.Generator) -> None:
    """Masks, sums, steps and maps on each other; the streams go on alike."""

    def make() -> Any:
        inner = cw.DropoutWrapper(cw.BasicRNNCell(N), output_keep_prob=0.5, seed=9)
        return cw.MultiRNNCell(
            [
                cw.DropoutWrapper(contrib.InputProjectionWrapper(cw.LSTMCell(D), P), 0.5, 0.7, 0.8, seed=5),
                contrib.HighwayWrapper(cw.ResidualWrapper(cw.DropoutWrapper(cw.GRUCell(D), 0.6, seed=7))),
                cw.ResidualWrapper(contrib.OutputProjectionWrapper(contrib.NASCell(N), D)),
                contrib.OutputProjectionWrapper(inner, P),
            ]
        )

    first, second = make(), make()
    for cell in (first, second):
        cell.build([B, D])
        cell.to(torch.float64)
    second.load_state_dict(first.state_dict())
    x = torch.tensor(rng.normal(size=(B, T, D)))
    results = []
    for cell, backend in ((first, None), (second, "reference")):
        with cw.use_backend(backend):
            results.append([cw.dynamic_rnn(cell, x, [6, 0, 2], dtype="float64") for _ in range(2)])
    assert_same_run(None, results[0], results[1])


def test_frozen_cell_behind_a_trained_projection(rng: np.random.Generator) -> None:
    cell, _ = _made("input", rng)
    cell.cell.requires_grad_(False)
    out, _ = cw.dynamic_rnn(cell, torch.randn(B, T, D, dtype=torch.float64), dtype="float64")
    (grad,) = torch.autograd.grad(out.sum(), [cell.kernel])
    assert bool((grad != 0).any())


def test_starting_values() -> None:
    highway = contrib.HighwayWrapper(cw.GRUCell(D), False, 0.5)
    projected = contrib.OutputProjectionWrapper(cw.GRUCell(N), P)
    with cw.variable_scope("scope", initializer=cw.initializers.Constant(2.0)):
        highway.build([B, D])
        projected.build([B, D])
    assert (highway.carry_w == 2).all() and (highway.carry_b == 0.5).all() and (highway.transform_b == -0.5).all()
    assert (projected.kernel == 2).all() and (projected.bias == 0).all()


@each_wrapper
def test_config(name: str) -> None:
    cell = WRAPPERS[name][0]()
    data = cell_config(cell)
    other = cell_from_config(data, None, "here")
    assert type(other) is type(cell) and cell_config(other) == data
    with pytest.raises(cw.ArgumentError, match="expected config"):
        type(cell).from_config(data["config"])


def test_embedding_reads_rows_of_its_table() -> None:
    cell, ids = contrib.EmbeddingWrapper(cw.LSTMCell(N), 7, D), torch.randint(0, 7, (B, T))
    got = cw.dynamic_rnn(cell, ids[:, :, None], [6, 0, 2], dtype="float64")
    want = cw.dynamic_rnn(cell.cell, cell.embedding[ids], [6, 0, 2], dtype="float64")
    assert_same_run(None, got, want)
    names = [f"rnn/embedding_wrapper/{name}" for name in ("embedding", "lstm_cell/kernel", "lstm_cell/bias")]
    assert list(cw.variable_names(cell)) == names
    assert [w is v for w, v in zip(cell.weights, cw.variable_names(cell).values(), strict=True)] == [True] * 3
    assert cell.embedding.dtype == torch.float64
    assert cw.explain(cell, ids[:, :, None], dtype="float64").backends == ("reference",)


def test_embedding_starts_with_variance_one() -> None:
    cell = contrib.EmbeddingWrapper(cw.GRUCell(N), 300, 20)
    cell.build([B])
    table = cell.embedding.detach()
    assert 1.6 < float(table.abs().max()) <= 3**0.5 and abs(float(table.var()) - 1) < 0.1
    given = contrib.EmbeddingWrapper(cw.GRUCell(N), 7, D, initializer=cw.initializers.Constant(2.0))
    scoped = contrib.EmbeddingWrapper(cw.GRUCell(N), 7, D)
    with cw.variable_scope("scope", initializer=cw.initializers.Constant(3.0)):
        given.build([B])
        scoped.build([B])
    assert (given.embedding == 2).all() and (scoped.embedding == 3).all()
    again = contrib.EmbeddingWrapper.from_config({**given.get_config(), "cell": cw.GRUCell(N)})
    assert {**again.get_config(), "cell": 0, "name": 0} == {**given.get_config(), "cell": 0, "name": 0}


def test_errors() -> None:
    with pytest.raises(cw.ArgumentTypeError, match="expected inputs as whole numbers, got float32"):
        contrib.EmbeddingWrapper(cw.GRUCell(N), 7, D)(torch.zeros(B, 1), torch.zeros(B, N))
    with pytest.raises(cw.ArgumentError, match="embedding_classes"):
        contrib.EmbeddingWrapper(cw.GRUCell(N), 0, 3)
    sizes: dict[Any, tuple[int, ...]] = {
        contrib.InputProjectionWrapper: (3,), contrib.OutputProjectionWrapper: (3,), contrib.EmbeddingWrapper: (3, 3),
        contrib.HighwayWrapper: (),
    }  # fmt: skip
    for kind, rest in sizes.items():
        with pytest.raises(cw.ArgumentTypeError, match=kind.__name__):
            kind(7, *rest)
    with pytest.raises(cw.ArgumentError, match="output_size"):
        contrib.OutputProjectionWrapper(cw.GRUCell(N), 0)
    with pytest.raises(cw.ShapeError, match=r"expected inputs \[3, 5\] as the cell's outputs are, got \[3, 4\]"):
        contrib.HighwayWrapper(cw.GRUCell(N))(torch.zeros(B, D), torch.zeros(B, N))
    with pytest.raises(cw.ShapeError, match=r"expected inputs \[3, 5\]"):
        cw.dynamic_rnn(contrib.HighwayWrapper(cw.GRUCell(N)), torch.zeros(B, T, D), dtype="float32")
