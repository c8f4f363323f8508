"""Activations by name, by function and by torch's other spellings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import cellweave as cw
from cellweave.ops.common import activation_function, activation_name, as_activation
from helpers.ids import named
from helpers.tolerances import assert_close
from oracles.activations import ACTIVATIONS

X = np.linspace(-9.0, 9.0, 37)

#: TF1's formulas of names that the oracles do not hold.
OTHERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "linear": lambda x: x,
    "identity": lambda x: x,
    "silu": lambda x: x / (1 + np.exp(-x)),
    "exponential": np.exp,
    "hard_sigmoid": lambda x: np.clip(0.2 * x + 0.5, 0.0, 1.0),
    "mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
    "softmax": lambda x: np.exp(x - x.max()) / np.exp(x - x.max()).sum(),
}


@pytest.mark.parametrize("name", sorted({*ACTIVATIONS, *OTHERS} - {"sin"}))
def test_known_names_compute_what_tensorflow_computes(name: str) -> None:
    expected = ACTIVATIONS[name].value(X) if name in ACTIVATIONS else OTHERS[name](X)
    assert as_activation(name, "Cell") == name
    assert_close(name, activation_function(name)(torch.tensor(X)), expected, 1e-14)


#: Values and slopes of TensorFlow 2.15 in float64 where they are its own: constants that it keeps in float32, a kink.
OF_TENSORFLOW = [
    ("leaky_relu", -2.0, -0.4000000059604645, 0.20000000298023224),
    ("leaky_relu", 0.0, 0.0, 0.20000000298023224),
    ("gelu", -2.0, -0.045500260200294296, -0.08523179738213274),
    ("gelu", 1.0, 0.8413447502096956, 1.083315474728839),
    ("selu", -2.0, -1.520166468595695, 0.2379328722516818),
    ("selu", 0.0, 0.0, 1.0507009873554805),
    ("softplus", 22.0, 22.00000000027895, 0.9999999997210532),
    ("mish", -2.0, -0.2525014826957089, -0.1083550924203939),
]


@pytest.mark.parametrize("name, x, value, slope", OF_TENSORFLOW, ids=str)
def test_constants_are_those_of_tensorflow(name: str, x: float, value: float, slope: float) -> None:
    point = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    found = activation_function(name)(point)
    found.backward()
    assert_close("value", found, value, 1e-14)
    assert_close("slope", point.grad, slope, 1e-14)


@pytest.mark.parametrize("nothing", [None, "", 0, False, (), []], ids=named)
def test_nothing_means_tanh(nothing: Any) -> None:
    assert as_activation(nothing, "Cell") == "tanh"


@pytest.mark.parametrize(
    "function, name",
    [
        (torch.tanh, "tanh"),
        (F.tanh, "tanh"),
        (torch.Tensor.tanh, "tanh"),
        (torch.nn.Tanh(), "tanh"),
        (torch.nn.Tanh, "tanh"),
        (torch.sigmoid, "sigmoid"),
        (F.sigmoid, "sigmoid"),
        (torch.relu, "relu"),
        (F.relu, "relu"),
        (torch.nn.ReLU(), "relu"),
        (F.relu6, "relu6"),
        (F.softsign, "softsign"),
        (F.silu, "swish"),
        (torch.selu, "selu"),
        (F.softplus, "softplus"),
        (torch.nn.Identity(), "linear"),
    ],
    ids=named,
)
def test_torch_functions_are_known_by_name(function: Any, name: str) -> None:
    assert as_activation(function, "Cell") == name


def _twice_tanh(x: torch.Tensor) -> torch.Tensor:
    return 2 * torch.tanh(x)


class _Scaled:
    """A callable without `__name__`, and without a hash."""

    __hash__ = None  # type: ignore[assignment]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return 3 * x

    def __eq__(self, other: object) -> bool:
        return False


def test_functions_of_the_caller_are_kept() -> None:
    for own in (_twice_tanh, _Scaled(), torch.nn.ELU(0.3), lambda x: x + 1):
        assert as_activation(own, "Cell") is own
        assert activation_function(own) is own
    assert activation_name(_twice_tanh) == "_twice_tanh"
    assert activation_name(_Scaled()) == "_Scaled"


def test_parameters_of_a_function_are_not_lost_in_its_name() -> None:
    """An ELU with a slope of its own is not the ELU that the name stands for."""
    own = as_activation(torch.nn.ELU(0.3), "Cell")
    assert activation_function(own)(torch.tensor(-50.0)).item() == pytest.approx(-0.3)


def test_unknown_name() -> None:
    with pytest.raises(cw.ArgumentError, match=r"Cell: expected an activation out of .*tanh.*, got 'tahn'"):
        as_activation("tahn", "Cell")


def test_neither_name_nor_function() -> None:
    with pytest.raises(cw.ArgumentTypeError, match=r"Cell: expected an activation.*got 3"):
        as_activation(3, "Cell")
