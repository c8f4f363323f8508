"""Activation functions with hand-written derivatives, by the names TensorFlow gives them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Array = np.ndarray

_SELU_SCALE = 1.0507009873554805  # Klambauer et al. 2017
_SELU_ALPHA = 1.6732632423543772
_LEAKY_SLOPE = float(np.float32(0.2))  # an attribute of TensorFlow's operator, which has it in float32


class Activation(NamedTuple):
    """A function of the pre-activation and its derivative there."""

    value: Callable[[Array], Array]
    slope: Callable[[Array], Array]


def sigmoid(x: Array) -> Array:
    """The logistic function, without overflow."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0 / (1.0 + e), e / (1.0 + e))


def _sigmoid_slope(x: Array) -> Array:
    return sigmoid(x) * (1.0 - sigmoid(x))


def _softplus(x: Array) -> Array:
    return np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0.0)


def _elu(x: Array) -> Array:
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0.0)))


def _elu_slope(x: Array) -> Array:
    return np.where(x > 0, 1.0, np.exp(np.minimum(x, 0.0)))


ACTIVATIONS: dict[str, Activation] = {
    "tanh": Activation(np.tanh, lambda x: 1.0 - np.tanh(x) ** 2),
    "sigmoid": Activation(sigmoid, _sigmoid_slope),
    "relu": Activation(lambda x: np.maximum(x, 0.0), lambda x: (x > 0).astype(x.dtype)),
    "relu6": Activation(lambda x: np.clip(x, 0.0, 6.0), lambda x: ((x > 0) & (x < 6)).astype(x.dtype)),
    "softsign": Activation(lambda x: x / (1.0 + np.abs(x)), lambda x: (1.0 + np.abs(x)) ** -2),
    "softplus": Activation(_softplus, sigmoid),
    "elu": Activation(_elu, _elu_slope),
    "selu": Activation(
        lambda x: _SELU_SCALE * np.where(x > 0, x, _SELU_ALPHA * np.expm1(np.minimum(x, 0.0))),
        lambda x: _SELU_SCALE * np.where(x < 0, _SELU_ALPHA * np.exp(np.minimum(x, 0.0)), 1.0),
    ),
    "swish": Activation(lambda x: x * sigmoid(x), lambda x: sigmoid(x) + x * _sigmoid_slope(x)),
    "hard_sigmoid": Activation(
        lambda x: np.clip(0.2 * x + 0.5, 0.0, 1.0), lambda x: 0.2 * (np.abs(x) < 2.5).astype(x.dtype)
    ),
    "leaky_relu": Activation(
        lambda x: np.where(x > 0, x, _LEAKY_SLOPE * x), lambda x: np.where(x > 0, 1.0, _LEAKY_SLOPE)
    ),
    "exponential": Activation(np.exp, np.exp),
    "linear": Activation(lambda x: x, np.ones_like),
    "identity": Activation(lambda x: x, np.ones_like),
    "sin": Activation(np.sin, np.cos),
}
