"""Initializers: TF1's, called as `initializer(shape, dtype)`, and torch's in-place ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from cellweave._errors import ArgumentError, ArgumentTypeError, ShapeError
from cellweave.scopes._seeds import seeded_generator


def _fans(shape: Sequence[int]) -> tuple[float, float]:
    if len(shape) < 1:
        return 1.0, 1.0
    if len(shape) == 1:
        return float(shape[0]), float(shape[0])
    field = math.prod(shape[:-2])
    return float(shape[-2] * field), float(shape[-1] * field)


@dataclass(frozen=True)
class Zeros:
    """All zeros."""

    def __call__(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """A tensor of `shape` and `dtype`."""
        return torch.zeros(tuple(shape), dtype=dtype)


@dataclass(frozen=True)
class Ones:
    """All ones."""

    def __call__(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """A tensor of `shape` and `dtype`."""
        return torch.ones(tuple(shape), dtype=dtype)


@dataclass(frozen=True)
class Constant:
    """One value everywhere, or a given array.

    Args:
        value: A number, or anything `torch.as_tensor` takes with as many elements as the shape.
    Raises:
        ShapeError: the array's number of elements is not the shape's.
    """

    value: Any = 0.0

    def __call__(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """A tensor of `shape` and `dtype`."""
        value = self.value if isinstance(self.value, torch.Tensor) else torch.as_tensor(self.value, device="cpu")
        if value.dim() == 0:
            return torch.full(tuple(shape), value.item(), dtype=dtype)
        if value.numel() != math.prod(shape):
            raise ShapeError(f"Constant: expected {math.prod(shape)} values for {list(shape)}, got {value.numel()}.")
        return value.to(torch.get_default_device(), dtype).reshape(tuple(shape)).clone()


@dataclass(frozen=True)
class RandomUniform:
    """Uniform in [minval, maxval). `seed` makes it repeatable; else torch's default generator draws."""

    minval: float = -0.05
    maxval: float = 0.05
    seed: int | None = None

    def __call__(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """A tensor of `shape` and `dtype`."""
        noise = torch.rand(tuple(shape), dtype=dtype, device="cpu", generator=seeded_generator(self.seed))
        return _place(noise * (self.maxval - self.minval) + self.minval)


@dataclass(frozen=True)
class RandomNormal:
    """Normal with `mean` and `stddev`."""

    mean: float = 0.0
    stddev: float = 0.05
    seed: int | None = None

    def __call__(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """A tensor of `shape` and `dtype`."""
        noise = torch.randn(tuple(shape), dtype=dtype, device="cpu", generator=seeded_generator(self.seed))
        return _place(noise * self.stddev + self.mean)


@dataclass(frozen=True)
class TruncatedNormal:
    """Normal with `mean` and `stddev`, redrawn beyond two standard deviations."""

    mean: float = 0.0
    stddev: float = 0.05
    seed: int | None = None

    def __call__(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """A tensor of `shape` and `dtype`."""
        empty = torch.empty(tuple(shape), dtype=dtype, device="cpu")
        generator = seeded_generator(self.seed)
        return _place(torch.nn.init.trunc_normal_(empty, generator=generator) * self.stddev + self.mean)


@dataclass(frozen=True)
class VarianceScaling:
    """Random with variance `scale / fan`, where fan is the inputs', the outputs' or their mean.

    Source: Glorot & Bengio 2010; He et al. 2015; TF1 `variance_scaling_initializer`.
    """

    scale: float = 1.0
    mode: str = "fan_in"
    distribution: str = "truncated_normal"
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.mode not in ("fan_in", "fan_out", "fan_avg"):
            raise ArgumentError(f"VarianceScaling: expected mode fan_in, fan_out or fan_avg, got {self.mode!r}.")
        if self.distribution not in ("uniform", "truncated_normal", "untruncated_normal"):
            raise ArgumentError(
                "VarianceScaling: expected distribution uniform, truncated_normal or untruncated_normal, "
                f"got {self.distribution!r}."
            )
        if self.scale <= 0:
            raise ArgumentError(f"VarianceScaling: expected scale > 0, got {self.scale}.")

    def __call__(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """A tensor of `shape` and `dtype`."""
        fan_in, fan_out = _fans(shape)
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        variance = self.scale / max(1.0, fan)
        if self.distribution == "uniform":
            limit = math.sqrt(3.0 * variance)
            return RandomUniform(-limit, limit, self.seed)(shape, dtype)
        if self.distribution == "untruncated_normal":
            return RandomNormal(0.0, math.sqrt(variance), self.seed)(shape, dtype)
        # a normal cut at two sigma has this standard deviation; dividing by it restores the asked variance
        return TruncatedNormal(0.0, math.sqrt(variance) / 0.87962566103423978, self.seed)(shape, dtype)


@dataclass(frozen=True)
class GlorotUniform:
    """Uniform in ±sqrt(6 / (fan_in + fan_out)): the default of every kernel. Source: Glorot & Bengio 2010."""

    seed: int | None = None

    def __call__(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """A tensor of `shape` and `dtype`."""
        return VarianceScaling(1.0, "fan_avg", "uniform", self.seed)(shape, dtype)


@dataclass(frozen=True)
class GlorotNormal:
    """Truncated normal of variance 2 / (fan_in + fan_out). Source: Glorot & Bengio 2010."""

    seed: int | None = None

    def __call__(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """A tensor of `shape` and `dtype`."""
        return VarianceScaling(1.0, "fan_avg", "truncated_normal", self.seed)(shape, dtype)


@dataclass(frozen=True)
class Orthogonal:
    """A random matrix with orthonormal rows or columns, times `gain`. Source: Saxe et al. 2014."""

    gain: float = 1.0
    seed: int | None = None

    def __call__(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """A tensor of `shape` and `dtype`."""
        if len(shape) < 2:
            raise ShapeError(f"Orthogonal: expected a shape of at least two axes, got {list(shape)}.")
        flat = torch.empty(math.prod(shape[:-1]), shape[-1], dtype=dtype, device="cpu")
        torch.nn.init.orthogonal_(flat, self.gain, generator=seeded_generator(self.seed))
        return _place(flat.reshape(tuple(shape)))


@dataclass(frozen=True)
class Identity:
    """The identity matrix times `gain`."""

    gain: float = 1.0

    def __call__(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """A tensor of `shape` and `dtype`."""
        if len(shape) != 2:
            raise ShapeError(f"Identity: expected a shape of two axes, got {list(shape)}.")
        return self.gain * torch.eye(shape[0], shape[1], dtype=dtype)


def _place(value: torch.Tensor) -> torch.Tensor:
    return value.to(torch.get_default_device())


def as_tensor_of(initializer: Any, shape: Sequence[int], dtype: torch.dtype, where: str) -> torch.Tensor:
    """A starting value of `shape` and `dtype` by any kind of initializer.

    Args:
        initializer: Called as `initializer(shape, dtype=dtype)`; or one of `torch.nn.init` that fills in place; or a
            tensor or array to copy.
    Raises:
        ShapeError: the value has another shape. ArgumentTypeError: it is no tensor.
    """
    if isinstance(initializer, type):
        initializer = initializer()
    inner = getattr(initializer, "func", initializer)
    if getattr(inner, "__module__", "") == "torch.nn.init":
        return initializer(torch.empty(tuple(shape), dtype=dtype))  # type: ignore[no-any-return]
    value = initializer(tuple(shape), dtype=dtype) if callable(initializer) else initializer
    if not isinstance(value, torch.Tensor):
        raise ArgumentTypeError(f"{where}: expected an initializer that gives a tensor, got {type(value).__name__}.")
    if tuple(value.shape) != tuple(shape):
        raise ShapeError(f"{where}: expected an initial value {list(shape)}, got {list(value.shape)}.")
    return value.detach().to(dtype=dtype, copy=True)


# TF1's names.
zeros_initializer = Zeros
ones_initializer = Ones
constant_initializer = Constant
random_uniform_initializer = RandomUniform
random_normal_initializer = RandomNormal
truncated_normal_initializer = TruncatedNormal
variance_scaling_initializer = VarianceScaling
orthogonal_initializer = Orthogonal
identity_initializer = Identity
glorot_uniform_initializer = GlorotUniform
glorot_normal_initializer = GlorotNormal

_CLASSES = {
    cls.__name__: cls
    for cls in (
        Zeros, Ones, Constant, RandomUniform, RandomNormal, TruncatedNormal, VarianceScaling, GlorotUniform,
        GlorotNormal, Orthogonal, Identity,
    )
}  # fmt: skip
_BY_SNAKE_NAME = {
    "zeros": Zeros, "ones": Ones, "constant": Constant, "random_uniform": RandomUniform, "random_normal": RandomNormal,
    "truncated_normal": TruncatedNormal, "variance_scaling": VarianceScaling, "glorot_uniform": GlorotUniform,
    "glorot_normal": GlorotNormal, "orthogonal": Orthogonal, "identity": Identity,
}  # fmt: skip


def serialize(initializer: Any) -> Any:
    """An initializer as plain data `{"class_name", "config"}`; what is not of this module is returned as it is."""
    if type(initializer) not in _CLASSES.values():
        return initializer
    return {"class_name": type(initializer).__name__, "config": dict(vars(initializer))}


def deserialize(value: Any, where: str) -> Any:
    """The initializer that a name or `serialize`'s data stands for; anything else is returned as it is.

    Raises:
        ArgumentError: an unknown name.
    """
    config: dict[str, Any] = {}
    name = value
    if isinstance(value, dict) and "class_name" in value:
        name, config = value["class_name"], dict(value.get("config") or {})
    if not isinstance(name, str):
        return value
    cls: Any = _CLASSES.get(name) or _BY_SNAKE_NAME.get(name)
    if cls is None:
        raise ArgumentError(f"{where}: expected an initializer out of {', '.join(_BY_SNAKE_NAME)}, got {name!r}.")
    return cls(**config)
