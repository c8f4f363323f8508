"""What all cells with a spec share: names, dtypes, reuse, building, configs, copies, state_dicts."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import cellweave as cw
from cellweave import keras
from helpers import nest

B, D, N = 2, 4, 3
X = torch.linspace(-1.0, 1.0, B * D).reshape(B, D)

TF1: dict[str, Callable[..., Any]] = {
    "basic_rnn_cell": lambda **k: cw.BasicRNNCell(N, **k),
    "gru_cell": lambda **k: cw.GRUCell(N, **k),
    "basic_lstm_cell": lambda **k: cw.BasicLSTMCell(N, **k),
    "lstm_cell": lambda **k: cw.LSTMCell(N, use_peepholes=True, num_proj=2, **k),
}
KERAS: dict[str, Callable[..., Any]] = {
    "simple_rnn_cell": lambda **k: keras.SimpleRNNCell(N, **k),
    "gru_cell": lambda **k: keras.GRUCell(N, **k),
    "lstm_cell": lambda **k: keras.LSTMCell(N, **k),
}
ALL = {f"tf1-{name}": make for name, make in TF1.items()} | {f"keras-{name}": make for name, make in KERAS.items()}
every_cell = pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in ALL.items()])
every_tf1_cell = pytest.mark.parametrize("name", TF1)

SUFFIXES = {
    "basic_rnn_cell": {"kernel": (D + N, N), "bias": (N,)},
    "gru_cell": {
        "gates/kernel": (D + N, 2 * N),
        "gates/bias": (2 * N,),
        "candidate/kernel": (D + N, N),
        "candidate/bias": (N,),
    },
    "basic_lstm_cell": {"kernel": (D + N, 4 * N), "bias": (4 * N,)},
    "lstm_cell": {
        "kernel": (D + 2, 4 * N),
        "bias": (4 * N,),
        "w_f_diag": (N,),
        "w_i_diag": (N,),
        "w_o_diag": (N,),
        "projection/kernel": (N, 2),
    },
}


def _state(cell: Any, dtype: torch.dtype = torch.float32, value: float = 0.3) -> Any:
    zeros = cell.get_initial_state(batch_size=B, dtype=dtype)
    return nest.pack(zeros, [torch.full_like(leaf, value) for leaf in nest.flatten(zeros)])


def _step(cell: Any, x: torch.Tensor = X) -> list[torch.Tensor]:
    return nest.flatten(cell(x, _state(cell, x.dtype)))


def _same(a: Any, b: Any) -> bool:
    return all(torch.equal(p, q) for p, q in zip(_step(a), _step(b), strict=True))


@every_tf1_cell
def test_variables_in_creation_order(name: str) -> None:
    cell = TF1[name]()
    _step(cell)
    expected = {f"{name}/{suffix}": shape for suffix, shape in SUFFIXES[name].items()}
    assert [(n, tuple(v.shape)) for n, v in cw.variable_names(cell).items()] == list(expected.items())
    assert [tuple(w.shape) for w in cell.weights] == list(expected.values())
    for suffix, variable in zip(SUFFIXES[name], cell.weights, strict=True):
        assert getattr(cell, suffix.replace("/", "_")) is variable


@every_tf1_cell
def test_name(name: str) -> None:
    assert TF1[name]().name == f"{name}_1"
    cell = TF1[name](name="foo")
    _step(cell)
    assert cell.name == cell.scope_name == "foo"
    assert all(variable.startswith("foo/") for variable in cw.variable_names(cell))
    with pytest.raises(cw.ShapeError, match="'foo'.*expected"):
        cell(X[0], _state(cell))


@pytest.mark.parametrize("name", KERAS)
def test_name_of_a_keras_cell(name: str) -> None:
    assert KERAS[name]().name == name
    assert KERAS[name](name="foo").name == "foo"


@every_cell
def test_dtype_argument(make: Callable[..., Any]) -> None:
    for dtype in ("float64", np.float64, torch.float64):
        cell = make(dtype=dtype)
        assert cell.dtype == "float64"
        cell.build([None, D])
        assert {w.dtype for w in cell.weights} == {torch.float64}
        assert {leaf.dtype for leaf in _step(cell, X.double())} == {torch.float64}
        with pytest.raises(cw.DTypeError, match=r"float64.*float32"):
            cell(X, _state(cell))


@every_tf1_cell
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.complex64])
def test_dtype_of_the_first_input(name: str, dtype: torch.dtype) -> None:
    cell = TF1[name]()
    assert cell.dtype is None
    assert {leaf.dtype for leaf in _step(cell, X.to(dtype))} == {dtype}
    assert {w.dtype for w in cell.weights} == {dtype} and cell.dtype == str(dtype).removeprefix("torch.")


@every_tf1_cell
def test_built_before_any_call_is_float32(name: str) -> None:
    cell = TF1[name]()
    cell.build([B, D])
    assert cell.built and cell.dtype == "float32" and {w.dtype for w in cell.weights} == {torch.float32}


def test_keras_cells_are_float32_by_default() -> None:
    for make in KERAS.values():
        assert make().dtype == "float32"


@every_cell
@pytest.mark.parametrize("built", [False, True])
def test_dtype_follows_the_module(make: Callable[..., Any], built: bool) -> None:
    """Also before there are weights, and also where a dtype was given."""
    cell = make(dtype="float32")
    if built:
        cell.build([B, D])
    cell.double()
    assert cell.dtype == "float64" == cell.get_config()["dtype"]
    assert {leaf.dtype for leaf in _step(cell, X.double())} == {torch.float64}


@every_cell
def test_build_is_done_once(make: Callable[..., Any]) -> None:
    cell = make()
    assert not cell.built and not cell.weights
    cell.build([B, D])
    before = cell.weights
    cell.build([B, D])
    _step(cell)
    assert all(a is b for a, b in zip(before, cell.weights, strict=True))
    assert cell.count_params() == sum(w.numel() for w in before)


@every_cell
@pytest.mark.parametrize("shape", [[B, None], [D], [B, 1, D], None], ids=str)
def test_build_needs_a_known_depth(make: Callable[..., Any], shape: Any) -> None:
    cell = make()
    with pytest.raises((ValueError, TypeError)):
        cell.build(shape)
    assert not cell.built and not cell.weights and not list(cell.parameters())


@every_cell
def test_trainable(make: Callable[..., Any]) -> None:
    cell = make(trainable=False)
    _step(cell)
    assert cell.trainable_weights == [] and len(cell.non_trainable_weights) == len(cell.weights) > 0
    assert not any(w.requires_grad for w in cell.weights)
    cell.trainable = True
    assert all(w.requires_grad for w in cell.trainable_weights) and cell.non_trainable_weights == []


@every_tf1_cell
def test_reuse(name: str) -> None:
    with cw.VariableStore() as store:
        first = TF1[name](name="foo")
        _step(first)
        second = TF1[name](name="foo", reuse=True)
        third = TF1[name](name="foo", reuse=cw.AUTO_REUSE)
        fourth = TF1[name](name="foo")
        for cell in (second, third, fourth):
            _step(cell)
        assert _same(first, second) and _same(first, third)
        assert second.weights[0] is first.weights[0] is third.weights[0]
        assert fourth.scope_name == "foo_1" and fourth.weights[0] is not first.weights[0]
        assert len(store.variables) == 2 * len(first.weights)
        with pytest.raises(cw.ScopeError, match="bar/"):
            _step(TF1[name](name="bar", reuse=True))
        _step(TF1[name](name="bar", reuse=cw.AUTO_REUSE))
        assert len(store.variables) == 3 * len(first.weights)


@every_tf1_cell
def test_scope_initializer_reaches_kernels_and_no_bias(name: str) -> None:
    with cw.variable_scope("s", initializer=cw.initializers.Constant(0.25)):
        cell = TF1[name]()
        _step(cell)
    for suffix, variable in zip(SUFFIXES[name], cell.weights, strict=True):
        expected = {"gates/bias": 1.0}.get(suffix, 0.0) if suffix.endswith("bias") else 0.25
        assert (variable == expected).all(), suffix


@every_tf1_cell
def test_default_starting_values(name: str) -> None:
    torch.manual_seed(5)
    units = 64
    kind = type(TF1[name]())
    extra: dict[str, Any] = {"use_peepholes": True, "num_proj": 32} if name == "lstm_cell" else {}
    cell = kind(units, **extra)
    cell.build([None, 50])
    for full_name, variable in cw.variable_names(cell).items():
        if full_name.endswith("bias"):
            assert (variable == (1.0 if full_name.endswith("gates/bias") else 0.0)).all()
            continue
        fans = (variable.shape[0], variable.shape[-1])
        limit = (6.0 / sum(fans)) ** 0.5
        assert variable.abs().max() <= limit
        assert variable.abs().max() > 0.9 * limit and abs(variable.mean()) < 0.2 * limit


@pytest.mark.parametrize("units", [0, -1, 2.5, "3", None, True], ids=repr)
@pytest.mark.parametrize(
    "kind",
    [cw.BasicRNNCell, cw.GRUCell, cw.BasicLSTMCell, cw.LSTMCell, keras.SimpleRNNCell, keras.GRUCell, keras.LSTMCell],
)
def test_units_are_a_positive_int(kind: Any, units: Any) -> None:
    with pytest.raises((cw.ArgumentError, cw.ArgumentTypeError), match=f"{kind.__name__}.*expected a positive int"):
        kind(units)
    assert kind(np.int64(3)).output_size == 3


@every_cell
def test_config_holds_every_constructor_argument(make: Callable[..., Any]) -> None:
    cell = make()
    named = {
        key
        for key, parameter in inspect.signature(type(cell).__init__).parameters.items()
        if key != "self" and parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }
    assert named <= set(cell.get_config())
    assert {"name", "trainable", "dtype"} <= set(cell.get_config())


@every_cell
def test_config_round_trip(make: Callable[..., Any]) -> None:
    cell = make(name="foo", dtype="float64", activation="relu", trainable=False)
    _step(cell, X.double())
    other = type(cell).from_config(cell.get_config())
    assert other.get_config() == cell.get_config()
    assert (other.name, other.dtype, other.trainable) == ("foo", "float64", False)
    other.build([None, D])
    other.set_weights(cell.get_weights())
    for a, b in zip(_step(cell, X.double()), _step(other, X.double()), strict=True):
        assert torch.equal(a, b)


@every_cell
def test_state_dict_into_an_unbuilt_cell(make: Callable[..., Any]) -> None:
    cell = make()
    _step(cell)
    other = make()
    other.load_state_dict(cell.state_dict())
    assert _same(cell, other)
    assert [tuple(w.shape) for w in other.weights] == [tuple(w.shape) for w in cell.weights]


@every_cell
def test_the_order_of_a_state_dict_does_not_matter(make: Callable[..., Any]) -> None:
    """Files may hold names sorted; optimizers count on the parameters' order."""
    cell = make()
    _step(cell)
    for order in (sorted, lambda keys: sorted(keys, reverse=True)):
        other = make()
        other.load_state_dict({key: cell.state_dict()[key] for key in order(cell.state_dict())})
        assert _same(cell, other)
        assert [n for n, _ in other.named_parameters()] == [n for n, _ in cell.named_parameters()]


@every_cell
def test_copies_share_nothing(make: Callable[..., Any]) -> None:
    cell = make()
    _step(cell)
    for other in (copy.deepcopy(cell), pickle.loads(pickle.dumps(cell))):
        assert _same(cell, other) and cw.variable_names(other).keys() == cw.variable_names(cell).keys()
        with torch.no_grad():
            for weight in other.weights:
                weight.add_(1.0)
        assert not _same(cell, other)


@every_cell
def test_unbuilt_copies_build_apart(make: Callable[..., Any]) -> None:
    cell = make()
    other = copy.deepcopy(cell)
    _step(cell)
    assert not other.built
    _step(other)
    assert other.weights[0] is not cell.weights[0]


@every_cell
def test_gradients_reach_inputs_state_and_weights(make: Callable[..., Any]) -> None:
    cell = make()
    x, state = X.clone().requires_grad_(), _state(cell)
    leaves = [leaf.requires_grad_() for leaf in nest.flatten(state)]
    kept = [leaf.clone() for leaf in leaves]
    sum(leaf.sum() for leaf in nest.flatten(cell(x, state))).backward()
    for tensor in (x, *leaves, *cell.weights):
        assert tensor.grad is not None and tensor.grad.abs().sum() > 0
    assert all(torch.equal(a, b) for a, b in zip(leaves, kept, strict=True))


@every_cell
def test_inputs_must_be_tensors(make: Callable[..., Any]) -> None:
    cell = make()
    _step(cell)
    with pytest.raises(cw.ArgumentTypeError, match=f"{type(cell).__name__}: expected inputs as a tensor, got list"):
        cell(X.tolist(), _state(cell))


def test_an_activation_with_parameters_belongs_to_the_cell() -> None:
    cell = cw.BasicRNNCell(N, activation=torch.nn.PReLU())
    out, _ = cell(X, torch.zeros(B, N))
    out.sum().backward()
    slope = dict(cell.named_parameters())["activation_module.weight"]
    assert slope.grad is not None
    twin = copy.deepcopy(cell)
    with torch.no_grad():
        twin.activation_module.weight.fill_(0.0)
    assert (twin(X, torch.zeros(B, N))[0] >= 0).all()
    assert torch.equal(cell(X, torch.zeros(B, N))[0], out)


@pytest.mark.parametrize("inputs", [(torch.ones(2, 3),) * 2, [torch.ones(2, 3)] * 2, {"a": torch.ones(2, 3)}], ids=str)
@pytest.mark.parametrize("built", [False, True])
def test_several_inputs_are_one_too_many(inputs: Any, built: bool) -> None:
    cell = cw.GRUCell(3)
    if built:
        cell.build([None, 3])
    with pytest.raises(cw.StructureError, match="^GRUCell: expected .*got "):
        cell(inputs, torch.zeros(2, 3))


@pytest.mark.parametrize("kind", [cw.GRUCell, cw.LSTMCell, keras.SimpleRNNCell])
def test_inputs_and_states_on_another_device(kind: Any) -> None:
    cell = kind(N)
    cell.build([None, D])
    state = cell.get_initial_state(batch_size=B, dtype="float32")
    with pytest.raises(cw.MisfitError, match=f"^{kind.__name__}: expected inputs on cpu, got meta"):
        cell(X.to("meta"), state)
    with pytest.raises(cw.MisfitError, match=f"^{kind.__name__}: expected .* on cpu, got meta"):
        cell(X, nest.pack(state, [leaf.to("meta") for leaf in nest.flatten(state)]))


@every_cell
def test_inputs_that_are_no_tensors_are_called_by_their_kind(make: Any) -> None:
    cell = make()
    with pytest.raises(cw.ArgumentTypeError, match=r"expected inputs \[B, D\] as a tensor, got ndarray"):
        cell(np.ones((B, D), np.float32), torch.zeros(B, N))
    assert not cell.built
