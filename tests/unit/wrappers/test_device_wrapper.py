"""DeviceWrapper, and devices by TF1's names."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import cellweave as cw

X = torch.linspace(-1.0, 1.0, 8).reshape(2, 4)
H = torch.linspace(-0.4, 0.4, 6).reshape(2, 3)


class Where(cw.RNNCell):
    """Remembers where it ran."""

    state_size = output_size = 3

    def call(self, inputs: Any, state: Any) -> Any:
        self.seen = (inputs.device.type, state.device.type, torch.empty(0).device.type)
        return torch.zeros(2, 3), state


@pytest.mark.parametrize(
    "name",
    ["cpu", "cpu:0", "/cpu:0", "/CPU:0", "/device:CPU:0", "/device:cpu:*", "/job:w/replica:0/task:0/device:CPU:0",
     torch.device("cpu")],
    ids=str,
)  # fmt: skip
def test_names_of_the_cpu(name: Any) -> None:
    wrapper = cw.DeviceWrapper(cw.GRUCell(3), name)
    out, _state = wrapper(X, H)
    assert out.device.type == "cpu" and torch.equal(out, wrapper.cell(X, H)[0])
    assert wrapper.get_config()["device"] is name


@pytest.mark.parametrize("name", ["/device:XPU9:0", "nowhere", "/gpu:977", "cuda:977", 3.5, ""], ids=str)
def test_devices_that_are_not_there(name: Any) -> None:
    with pytest.raises(cw.ArgumentError, match="DeviceWrapper: expected a device"):
        cw.DeviceWrapper(cw.GRUCell(3), name)


def test_everything_runs_on_the_device() -> None:
    cell = Where()
    wrapper = cw.DeviceWrapper(cell, "meta")
    _out, _state = wrapper(X.to("meta"), H.to("meta"))
    assert cell.seen == ("meta", "meta", "meta")
    assert wrapper.zero_state(2, "float32").device.type == "meta"
    assert cell.zero_state(2, "float32").device.type == "cpu"


def test_weights_are_made_on_the_device() -> None:
    wrapper = cw.DeviceWrapper(cw.GRUCell(3), "meta")
    wrapper.build([None, 4])
    assert {w.device.type for w in wrapper.cell.weights} == {"meta"}
    called = cw.DeviceWrapper(cw.GRUCell(3), "meta")
    called(X.to("meta"), H.to("meta"))
    assert {w.device.type for w in called.cell.weights} == {"meta"}


def test_results_come_back_home() -> None:
    class ToCpu(cw.RNNCell):
        state_size = output_size = 3

        def call(self, inputs: Any, state: Any) -> Any:
            return torch.ones(2, 3), (torch.ones(2, 3))

    out, state = cw.DeviceWrapper(ToCpu(), "cpu")(X, H)
    assert out.device.type == state.device.type == "cpu"


def test_config() -> None:
    wrapper = cw.DeviceWrapper(cw.GRUCell(3), "/cpu:0", name="foo")
    config = wrapper.get_config()
    assert list(config) == ["name", "trainable", "dtype", "cell", "device"]
    other = cw.DeviceWrapper.from_config(config | {"cell": wrapper.cell})
    assert other.get_config() == config and torch.equal(other(X, H)[0], wrapper(X, H)[0])


def test_gradients_pass() -> None:
    x = X.clone().requires_grad_()
    wrapper = cw.DeviceWrapper(cw.GRUCell(3), "/cpu:0")
    wrapper(x, H)[0].sum().backward()
    assert x.grad.abs().sum() > 0 and wrapper.cell.gates_kernel.grad.abs().sum() > 0
