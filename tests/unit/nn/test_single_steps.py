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
