"""Cells of cellweave.nn beside those of torch.nn: numbers, start values, errors."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

import cellweave
from helpers.tolerances import assert_close
from helpers.torch_pairs import DIFFERENCE, leaves, run, twins
from unit.nn.test_errors import error_of

NAMES = ("RNNCell", "LSTMCell", "GRUCell")


def state_of(name: str, *shape: int, dtype: torch.dtype = torch.float32) -> Any:
    """A random state."""
    h = torch.randn(*shape, dtype=dtype)
    return (h, torch.randn(*shape, dtype=dtype)) if name == "LSTMCell" else h


CASES = list(itertools.product(NAMES, (True, False), (True, False), ("given", "none"), (torch.float32, torch.float64)))


@pytest.mark.parametrize(("name", "bias", "batched", "hx", "dtype"), CASES)
def test_same_numbers(name: str, bias: bool, batched: bool, hx: str, dtype: torch.dtype) -> None:
    pair = twins(name, 5, 7, bias, dtype=dtype)
    x = torch.randn(*((3,) if batched else ()), 5, dtype=dtype)
    state = state_of(name, *((3,) if batched else ()), 7, dtype=dtype) if hx == "given" else None
    (theirs, d_theirs), (ours, d_ours) = (run(module, x, state) for module in pair)
    assert type(ours) is type(theirs)
    for a, b in zip([*leaves(ours), *d_ours], [*leaves(theirs), *d_theirs], strict=True):
        assert_close("value or gradient", a, b, DIFFERENCE[dtype])


@pytest.mark.parametrize("name", NAMES)
def test_same_start_names_and_class(name: str) -> None:
    theirs, ours = twins(name, 5, 7)
    assert isinstance(ours, getattr(torch.nn, name))
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert ours(torch.zeros(0, 5))[0].shape == theirs(torch.zeros(0, 5))[0].shape if name == "LSTMCell" else True


def test_nonlinearity() -> None:
    pair = twins("RNNCell", 5, 7, nonlinearity="relu")
    x = torch.randn(3, 5)
    assert_close("relu", pair[1](x), pair[0](x), DIFFERENCE[torch.float32])
    odd = twins("RNNCell", 5, 7, nonlinearity="gelu")
    assert error_of(lambda: odd[0](x)) is error_of(lambda: odd[1](x)) is RuntimeError


def test_reset_before_the_product() -> None:
    cell = cellweave.nn.GRUCell(5, 7, reset_after=False)
    layer = cellweave.nn.GRU(5, 7, reset_after=False)
    for name, weight in cell.named_parameters():
        getattr(layer, f"{name}_l0").data = weight.data
    x, h = torch.randn(3, 5), torch.randn(3, 7)
    assert_close("step", cell(x, h), layer(x[None], h[None])[0][0], 1e-6)
    assert "reset_after=False" in repr(cell)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "options", [{"zoneout": 0.4}, {"layer_norm": True}, {"zoneout": 0.3, "layer_norm": True}], ids=str
)
@pytest.mark.parametrize("name", NAMES)
def test_additions(name: str, options: dict[str, Any], training: bool) -> None:
    """One step of the cell is the layer's first: the same draws, numbers and gradients."""
    torch.manual_seed(3)
    cell = getattr(cellweave.nn, name)(5, 7, **options).train(training)
    layer = getattr(cellweave.nn, name.removesuffix("Cell"))(5, 7, **options).train(training)
    for parameter in cell.parameters():
        torch.nn.init.uniform_(parameter, -0.9, 0.9)
    layer.load_state_dict({f"{key}_l0": value for key, value in cell.state_dict().items()})
    x, state = torch.randn(3, 5), state_of(name, 3, 7)
    ours, d_ours = run(cell, x, state, seed=11)
    torch.manual_seed(11)
    whole = tuple(leaf[None] for leaf in state) if name == "LSTMCell" else state[None]
    _, last = layer(x[None], whole)
    for a, b in zip(leaves(ours), leaves(last), strict=True):
        assert_close("value", a, b[0], 1e-6)
    assert len(d_ours) > len(list(cell.parameters())) and all(bool(d.abs().sum() > 0) for d in d_ours)
    assert all(f"{key}={value}" in repr(cell) for key, value in options.items())
    cell.reset_parameters()
    assert all(bool((p == ("weight" in key)).all()) for key, p in cell.named_parameters() if key.startswith("norm_"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "call",
    [
        lambda name: (torch.zeros(1, 2, 5),),
        lambda name: (torch.zeros(2, 4),),
        lambda name: (torch.zeros(2, 5), state_of(name, 3, 7)),
        lambda name: (torch.zeros(2, 5), state_of(name, 2, 6)),
        lambda name: (torch.zeros(2, 5), state_of(name, 2, 2, 7)),
        lambda name: (torch.zeros(5), state_of(name, 2, 7)),
        lambda name: (torch.zeros(2, 5), state_of(name, 2, 7, dtype=torch.float64)),
        lambda name: (torch.zeros(2, 5, dtype=torch.float64),),
    ],
)
def test_same_mistakes(name: str, call: Any) -> None:
    theirs, ours = twins(name, 5, 7)
    expected = error_of(lambda: theirs(*call(name)))
    assert expected is not None
    assert error_of(lambda: ours(*call(name))) is expected


@pytest.mark.parametrize("name", NAMES)
def test_plan(name: str) -> None:
    plan = cellweave.explain(getattr(cellweave.nn, name)(5, 7), torch.zeros(2, 5), show=False)
    assert plan.backends == ("native",)
    assert plan.rows[0].cell.startswith(name)
