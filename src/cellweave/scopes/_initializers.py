"""Initializers: TF1's, called as `initializer(shape, dtype)`, and torch's in-place ones."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from cellweave._errors import ArgumentError, ArgumentTypeError, ShapeError
from cellweave._types import DTypeLike, as_dtype, dtype_name
from cellweave.scopes._seeds import seeded_generator


def _fans(shape: Sequence[int]) -> tuple[float, float]:
    if len(shape) < 1:
        return 1.0, 1.0
    if len(shape) == 1:
        return float(shape[0]), float(shape[0])
    field = math.prod(shape[:-2])
    return float(shape[-2] * field), float(shape[-1] * field)


class Initializer:
    """Base of all: called as `initializer(shape, dtype)`; without a dtype its own `dtype` holds, as in TF1."""

    #: Whether it makes no whole numbers.
    _only_floating = False
    dtype: DTypeLike

    def __post_init__(self) -> None:
        where = type(self).__name__
        dtype = as_dtype(self.dtype, where)
        if self._only_floating and not dtype.is_floating_point:
            raise ArgumentError(f"{where}: expected a floating dtype, got {dtype_name(dtype)}.")
        object.__setattr__(self, "dtype", dtype_name(dtype))

    def __call__(self, shape: Sequence[int], dtype: DTypeLike = None) -> torch.Tensor:
        """A tensor of `shape` and `dtype`; default: the initializer's own dtype."""
        return self._values(tuple(shape), as_dtype(self.dtype if dtype is None else dtype, type(self).__name__))

    def _values(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        raise NotImplementedError


@dataclass(frozen=True)
class Zeros(Initializer):
    """All zeros."""

    dtype: DTypeLike = "float32"

    def _values(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype)


@dataclass(frozen=True)
class Ones(Initializer):
    """All ones."""

    dtype: DTypeLike = "float32"

    def _values(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.ones(shape, dtype=dtype)


@dataclass(frozen=True)
class Constant(Initializer):
    """One value everywhere, or a given array.

    Args:
        value: A number, or anything `torch.as_tensor` takes, with at most as many elements as the shape; the last one
            fills the places that are left, as in TF1.
    Raises:
        ShapeError: more elements than the shape has.
    """

    value: Any = 0.0
    dtype: DTypeLike = "float32"

    def _values(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        value = self.value if isinstance(self.value, torch.Tensor) else torch.as_tensor(self.value, device="cpu")
        if value.dim() == 0:
            return torch.full(shape, value.item(), dtype=dtype)
        size = math.prod(shape)
        if value.numel() > size:
            raise ShapeError(f"Constant: expected at most {size} values for {list(shape)}, got {value.numel()}.")
        value = value.to(torch.get_default_device(), dtype).flatten()
        if value.numel() == 0:
            return torch.zeros(shape, dtype=dtype)
        return torch.cat([value, value[-1:].expand(size - value.numel())]).reshape(shape)


@dataclass(frozen=True)
class RandomUniform(Initializer):
    """Uniform in [minval, maxval). `seed` makes it repeatable; else torch's default generator draws.

    A maxval of None is 1; for whole numbers it has to be given.

    Source: TF1 `tf.keras.initializers.RandomUniform`.
    """

    minval: float = -0.05
    maxval: float | None = 0.05
    seed: int | None = None
    dtype: DTypeLike = "float32"

    def _values(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        generator = seeded_generator(self.seed)
        if not (dtype.is_floating_point or dtype.is_complex):
            return _place(self._whole_numbers(shape, dtype, generator))
        noise = torch.rand(shape, dtype=dtype, device="cpu", generator=generator)
        maxval = 1.0 if self.maxval is None else self.maxval
        return _place(noise * (maxval - self.minval) + self.minval)

    def _whole_numbers(self, shape: tuple[int, ...], dtype: torch.dtype, generator: Any) -> torch.Tensor:
        if self.maxval is None:
            raise ArgumentError(f"RandomUniform: expected maxval for {dtype_name(dtype)}, got None. Give it.")
        low, high = int(self.minval), int(self.maxval)
        return torch.randint(low, high, shape, dtype=dtype, device="cpu", generator=generator)


@dataclass(frozen=True)
class RandomNormal(Initializer):
    """Normal with `mean` and `stddev`. Source: TF1 `tf.keras.initializers.RandomNormal`."""

    _only_floating = True
    mean: float = 0.0
    stddev: float = 0.05
    seed: int | None = None
    dtype: DTypeLike = "float32"

    def _values(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        noise = torch.randn(shape, dtype=dtype, device="cpu", generator=seeded_generator(self.seed))
        return _place(noise * self.stddev + self.mean)


@dataclass(frozen=True)
class TruncatedNormal(Initializer):
    """Normal with `mean` and `stddev`, redrawn beyond two standard deviations.

    Source: TF1 `tf.keras.initializers.TruncatedNormal`.
    """

    _only_floating = True
    mean: float = 0.0
    stddev: float = 0.05
    seed: int | None = None
    dtype: DTypeLike = "float32"

    def _values(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        empty = torch.empty(shape, dtype=dtype, device="cpu")
        generator = seeded_generator(self.seed)
        return _place(torch.nn.init.trunc_normal_(empty, generator=generator) * self.stddev + self.mean)


_DISTRIBUTIONS = ("uniform", "truncated_normal", "untruncated_normal", "normal")


@dataclass(frozen=True)
class VarianceScaling(Initializer):
    """Random with variance `scale / fan`, where fan is the inputs', the outputs' or their mean.

    `distribution` is "truncated_normal" or "normal", which TF1 has for the same, "untruncated_normal" or "uniform".

    Source: Glorot & Bengio 2010; He et al. 2015; TF1 `variance_scaling_initializer`.
    """

    _only_floating = True
    scale: float = 1.0
    mode: str = "fan_in"
    distribution: str = "truncated_normal"
    seed: int | None = None
    dtype: DTypeLike = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in ("fan_in", "fan_out", "fan_avg"):
            raise ArgumentError(f"VarianceScaling: expected mode fan_in, fan_out or fan_avg, got {self.mode!r}.")
        if self.distribution not in _DISTRIBUTIONS:
            raise ArgumentError(
                f"VarianceScaling: expected distribution out of {', '.join(_DISTRIBUTIONS)}, got {self.distribution!r}."
            )
        if self.scale <= 0:
            raise ArgumentError(f"VarianceScaling: expected scale > 0, got {self.scale}.")

    def _values(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
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
class GlorotUniform(Initializer):
    """Uniform in ±sqrt(6 / (fan_in + fan_out)): the default of every kernel. Source: Glorot & Bengio 2010."""

    _only_floating = True
    seed: int | None = None
    dtype: DTypeLike = "float32"

    def _values(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return VarianceScaling(1.0, "fan_avg", "uniform", self.seed)(shape, dtype)


@dataclass(frozen=True)
class GlorotNormal(Initializer):
    """Truncated normal of variance 2 / (fan_in + fan_out). Source: Glorot & Bengio 2010."""

    _only_floating = True
    seed: int | None = None
    dtype: DTypeLike = "float32"

    def _values(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return VarianceScaling(1.0, "fan_avg", "truncated_normal", self.seed)(shape, dtype)


@dataclass(frozen=True)
class Orthogonal(Initializer):
    """A random matrix with orthonormal rows or columns, times `gain`. Source: Saxe et al. 2014."""

    _only_floating = True
    gain: float = 1.0
    seed: int | None = None
    dtype: DTypeLike = "float32"

    def _values(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        if len(shape) < 2:
            raise ShapeError(f"Orthogonal: expected a shape of at least two axes, got {list(shape)}.")
        flat = torch.empty(math.prod(shape[:-1]), shape[-1], dtype=dtype, device="cpu")
        torch.nn.init.orthogonal_(flat, self.gain, generator=seeded_generator(self.seed))
        return _place(flat.reshape(shape))


@dataclass(frozen=True)
class Identity(Initializer):
    """The identity matrix times `gain`."""

    gain: float = 1.0
    dtype: DTypeLike = "float32"

    def _values(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
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


# TF1's names; where TF1 and Keras have other defaults under names of their own, both are kept.


@dataclass(frozen=True)
class random_uniform_initializer(RandomUniform):  # noqa: N801  # TF1's name
    """Uniform in [minval, maxval), by default in [0, 1). Source: TF1 `tf.random_uniform_initializer`."""

    minval: float = 0.0
    maxval: float | None = None


@dataclass(frozen=True)
class random_normal_initializer(RandomNormal):  # noqa: N801
    """Normal with `mean` and `stddev`, by default 0 and 1. Source: TF1 `tf.random_normal_initializer`."""

    stddev: float = 1.0


@dataclass(frozen=True)
class truncated_normal_initializer(TruncatedNormal):  # noqa: N801
    """Truncated normal with `mean` and `stddev`, by default 0 and 1. Source: TF1 `tf.truncated_normal_initializer`."""

    stddev: float = 1.0


zeros_initializer = Zeros
ones_initializer = Ones
constant_initializer = Constant
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
_BY_SNAKE_NAME = {re.sub(r"\B([A-Z])", r"_\1", name).lower(): cls for name, cls in _CLASSES.items()}


def serialize(initializer: Any) -> Any:
    """An initializer as plain data.

    Args:
        initializer: One of `cellweave.initializers`, or anything else.
    Returns:
        `{"class_name", "config"}`; what is not of that module as it is.
    """
    kind: Any = type(initializer)
    if kind in (random_uniform_initializer, random_normal_initializer, truncated_normal_initializer):
        kind = kind.__base__  # another class by its defaults only, which the config writes out
    if kind not in _CLASSES.values():
        return initializer
    return {"class_name": kind.__name__, "config": dict(vars(initializer))}


def deserialize(value: Any, where: str = "deserialize") -> Any:
    """The initializer that a name or `serialize`'s data stands for.

    Args:
        value: A name, such as `"glorot_uniform"`, or what `serialize` gave.
        where: How the error calls the caller. Default: `deserialize`.
    Returns:
        A new initializer; anything else than a name or such data as it is.
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
