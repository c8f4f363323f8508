"""Activation functions by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from cellweave._errors import ArgumentError, ArgumentTypeError
from cellweave._types import Activation

Function = Callable[[torch.Tensor], torch.Tensor]

#: TensorFlow keeps these as float32, whatever they are combined with: tf.nn.leaky_relu's slope, tf.nn.gelu's root of 2.
_LEAKY_SLOPE = float(np.float32(0.2))
_ROOT_OF_TWO = float(np.float32(math.sqrt(2.0)))
_SELU_SCALE = 1.0507009873554805
#: From here on softplus is the identity: what is missing is less than a float64 of this size can show.
_SOFTPLUS_END = 40.0


def _linear(x: torch.Tensor) -> torch.Tensor:
    return x


def _hard_sigmoid(x: torch.Tensor) -> torch.Tensor:
    return torch.clamp(0.2 * x + 0.5, 0.0, 1.0)  # TF1 Keras's slope; torch's own hardsigmoid has 1/6


def _leaky_relu(x: torch.Tensor) -> torch.Tensor:
    return F.leaky_relu(x, _LEAKY_SLOPE)


def _gelu(x: torch.Tensor) -> torch.Tensor:
    if x.dtype != torch.float64:  # elsewhere torch's constant rounds to the same
        return F.gelu(x)
    return 0.5 * x * (1.0 + torch.erf(x / _ROOT_OF_TWO))


def _selu(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x < 0, torch.selu(x), _SELU_SCALE * x)  # at 0 torch has the other slope


def _softplus(x: torch.Tensor) -> torch.Tensor:
    return F.softplus(x, threshold=_SOFTPLUS_END)


def _softmax(x: torch.Tensor) -> torch.Tensor:
    return torch.softmax(x, dim=-1)


_FUNCTIONS: dict[str, Function] = {
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
    "relu6": F.relu6,
    "linear": _linear,
    "identity": _linear,
    "softsign": F.softsign,
    "softplus": _softplus,
    "elu": F.elu,
    "selu": _selu,
    "gelu": _gelu,
    "swish": F.silu,
    "silu": F.silu,
    "mish": F.mish,
    "exponential": torch.exp,
    "hard_sigmoid": _hard_sigmoid,
    "leaky_relu": _leaky_relu,
    "softmax": _softmax,
}

#: The same functions under torch's other names for them.
_ALIASES: dict[Any, str] = {
    F.tanh: "tanh", F.sigmoid: "sigmoid", F.relu: "relu", F.selu: "selu", torch.selu: "selu", F.softplus: "softplus",
    torch.Tensor.tanh: "tanh", torch.Tensor.sigmoid: "sigmoid", torch.Tensor.relu: "relu",
    torch.Tensor.exp: "exponential",
    torch.nn.Tanh: "tanh", torch.nn.Sigmoid: "sigmoid", torch.nn.ReLU: "relu", torch.nn.ReLU6: "relu6",
    torch.nn.Softsign: "softsign", torch.nn.Identity: "linear", torch.nn.SiLU: "swish", torch.nn.SELU: "selu",
    torch.nn.Mish: "mish",
}  # fmt: skip


def as_activation(value: Any, where: str) -> Activation:
    """Return the name of a known activation, or the caller's own function as it is.

    Args:
        value: A name, a function of one tensor, or None (also any falsy value: tanh).
    Raises:
        ArgumentError: unknown name. ArgumentTypeError: neither a name nor callable.
    """
    if value is None or (not callable(value) and not value):
        return "tanh"
    if isinstance(value, str):
        if value not in _FUNCTIONS:
            raise ArgumentError(
                f"{where}: expected an activation out of {', '.join(sorted(_FUNCTIONS))}, got {value!r}."
            )
        return value
    if not callable(value):
        hint = " A cell takes no input size: its first inputs tell it." if isinstance(value, int) else ""
        raise ArgumentTypeError(f"{where}: expected an activation's name or a function, got {value!r}.{hint}")
    for name, function in _FUNCTIONS.items():
        if function is value:
            return name
    key: Any = type(value) if isinstance(value, torch.nn.Module) else value
    for function, name in _ALIASES.items():
        if function is key:
            return name
    found: Function = value
    return found


def activation_function(activation: Activation) -> Function:
    """The function behind an activation."""
    return _FUNCTIONS[activation] if isinstance(activation, str) else activation


def activation_name(activation: Activation) -> str:
    """The name that a cell's config holds; a caller's own function gives its `__name__`."""
    if isinstance(activation, str):
        return activation
    return str(getattr(activation, "__name__", type(activation).__name__))
