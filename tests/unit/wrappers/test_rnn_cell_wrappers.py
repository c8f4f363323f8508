"""RNNCellResidualWrapper and RNNCellDeviceWrapper."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import cellweave as cw
from cellweave import keras

B, D = 2, 4
X = torch.linspace(-1.0, 1.0, B * D).reshape(B, D)
H = torch.linspace(-0.5, 0.5, B * D).reshape(B, D)


def _residual(cell: Any = None, *args: Any, **kwargs: Any) -> cw.RNNCellResidualWrapper:
    return cw.RNNCellResidualWrapper(keras.GRUCell(D) if cell is None else cell, *args, **kwargs)


def _device(cell: Any = None, device: Any = "/cpu:0", **kwargs: Any) -> cw.RNNCellDeviceWrapper:
    return cw.RNNCellDeviceWrapper(keras.GRUCell(D) if cell is None else cell, device, **kwargs)


BOTH = [
    pytest.param(_residual, "residual_wrapper", id="residual"),
    pytest.param(_device, "device_wrapper", id="device"),
]


def test_residual_adds_the_inputs() -> None:
    wrapper = _residual()
    out, state = wrapper(X, H)
    inner, inner_state = wrapper.cell(X, H)
    assert torch.equal(out, X + inner) and torch.equal(state, inner_state)


def test_residual_function() -> None:
    wrapper = _residual(keras.GRUCell(3), lambda x, y: torch.cat([x, y], dim=1))
    out, _ = wrapper(X, H[:, :3])
    assert out.shape == (B, 7) and wrapper.output_size == 3
    with pytest.raises(cw.ShapeError, match="RNNCellResidualWrapper: expected inputs"):
        _residual(keras.GRUCell(3))(X, H[:, :3])
    with pytest.raises(cw.ArgumentTypeError, match="RNNCellResidualWrapper: expected residual_fn"):
        _residual(None, 3)


def test_device_runs_there() -> None:
    wrapper = _device(device="meta")
    wrapper.build([None, D])
    assert {w.device.type for w in wrapper.weights} == {"meta"}
    out, state = wrapper(X.to("meta"), H.to("meta"))
    assert out.device.type == state.device.type == "meta"
    plain = _device()
    assert torch.equal(plain(X, H)[0], plain.cell(X, H)[0])
    assert _device(cw.GRUCell(D), "meta").zero_state(2, "float32").device.type == "meta"
    with pytest.raises(cw.ArgumentError, match="RNNCellDeviceWrapper: expected a device"):
        _device(device="nowhere")


@pytest.mark.parametrize("make, name", BOTH)
def test_names_weights_and_built(make: Any, name: str) -> None:
    with cw.VariableStore():
        assert [make().name for _ in range(2)] == [name, f"{name}_1"]
    wrapper = make()
    assert wrapper.dtype == "float32" and not wrapper.built
    wrapper(X, H)
    assert wrapper.built and wrapper.count_params() == sum(w.numel() for w in wrapper.cell.weights)
    assert list(cw.variable_names(wrapper)) == [f"{name}/{w}" for w in ("kernel", "recurrent_kernel", "bias")]
    assert [n for n, _ in wrapper.named_parameters()] == ["cell.kernel", "cell.recurrent_kernel", "cell.bias"]


@pytest.mark.parametrize("make, name", BOTH)
def test_wrapped_in_each_other(make: Any, name: str) -> None:
    wrapper = make(make(keras.GRUCell(D)))
    wrapper(X, H)
    names = list(cw.variable_names(wrapper))
    assert names == [f"{name}/{w}" for w in ("kernel", "recurrent_kernel", "bias")]
    assert len(wrapper.weights) == 3


@pytest.mark.parametrize("make, name", BOTH)
def test_forwarded_members(make: Any, name: str) -> None:
    wrapper = make(keras.LSTMCell(D))
    assert wrapper.wrapped_cell is wrapper.cell and wrapper.state_size == [D, D] and wrapper.output_size == D
    assert isinstance(wrapper.get_initial_state(X), list)
    with pytest.raises(AttributeError, match="zero_state"):
        wrapper.zero_state(2, "float32")
    with pytest.raises(AttributeError, match=f"{type(wrapper).__name__}.*call"):
        make("x")
    with pytest.raises(cw.ArgumentTypeError, match="'foo'"):
        make(foo=1)


@pytest.mark.parametrize("make, name", BOTH)
def test_a_tf1_cell_inside(make: Any, name: str) -> None:
    wrapper = make(cw.LSTMCell(D))
    state = cw.LSTMStateTuple(H, H)
    _out, new = wrapper(X, state)
    assert type(new) is cw.LSTMStateTuple
    assert list(cw.variable_names(wrapper)) == ["lstm_cell/kernel", "lstm_cell/bias"]
    assert wrapper.zero_state(2, "float32").c.shape == (2, D)


class OwnCell(cw.RNNCell):
    """A cell that makes its variable in its call."""

    state_size = output_size = D

    def call(self, inputs: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        new = torch.tanh(inputs @ cw.get_variable("w", [D, D]) + state)
        return new, new


@pytest.mark.parametrize(
    ("cell", "ends"),
    [
        (lambda: cw.BasicRNNCell(D), ["rnn/basic_rnn_cell/kernel", "rnn/basic_rnn_cell/bias"]),
        (lambda: cw.BasicRNNCell(D, name="mine"), ["rnn/mine/kernel", "rnn/mine/bias"]),
        (
            lambda: cw.MultiRNNCell([cw.BasicRNNCell(D)]),
            ["rnn/cell_0/basic_rnn_cell/kernel", "rnn/cell_0/basic_rnn_cell/bias"],
        ),
        (OwnCell, ["rnn/w"]),
    ],
)
def test_names_of_tf1_cells_inside(cell: Any, ends: list[str]) -> None:
    """As TensorFlow 2.15 has them: its wrappers run `call`, in the variable scope that is open around."""
    for wrapper in (_device(cell()), _residual(cw.RNNCellDropoutWrapper(cell(), name="outer"))):
        with cw.variable_scope("a"):
            cw.dynamic_rnn(wrapper, X[:, None].repeat(1, 3, 1), dtype="float32")
        assert list(cw.variable_names(wrapper)) == [f"a/{end}" for end in ends]


@pytest.mark.parametrize(
    ("cell", "name"), [(cw.BasicRNNCell, "basic_rnn_cell"), (keras.SimpleRNNCell, "residual_wrapper")]
)
def test_names_of_two_in_one_store(cell: Any, name: str) -> None:
    with cw.VariableStore() as store:
        for _ in range(2):
            _residual(cell(D))(X, H)
    assert [key for key in store.variables if key.endswith("/kernel")] == [f"{name}/kernel", f"{name}_1/kernel"]


@pytest.mark.parametrize("cell", [keras.GRUCell, cw.GRUCell])
def test_a_checkpoint_into_an_unbuilt_wrapper(cell: Any, tmp_path: Path) -> None:
    wrapper, other = (_residual(cw.RNNCellDropoutWrapper(cell(D))) for _ in range(2))
    out, _ = wrapper(X, H)
    cw.save_tf1(wrapper, tmp_path / "m")
    cw.load_tf1(other, tmp_path / "m")
    assert torch.equal(other(X, H)[0], out)
    assert list(cw.variable_names(other)) == list(cw.variable_names(wrapper))


@pytest.mark.parametrize("make, name", BOTH)
def test_state_dict_into_an_unbuilt_wrapper(make: Any, name: str) -> None:
    wrapper, other = make(), make()
    out, _ = wrapper(X, H)
    other.load_state_dict(wrapper.state_dict())
    assert torch.equal(other(X, H)[0], out) and len(other.weights) == 3
    copied = copy.deepcopy(wrapper)
    with torch.no_grad():
        copied.cell.kernel.add_(1)
    assert torch.equal(wrapper(X, H)[0], out) and not torch.equal(copied(X, H)[0], out)


def test_configs() -> None:
    residual = _residual(None, lambda x, y: x - y, name="foo", trainable=False)
    config = json.loads(json.dumps(residual.get_config()))
    fn = ["residual_fn", "residual_fn_type", "residual_fn_module"]
    assert list(config) == ["name", "trainable", "dtype", "cell", *fn]
    with pytest.raises(cw.ArgumentError, match="safe_mode=False"):
        cw.RNNCellResidualWrapper.from_config(config)
    other = cw.RNNCellResidualWrapper.from_config(config, safe_mode=False)
    assert (other.name, other.trainable) == ("foo", False)
    device = _device(device="/device:CPU:0")
    config = json.loads(json.dumps(device.get_config()))
    assert list(config) == ["name", "trainable", "dtype", "cell", "device"] and config["device"] == "/device:CPU:0"
    assert cw.RNNCellDeviceWrapper.from_config(config).get_config() == config
