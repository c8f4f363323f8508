"""convert and convert_back: the same objects with another class, whatever hangs on them."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

import cellweave
from helpers.tolerances import assert_close
from helpers.torch_pairs import leaves

KINDS = ("RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell")


class Tagger(nn.Module):
    """Some of everything; one module stands in two places, two modules share a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 7, 2, bidirectional=True, batch_first=True, dropout=0.3)
        self.same = self.lstm
        self.stack = nn.ModuleList([nn.GRU(14, 6), nn.Sequential(nn.RNN(6, 6, nonlinearity="relu"))])
        self.cell = nn.LSTMCell(6, 6)
        self.step = nn.GRUCell(6, 6)
        self.step.weight_hh.requires_grad_(False)
        self.stack[0].weight_hh_l0 = nn.GRU(14, 6).weight_hh_l0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, _ = self.lstm(x)
        x, _ = self.stack[0](x)
        x, _ = self.stack[1][0](x)
        h, _ = self.cell(x[0])
        return self.step(h)  # type: ignore[no-any-return]


def test_whole_model() -> None:
    model = Tagger()
    x = torch.randn(3, 4, 5)
    torch.manual_seed(1)
    wanted = model(x)
    objects, parameters = list(model.modules()), dict(model.named_parameters())
    report = cellweave.convert(model)
    assert report.model is model
    assert list(model.modules()) == objects
    assert all(dict(model.named_parameters())[name] is value for name, value in parameters.items())
    assert type(model.same) is cellweave.nn.LSTM
    assert type(model.stack[1][0]) is cellweave.nn.RNN
    torch.manual_seed(1)
    assert_close("converted", model(x), wanted, 5e-6)
    assert [row.name for row in report.modules] == ["lstm", "stack.0", "stack.1.0", "cell", "step"]
    assert "lstm: torch.nn.LSTM -> cellweave.nn.LSTM" in str(report)
    assert str(report).startswith("5 of 5 recurrent modules converted")

    again = cellweave.convert(model)
    assert not any(row.changed for row in again.modules)
    assert "cellweave's already" in str(again)

    back = cellweave.convert_back(model)
    assert all(row.changed for row in back.modules)
    assert [row.name for row in back.modules] == [row.name for row in report.modules]
    assert [type(module) for module in model.modules()] == [type(module) for module in Tagger().modules()]
    torch.manual_seed(1)
    assert torch.equal(model(x), wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_itself(kind: str) -> None:
    module = getattr(nn, kind)(5, 7)
    cellweave.convert(module)
    assert type(module) is getattr(cellweave.nn, kind)
    module(torch.randn(3, 5))
    cellweave.convert_back(module)
    assert type(module) is getattr(nn, kind)


def test_hooks_optimizer_and_mode() -> None:
    model = nn.Sequential(nn.GRU(5, 7)).eval()
    calls: list[str] = []
    model[0].register_forward_hook(lambda *_: calls.append("after"))
    model[0].register_forward_pre_hook(lambda *_: calls.append("before"))
    model[0].weight_ih_l0.register_hook(lambda grad: calls.append("grad"))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    before = model[0].weight_ih_l0.detach().clone()
    cellweave.convert(model)
    assert not model[0].training
    model(torch.randn(3, 2, 5))[0].sum().backward()
    optimizer.step()
    assert calls == ["before", "after", "grad"]
    assert not torch.equal(model[0].weight_ih_l0, before)


def test_parametrizations_stay() -> None:
    module = nn.LSTM(5, 7)
    parametrizations.orthogonal(module, "weight_hh_l0")
    x = torch.randn(3, 2, 5)
    wanted = module(x)[0]
    cellweave.convert(module)
    assert isinstance(module, cellweave.nn.LSTM)
    assert parametrize.is_parametrized(module, "weight_hh_l0")
    assert_close("parametrized", module(x)[0], wanted, 5e-6)
    module(x)[0].sum().backward()
    assert all(weight.grad is not None for weight in module.parameters())
    cellweave.convert_back(module)
    assert torch.equal(module(x)[0], wanted)
    parametrize.remove_parametrizations(module, "weight_hh_l0")
    assert type(module) is nn.LSTM


def test_parametrized_from_the_start() -> None:
    module = cellweave.nn.GRU(5, 7)
    parametrizations.weight_norm(module, "weight_ih_l0")
    x = torch.randn(3, 2, 5)
    wanted = module(x)[0]
    with torch.no_grad():
        module.parametrizations.weight_ih_l0.original0.mul_(2)
    assert not torch.allclose(module(x)[0], wanted)
    module(x)[0].sum().backward()
    assert module.parametrizations.weight_ih_l0.original0.grad is not None


def test_own_subclasses_are_left() -> None:
    class Mine(nn.LSTM):
        pass

    model = nn.Sequential(Mine(5, 7))
    report = cellweave.convert(model)
    assert type(model[0]) is Mine
    assert "a class of its own" in report.modules[0].note
    assert "0 of 1" in str(report)


def test_back_refuses_what_torch_does_not_have() -> None:
    model = nn.Sequential(
        cellweave.nn.GRU(5, 7), cellweave.nn.GRU(7, 7, reset_after=False), cellweave.nn.LSTM(7, 7, zoneout=0.1)
    )
    with pytest.raises(cellweave.ArgumentError, match=r"1 has reset_after=False; 2 has zoneout=0.1"):
        cellweave.convert_back(model)
    assert type(model[0]) is cellweave.nn.GRU  # all or nothing
    shared = cellweave.nn.GRU(5, 7, mask_per_row=False)
    cellweave.convert_back(shared)
    assert type(shared) is nn.GRU


def _torch_save(module: Any) -> Any:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "again", [copy.deepcopy, copy.copy, lambda m: pickle.loads(pickle.dumps(m)), _torch_save],
    ids=["deepcopy", "copy", "pickle", "torch.save"],
)  # fmt: skip
@pytest.mark.parametrize("converted", [True, False])
def test_copies(kind: str, again: Any, converted: bool) -> None:
    if converted:
        module = getattr(nn, kind)(5, 7)
        cellweave.convert(module)
    else:
        module = getattr(cellweave.nn, kind)(5, 7)
    other = again(module)
    x = torch.randn(3, 5)
    assert type(other) is type(module)
    for a, b in zip(leaves(other(x)), leaves(module(x)), strict=True):
        assert torch.equal(a, b)


def test_copies_keep_additions() -> None:
    module = cellweave.nn.GRU(5, 7, 2, zoneout=0.2, state_dropout=0.3, reset_after=False)
    other = pickle.loads(pickle.dumps(copy.deepcopy(module)))
    assert repr(other) == repr(module)
    other.zoneout = 0.5
    assert module.zoneout == 0.2


def test_own_subclasses_of_cellweave_are_told_as_such() -> None:
    class Mine(cellweave.nn.GRU):
        pass

    model = nn.Sequential(Mine(5, 7), cellweave.nn.LSTM(7, 7))
    assert "a subclass of cellweave's" in cellweave.convert(model).modules[0].note
    report = cellweave.convert_back(model)
    assert [(row.name, row.changed) for row in report.modules] == [("0", False), ("1", True)]
    assert type(model[0]) is Mine and "a class of its own" in report.modules[0].note


def test_a_forward_of_the_modules_own_is_not_hidden() -> None:
    model = nn.Sequential(nn.LSTM(3, 4))
    torch_forward = model[0].forward
    model[0].forward = lambda *args: torch_forward(*args)  # as accelerate's hooks do
    assert "its own attributes forward would hide" in str(cellweave.convert(model))
    assert type(model[0]) is nn.LSTM


@pytest.mark.parametrize("name", ["additions", "draws", "zoneout"])
def test_attributes_of_the_models_own_are_not_hidden(name: str) -> None:
    model = nn.Sequential(nn.LSTM(3, 4), nn.GRU(4, 2))
    setattr(model[0], name, "mine")
    report = cellweave.convert(model)
    assert type(model[0]) is nn.LSTM and getattr(model[0], name) == "mine" and type(model[1]) is cellweave.nn.GRU
    assert f"its own attributes {name} would hide" in str(report)


@pytest.mark.parametrize("act", [cellweave.convert, cellweave.convert_back])
@pytest.mark.parametrize("thing", [3, None, torch.nn.GRU])
def test_only_modules(act: Any, thing: Any) -> None:
    with pytest.raises(cellweave.ArgumentTypeError, match=f"^{act.__name__}: expected a module, got"):
        act(thing)
