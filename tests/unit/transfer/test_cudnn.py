"""cuDNN layers in checkpoints: the saveable's tensors, the opaque kernel beside them, and its slots."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import cellweave as cw
from cellweave.checkpoint import open_checkpoint, write_checkpoint
from helpers.cudnn_cases import CLASSES

H = 3
KINDS = [pytest.param(cls, id=cls.__name__) for cls in CLASSES.values()]
DIRECTIONS = ("unidirectional", "bidirectional")
X = torch.linspace(-1, 1, 60).reshape(4, 5, 3)  # as wide as the layers, so that these may skip it


def rmsprop(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.RMSprop(parameters, 0.05, momentum=0.9)


class Model(nn.Module):
    def __init__(self, cls: Any, *args: Any) -> None:
        super().__init__()
        self.rnn = cls(2, H, *args)
        self.fc = nn.Linear(H * self.rnn.num_dirs, 2)
        self(X)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.fc(self.rnn(inputs)[0])
        return out


def train(model: Model, optimizer: torch.optim.Optimizer, steps: int) -> torch.Tensor:
    for _ in range(steps):
        optimizer.zero_grad()
        (model(X) - 1).square().mean().backward()
        optimizer.step()
    return model(X).detach()


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("cls", KINDS)
def test_a_layer_is_saved_with_its_opaque_kernel(cls: Any, direction: str, tmp_path: Path) -> None:
    """TF1's graph of such a layer has the kernel as a variable: a Saver restores nothing without it."""
    layer = cls(2, H, direction=direction)
    with cw.variable_scope("main"):
        layer.build([None, None, 4])
    assert layer.scope_name.startswith("main/cudnn_")
    names = cw.save_tf1(layer, tmp_path / "m")
    base = layer.scope_name
    with open_checkpoint(tmp_path / "m") as checkpoint:
        assert set(checkpoint) == {*layer.tf_canonical_tensors(), f"{base}/opaque_kernel"}
        np.testing.assert_array_equal(checkpoint[f"{base}/opaque_kernel"], layer.opaque_kernel())
    assert names["opaque_kernel"] == f"{base}/opaque_kernel"
    assert cw.inspect_tf1(tmp_path / "m").parts[0].title.startswith(f"{cls.__name__}, 2 layers of 3 units")


@pytest.mark.parametrize(
    ("scope", "opaque"),
    [
        ("", "cudnn_lstm/opaque_kernel"),
        ("a/b", "a/b/cudnn_lstm/opaque_kernel"),
        ("a/cudnn_lstm", "a/cudnn_lstm/opaque_kernel"),  # built by its first call
        ("a", "a/lstm_2/opaque_kernel"),  # by another name
    ],
)
@pytest.mark.parametrize("built", [False, True])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_opaque_kernel_keeps_its_name(direction: str, built: bool, scope: str, opaque: str, tmp_path: Path) -> None:
    source = cw.CudnnLSTM(1, H, direction=direction)
    source.build([None, None, 4])
    stored = {f"{scope}/{name}".lstrip("/"): value for name, value in source.tf_canonical_tensors().items()}
    write_checkpoint(tmp_path / "m", {**stored, opaque: source.opaque_kernel(), "z/cudnn_lstm/opaque_kernel": [1.0]})
    model = nn.ModuleDict({"rnn": cw.CudnnLSTM(1, H, direction=direction)})
    if built:
        model["rnn"].build([None, None, 4])
    report = cw.load_tf1(model, tmp_path / "m")
    assert report.names["rnn.opaque_kernel"] == opaque
    assert set(cw.save_tf1(model, tmp_path / "n", names=report).values()) == {*stored, opaque}


def test_kernels_lie_beside_what_their_layers_are_saved_as(tmp_path: Path) -> None:
    layers = nn.ModuleDict({name: cw.CudnnGRU(1, H) for name in ("a", "b")})
    names = {}
    for name, layer in layers.items():
        layer.build([None, None, 4])
        saved = cw.save_tf1({name: layer}, tmp_path / "m", overwrite=True)
        names |= {path: f"{name}/{key}" for path, key in saved.items() if not path.endswith("opaque_kernel")}
    saved = cw.save_tf1(layers, tmp_path / "m", names=names, overwrite=True)
    assert saved["a.opaque_kernel"] == "a/cudnn_gru/opaque_kernel"
    assert saved["b.opaque_kernel"] == "b/cudnn_gru/opaque_kernel"
    others = {path: path.replace(".", "/") for path in names if path.startswith("a.")}  # no saveable's names
    assert cw.save_tf1({"a": layers["a"]}, tmp_path / "n", names=others)["a.opaque_kernel"] == "cudnn_gru/opaque_kernel"


@pytest.mark.parametrize(
    ("make", "args"),
    [(torch.optim.Adam, ()), (rmsprop, ("linear_input", "bidirectional")), (torch.optim.Adam, ("skip_input",))],
)
@pytest.mark.parametrize("cls", KINDS)
def test_training_goes_on(
    cls: Any, make: Callable[[Any], torch.optim.Optimizer], args: tuple[str, ...], tmp_path: Path
) -> None:
    """Slots of all weights are those of the opaque kernel; single biases are other ones, their sums are not."""
    model, other = Model(cls, *args), Model(cls, *args)
    optimizer = make(model.parameters())
    train(model, optimizer, 2)
    cw.save_tf1(model, tmp_path / "m", optimizer=optimizer, step=2)
    again = make(other.parameters())
    report = cw.load_tf1(other, tmp_path / "m", optimizer=again)
    assert {row.key for row in report.left} == {"global_step", f"{model.rnn.scope_name}/opaque_kernel"}
    torch.testing.assert_close(train(other, again, 3), train(model, optimizer, 3))
    cw.save_tf1(other, tmp_path / "n", names=report, optimizer=again)
    with open_checkpoint(tmp_path / "m") as first, open_checkpoint(tmp_path / "n") as second:
        assert set(first) - {"global_step"} == set(second)


def test_weights_that_no_optimizer_has_get_slots_of_zeros(tmp_path: Path) -> None:
    model = Model(cw.CudnnRNNTanh)
    optimizer = torch.optim.Adam([model.rnn.weight_hh_l1])
    train(model, optimizer, 1)
    cw.save_tf1(model, tmp_path / "m", optimizer=optimizer)
    with open_checkpoint(tmp_path / "m") as checkpoint:
        assert {name for name in checkpoint if name.endswith("Adam")} == {"cudnn_rnn_tanh/opaque_kernel/Adam"}
        slot = checkpoint["cudnn_rnn_tanh/opaque_kernel/Adam"]
    mean = optimizer.state[model.rnn.weight_hh_l1]["exp_avg"]
    assert np.count_nonzero(slot) == mean.numel()
    np.testing.assert_array_equal(slot[27:36], mean.flatten())  # behind W and R of the first layer, W of the second


@pytest.mark.parametrize(
    ("slots", "message"),
    [
        ({}, r"expected slots Adam, Adam_1 of cudnn_gru/opaque_kernel for rnn\.weight_ih_l0, got none"),
        ({"Adam": 9, "Adam_1": 9}, r"expected slots \[144\] of cudnn_gru/opaque_kernel, got \[9\]"),
    ],
)
def test_slots_that_are_not_there_or_of_another_size(slots: dict[str, int], message: str, tmp_path: Path) -> None:
    model = Model(cw.CudnnGRU)
    cw.save_tf1(model, tmp_path / "m")
    before = model.rnn.opaque_kernel()
    with open_checkpoint(tmp_path / "m") as checkpoint:
        arrays = dict(checkpoint)
    for tail in ("Adam", "Adam_1"):
        arrays |= {f"fc/{end}/{tail}": np.zeros_like(arrays[f"fc/{end}"]) for end in ("kernel", "bias")}
    arrays |= {f"cudnn_gru/opaque_kernel/{tail}": np.zeros(size, np.float32) for tail, size in slots.items()}
    write_checkpoint(tmp_path / "n", {name: value + 1 for name, value in arrays.items()})
    with pytest.raises(cw.CheckpointError, match=message):
        cw.load_tf1(model, tmp_path / "n", optimizer=torch.optim.Adam(model.parameters()))
    assert torch.equal(model.rnn.opaque_kernel(), before)
