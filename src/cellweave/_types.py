"""Type aliases and dtype names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensor

from cellweave._errors import ArgumentTypeError
from cellweave._shape import TensorShape

#: A tensor, or a structure (tuple, list, namedtuple, dict) of them.
Nest: TypeAlias = Any
#: An int, a TensorShape, or a structure of them.
Size: TypeAlias = Any
#: A torch dtype, a NumPy dtype, or a name such as "float32".
DTypeLike: TypeAlias = Any
#: An int, a sequence of ints and Nones, or a TensorShape.
ShapeLike: TypeAlias = Any
#: A function of one tensor, or its name.
Activation: TypeAlias = "str | Callable[[torch.Tensor], torch.Tensor]"

_NAMES: dict[str, torch.dtype] = {
    str(value).removeprefix("torch."): value
    for value in (
        torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128,
        torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint32, torch.uint64,
        torch.bool,
    )
}  # fmt: skip


def as_dtype(value: DTypeLike, where: str = "dtype") -> torch.dtype:
    """Return the torch dtype that `value` names.

    Raises:
        ArgumentTypeError: `value` names no dtype that torch has.
    """
    if isinstance(value, torch.dtype):
        return value
    name = "float" if value is float else value  # TF1's float is float32, NumPy's is float64
    if not isinstance(name, str):
        try:
            name = "" if value is None else np.dtype(value).name  # NumPy takes None for float64
        except TypeError:
            name = ""
        if not name:
            raise ArgumentTypeError(f"{where}: expected a dtype or its name, got {value!r}.")
    name = {"half": "float16", "float": "float32", "double": "float64"}.get(name, name.removeprefix("torch."))
    if name not in _NAMES:
        raise ArgumentTypeError(f"{where}: expected a dtype out of {', '.join(_NAMES)}, got {value!r}.")
    return _NAMES[name]


def dtype_name(dtype: torch.dtype) -> str:
    """The name of a torch dtype without its `torch.` prefix, such as "float32"."""
    return str(dtype).removeprefix("torch.")


def is_readable(tensor: torch.Tensor) -> bool:
    """Whether its values can be read at once: it lies on the CPU, and is no fake, which has none."""
    return tensor.device.type == "cpu" and not isinstance(tensor, FakeTensor)


def shape_dims(shape: ShapeLike) -> tuple[int | None, ...]:
    """The dimensions of anything that names a shape."""
    if isinstance(shape, torch.Tensor):
        return tuple(int(dim) for dim in shape.tolist())
    return TensorShape(shape).dims
