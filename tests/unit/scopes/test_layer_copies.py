"""Copies of layers: deepcopy in eager and graph mode, pickle, torch.save, configs."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import cellweave as cw

N = 3
X = torch.linspace(-1.0, 1.0, 8).reshape(2, 4)
SEQUENCE = X[:, None].expand(2, 5, 4)
MAKERS: dict[str, Callable[[], Any]] = {
    "basic_rnn": lambda: cw.BasicRNNCell(N),
    "gru": lambda: cw.GRUCell(N, kernel_initializer="orthogonal"),
    "basic_lstm": lambda: cw.BasicLSTMCell(N, state_is_tuple=False),
    "lstm": lambda: cw.LSTMCell(N, use_peepholes=True, num_proj=2, cell_clip=0.5),
    "multi": lambda: cw.MultiRNNCell([cw.LSTMCell(N), cw.GRUCell(N)]),
    "dropout": lambda: cw.DropoutWrapper(cw.GRUCell(N), output_keep_prob=0.5, seed=3),
    "residual": lambda: cw.ResidualWrapper(cw.GRUCell(4)),
    "device": lambda: cw.DeviceWrapper(cw.GRUCell(N), "cpu"),
    "dropout_v2": lambda: cw.RNNCellDropoutWrapper(cw.GRUCell(N), output_keep_prob=0.5, seed=3),
    "keras_gru": lambda: cw.keras.GRUCell(N),
}
each_layer = pytest.mark.parametrize("kind", MAKERS)


def _run(cell: Any) -> torch.Tensor:
    return cw.dynamic_rnn(cell, SEQUENCE, dtype="float32")[0]


def _called(kind: str) -> Any:
    cell = MAKERS[kind]().eval()
    _run(cell)
    return cell


def _saved(cell: Any) -> Any:
    file = io.BytesIO()
    torch.save(cell, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


WAYS: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda cell: pickle.loads(pickle.dumps(cell)),
    "torch.save": _saved,
}


@each_layer
@pytest.mark.parametrize("way", WAYS)
class TestEager:
    def test_a_copy_computes_the_same(self, kind: str, way: str) -> None:
        cell = _called(kind)
        other = WAYS[way](cell)
        assert type(other) is type(cell)
        assert torch.equal(_run(other), _run(cell))
        assert list(cw.variable_names(other)) == list(cw.variable_names(cell))
        assert (other.name, other.dtype, other.built, other.training) == (cell.name, cell.dtype, cell.built, False)
        assert len(other.weights) == len(cell.weights)

    def test_a_copy_shares_nothing(self, kind: str, way: str) -> None:
        cell = _called(kind)
        other = WAYS[way](cell)
        pointers = {tensor.data_ptr() for tensor in cell.state_dict().values() if tensor.numel()}
        assert not pointers & {tensor.data_ptr() for tensor in other.state_dict().values() if tensor.numel()}
        before = _run(cell)
        optimizer = torch.optim.SGD(other.parameters(), lr=1.0)
        _run(other).sum().backward()
        optimizer.step()
        assert torch.equal(_run(cell), before)
        assert all(parameter.grad is None for parameter in cell.parameters())
        own = {id(module) for module in cell.modules()}
        assert not own & {id(module) for module in other.modules()}

    def test_a_copy_of_an_unbuilt_layer_builds_itself(self, kind: str, way: str) -> None:
        cell = MAKERS[kind]()
        other = WAYS[way](cell)
        _run(other)
        assert len(list(other.parameters())) > 0
        assert list(cell.parameters()) == []


class TestEagerDetails:
    def test_streams_go_on_from_where_they_are(self) -> None:
        cell = MAKERS["dropout"]()
        _run(cell)
        copies = [way(cell) for way in WAYS.values()]
        expected = _run(cell)
        assert all(torch.equal(_run(other), expected) for other in copies)

    def test_trainability_is_copied(self) -> None:
        cell = _called("gru")
        cell.trainable = False
        other = copy.deepcopy(cell)
        assert other.trainable_weights == []
        other.trainable = True
        assert not cell.trainable
        assert not any(weight.requires_grad for weight in cell.weights)

    def test_zero_states_are_not_shared(self) -> None:
        cell = _called("gru")
        state = cell.zero_state(2, "float32")
        assert copy.deepcopy(cell).zero_state(2, "float32") is not state

    def test_the_scope_is_copied(self) -> None:
        cell = _called("gru")
        other = copy.deepcopy(cell)
        assert other.scope_name == cell.scope_name
        assert other._scope is not cell._scope

    def test_a_cell_twice_in_a_module_stays_one(self) -> None:
        cell = cw.GRUCell(4)
        stack = cw.MultiRNNCell([cell, cell])
        _run(stack)
        other = copy.deepcopy(stack)
        assert other.cells[0] is other.cells[1]
        assert other.cells[0] is not cell

    def test_shared_variables_stay_shared_in_the_copy(self) -> None:
        with cw.VariableStore():
            first, second = cw.GRUCell(N), cw.GRUCell(N, name="gru_cell", reuse=True)
            first(X, torch.zeros(2, N))
            second(X, torch.zeros(2, N))
        for way in WAYS.values():
            a, b = way(nn.ModuleList([first, second]))
            assert a.gates_kernel is b.gates_kernel
            assert a.gates_kernel is not first.gates_kernel

    def test_a_parent_that_is_no_layer(self) -> None:
        model = nn.Sequential(_called("gru"))
        other = copy.deepcopy(model)
        assert other[0].gates_kernel is not model[0].gates_kernel

    def test_auto_reuse_stays_itself(self) -> None:
        cell = cw.GRUCell(N, reuse=cw.AUTO_REUSE)
        for way in WAYS.values():
            assert way(cell).get_config()["reuse"] is cw.AUTO_REUSE
        assert repr(cw.AUTO_REUSE) == "AUTO_REUSE"


@each_layer
class TestGraph:
    def test_deepcopy_shares_graph_and_variables(self, kind: str) -> None:
        with cw.Graph() as graph:
            cell = MAKERS[kind]().eval()
            out, _ = cell(cw.Input((None, 4)), _symbolic(cell))
            other = copy.deepcopy(cell)
        assert other is not cell
        assert other.graph is graph
        assert other.inbound_nodes[0].outputs[0] is out
        assert other.input is cell.input
        assert len(list(other.parameters())) == len(list(cell.parameters()))
        assert all(a is b for a, b in zip(other.parameters(), cell.parameters(), strict=True))

    def test_a_copys_nodes_are_its_own_from_there(self, kind: str) -> None:
        with cw.Graph():
            cell = MAKERS[kind]().eval()
            cell(cw.Input((None, 4)), _symbolic(cell))
            other = copy.deepcopy(cell)
            other(cw.Input((None, 4)), _symbolic(cell))
        assert (len(cell.inbound_nodes), len(other.inbound_nodes)) == (1, 2)

    @pytest.mark.parametrize("way", ["pickle", "torch.save"])
    def test_pickling_leaves_the_graph_behind(self, kind: str, way: str) -> None:
        with cw.Graph():
            cell = MAKERS[kind]().eval()
            cell(cw.Input((None, 4)), _symbolic(cell))
        other = WAYS[way](cell)
        with pytest.raises(cw.ModeError):
            _ = other.graph
        assert other.inbound_nodes == []
        assert torch.equal(_run(other), _run(cell))
        assert all(a is not b for a, b in zip(other.parameters(), cell.parameters(), strict=True))


def _symbolic(cell: Any) -> Any:
    def of(size: Any) -> Any:
        return cw.Input((None, size))

    size = cell.state_size
    if isinstance(size, int):
        return of(size)
    return type(size)(*map(of, size)) if hasattr(size, "_fields") else tuple(_symbolic_of(part, of) for part in size)


def _symbolic_of(size: Any, of: Callable[[Any], Any]) -> Any:
    return of(size) if isinstance(size, int) else type(size)(*map(of, size))


CONFIGS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "basic_rnn": (cw.BasicRNNCell, {"num_units": 5, "activation": "relu", "reuse": None}),
    "basic_rnn-reuse": (cw.BasicRNNCell, {"num_units": 5, "activation": "tanh", "reuse": True}),
    "gru": (
        cw.GRUCell,
        {
            "num_units": 5,
            "kernel_initializer": {"class_name": "Orthogonal", "config": {"gain": 2.0, "seed": 1, "dtype": "float32"}},
            "bias_initializer": {"class_name": "Constant", "config": {"value": 0.5, "dtype": "float32"}},
            "activation": "sigmoid",
            "reuse": False,
        },
    ),
    "gru-defaults": (
        cw.GRUCell,
        {"num_units": 5, "kernel_initializer": None, "bias_initializer": None, "activation": "tanh", "reuse": None},
    ),
    "basic_lstm": (
        cw.BasicLSTMCell,
        {"num_units": 5, "forget_bias": 0.25, "state_is_tuple": False, "activation": "softsign", "reuse": None},
    ),
    "lstm": (
        cw.LSTMCell,
        {
            "num_units": 5,
            "use_peepholes": True,
            "cell_clip": 0.0,
            "initializer": {
                "class_name": "RandomNormal",
                "config": {"mean": 0.0, "stddev": 0.1, "seed": None, "dtype": "float32"},
            },
            "num_proj": 2,
            "proj_clip": 0.25,
            "num_unit_shards": 3,
            "num_proj_shards": 2,
            "forget_bias": 2.0,
            "state_is_tuple": False,
            "activation": "elu",
            "reuse": None,
        },
    ),
    "lstm-defaults": (
        cw.LSTMCell,
        {
            "num_units": 5,
            "use_peepholes": False,
            "cell_clip": None,
            "initializer": None,
            "num_proj": None,
            "proj_clip": None,
            "num_unit_shards": None,
            "num_proj_shards": None,
            "forget_bias": 1.0,
            "state_is_tuple": True,
            "activation": "tanh",
            "reuse": None,
        },
    ),
}


@pytest.mark.parametrize("kind", CONFIGS)
class TestConfigs:
    def test_every_option(self, kind: str) -> None:
        cls, options = CONFIGS[kind]
        config = cls(**options, name="mine", dtype="float64", trainable=False).get_config()
        assert config == {**options, "name": "mine", "dtype": "float64", "trainable": False}

    def test_round_trip(self, kind: str) -> None:
        cls, options = CONFIGS[kind]
        cell = cls(**options, name="mine")
        other = cls.from_config(cell.get_config())
        assert type(other) is cls
        assert other.get_config() == cell.get_config()
        assert (other.state_size, other.output_size) == (cell.state_size, cell.output_size)

    def test_a_rebuilt_cell_computes_the_same(self, kind: str) -> None:
        cls, options = CONFIGS[kind]
        cell = cls(**{**options, "reuse": None})
        expected = _run(cell)
        other = cls.from_config(cell.get_config())
        other.build([None, 4])
        other.set_weights(cell.get_weights())
        assert torch.equal(_run(other), expected)

    def test_from_config_does_not_change_the_config(self, kind: str) -> None:
        cls, options = CONFIGS[kind]
        config = cls(**options).get_config()
        before = copy.deepcopy(config)
        cls.from_config(config)
        assert config == before


def test_a_config_of_a_layer() -> None:
    layer = cw.Layer(trainable=False, name="mine", dtype="float16")
    assert layer.get_config() == {"name": "mine", "trainable": False, "dtype": "float16"}
    assert cw.Layer.from_config(layer.get_config()).get_config() == layer.get_config()
    assert cw.Layer().get_config() == {"name": "layer_1", "trainable": True, "dtype": None}


def test_a_config_of_a_stack_has_base_keys_only() -> None:
    assert set(MAKERS["multi"]().get_config()) == {"name", "trainable", "dtype"}


def test_unknown_keys_of_a_config() -> None:
    with pytest.raises(cw.ArgumentTypeError, match="'colour'"):
        cw.GRUCell.from_config({"num_units": 3, "colour": "red"})


def test_an_activation_without_a_known_name() -> None:
    """It is kept by name, as Keras does, and that name says nothing to `from_config`."""
    config = cw.GRUCell(N, activation=_twice_tanh).get_config()
    assert config["activation"] == "_twice_tanh"
    with pytest.raises(cw.ArgumentError, match=r"GRUCell: expected an activation .*got '_twice_tanh'"):
        cw.GRUCell.from_config(config)
    assert cw.GRUCell.from_config({**config, "activation": _twice_tanh}).get_config() == config


def _twice_tanh(value: torch.Tensor) -> torch.Tensor:
    return 2 * torch.tanh(value)
