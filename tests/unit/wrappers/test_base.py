"""What the v1 wrappers share: they own nothing and forward everything."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

import cellweave as cw
from cellweave import keras

X = torch.linspace(-1.0, 1.0, 6).reshape(2, 3)
PAIR = cw.LSTMStateTuple(torch.ones(2, 3), torch.ones(2, 3))

WRAPPERS: dict[str, Callable[..., Any]] = {
    "dropout": lambda cell, **k: cw.DropoutWrapper(cell, **k),
    "residual": lambda cell, **k: cw.ResidualWrapper(cell, **k),
    "device": lambda cell, **k: cw.DeviceWrapper(cell, "cpu", **k),
}
every_wrapper = pytest.mark.parametrize("wrap", [pytest.param(make, id=name) for name, make in WRAPPERS.items()])


@every_wrapper
def test_sizes_and_states_are_the_cells(wrap: Callable[..., Any]) -> None:
    cell = cw.LSTMCell(5, num_proj=3)
    wrapper = wrap(cell)
    assert wrapper.wrapped_cell is cell is wrapper.cell
    assert wrapper.state_size == cell.state_size == (5, 3) and wrapper.output_size == 3
    assert wrapper.zero_state(2, "float32") is cell.zero_state(2, "float32")
    state = wrapper.get_initial_state(X)
    assert type(state) is cw.LSTMStateTuple and state.h.shape == (2, 3)


@every_wrapper
def test_it_owns_nothing(wrap: Callable[..., Any]) -> None:
    wrapper = wrap(cw.LSTMCell(3))
    wrapper(X, PAIR)
    assert wrapper.weights == wrapper.trainable_weights == wrapper.non_trainable_weights == []
    assert not wrapper.built
    for member in (lambda: wrapper.count_params(), lambda: wrapper.scope_name):
        with pytest.raises(cw.ScopeError, match=type(wrapper).__name__):
            member()
    assert list(cw.variable_names(wrapper)) == ["lstm_cell/kernel", "lstm_cell/bias"]
    assert [name for name, _ in wrapper.named_parameters()] == ["cell.kernel", "cell.bias"]


@every_wrapper
def test_scope_is_handed_to_the_cell(wrap: Callable[..., Any]) -> None:
    wrapper = wrap(wrap(cw.LSTMCell(3)))
    wrapper(X, PAIR, scope="zed")
    assert list(cw.variable_names(wrapper)) == ["zed/kernel", "zed/bias"]


@every_wrapper
def test_keywords_are_handed_to_the_cell(wrap: Callable[..., Any]) -> None:
    class Scaled(cw.RNNCell):
        state_size = output_size = 3

        def call(self, inputs: Any, state: Any, factor: float = 1.0) -> Any:
            return inputs * 0, state * factor

    assert torch.equal(wrap(Scaled())(X, X, factor=3.0)[1], 3 * X)


@every_wrapper
def test_build_builds_the_cell(wrap: Callable[..., Any]) -> None:
    wrapper = wrap(cw.LSTMCell(3))
    wrapper.build([None, 3])
    assert wrapper.cell.built and wrapper.cell.kernel.shape == (6, 12) and not wrapper.built
    before = wrapper.cell.kernel
    wrapper(X, PAIR)
    assert wrapper.cell.kernel is before


@every_wrapper
def test_names_and_config(wrap: Callable[..., Any]) -> None:
    wrapper = wrap(cw.LSTMCell(3))
    base = {
        "DropoutWrapper": "dropout_wrapper",
        "ResidualWrapper": "residual_wrapper",
        "DeviceWrapper": "device_wrapper",
    }
    assert wrapper.name == base[type(wrapper).__name__] + "_1"
    named = wrap(cw.LSTMCell(3), name="foo", trainable=False)
    config = named.get_config()
    assert list(config)[:4] == ["name", "trainable", "dtype", "cell"]
    assert (config["name"], config["trainable"], config["dtype"]) == ("foo", False, None)
    assert config["cell"] == {"class_name": "LSTMCell", "config": named.cell.get_config()}
    with pytest.raises(cw.ArgumentTypeError, match=f"{type(wrapper).__name__}.*'foo'"):
        wrap(cw.LSTMCell(3), foo=1)


@every_wrapper
def test_from_config_needs_a_cell(wrap: Callable[..., Any]) -> None:
    wrapper = wrap(cw.LSTMCell(3))
    kind, config = type(wrapper), wrapper.get_config()
    without = {key: value for key, value in config.items() if key != "cell"}
    for bad in (config, without):
        with pytest.raises(cw.ArgumentError, match=f"{kind.__name__}.from_config: expected config..cell.. as a cell"):
            kind.from_config(bad)
    other = kind.from_config(config | {"cell": wrapper.cell})
    assert other.cell is wrapper.cell and other.get_config() == config


@every_wrapper
def test_the_cells_errors_pass_through(wrap: Callable[..., Any]) -> None:
    with pytest.raises(cw.ShapeError, match="LSTMCell: expected inputs"):
        wrap(cw.LSTMCell(3))(X[0], PAIR)


@every_wrapper
def test_copies_share_nothing(wrap: Callable[..., Any]) -> None:
    wrapper = wrap(cw.LSTMCell(3))
    out, _ = wrapper(X, PAIR)
    other = copy.deepcopy(wrapper)
    assert other.cell is not wrapper.cell and torch.equal(other(X, PAIR)[0], out)
    with torch.no_grad():
        other.cell.kernel.add_(1)
    assert not torch.equal(other(X, PAIR)[0], wrapper(X, PAIR)[0])


@every_wrapper
def test_state_dict_into_an_unbuilt_wrapper(wrap: Callable[..., Any]) -> None:
    wrapper, other = wrap(cw.LSTMCell(3)), wrap(cw.LSTMCell(3))
    out, _ = wrapper(X, PAIR)
    other.load_state_dict(wrapper.state_dict())
    assert torch.equal(other(X, PAIR)[0], out)


@every_wrapper
def test_around_a_keras_cell(wrap: Callable[..., Any]) -> None:
    """It has no zero_state, only get_initial_state; its state is a list."""
    wrapper = wrap(keras.LSTMCell(3))
    zeros = wrapper.zero_state(2, "float32")
    assert isinstance(zeros, list) and zeros[0].shape == (2, 3)
    out, state = cw.dynamic_rnn(wrapper, X[None], dtype="float32")
    assert isinstance(state, list) and out.shape == (1, 2, 3)


@every_wrapper
def test_train_and_eval_reach_the_cell(wrap: Callable[..., Any]) -> None:
    wrapper = wrap(cw.DropoutWrapper(cw.LSTMCell(3), input_keep_prob=0.5, seed=1))
    wrapper.eval()
    assert not wrapper.cell.training and torch.equal(wrapper(X, PAIR)[0], wrapper(X, PAIR)[0])
