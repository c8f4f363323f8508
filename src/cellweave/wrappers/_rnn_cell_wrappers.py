"""RNNCellResidualWrapper and RNNCellDeviceWrapper."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from cellweave._errors import ArgumentTypeError
from cellweave._types import DTypeLike, Nest, ShapeLike
from cellweave.cells import register
from cellweave.wrappers._base import KerasCellWrapper
from cellweave.wrappers._function_config import function_config, with_function
from cellweave.wrappers._placement import as_device, run_on
from cellweave.wrappers._residual import add_inputs


@register
class RNNCellResidualWrapper(KerasCellWrapper):
    """Adds a cell's inputs to its outputs: TF2's form, which owns the cell's variables.

    Args:
        cell: Anything with `call(inputs, state)`, `state_size` and `output_size`.
        residual_fn: `residual_fn(inputs, outputs)`; default: the sum, leaf by leaf, of equal shapes.
        kwargs: `name`, `trainable`, `dtype`.
    Raises:
        MemberError: no cell. ArgumentTypeError: an unknown keyword. In a call, ShapeError: shapes differ.
    Source: TF2 `tf.nn.RNNCellResidualWrapper`.
    """

    _class_base_name = "residual_wrapper"

    def __init__(self, cell: Any, residual_fn: Any = None, **kwargs: Any) -> None:
        super().__init__(cell, **kwargs)
        if residual_fn is not None and not callable(residual_fn):
            raise ArgumentTypeError(f"RNNCellResidualWrapper: expected residual_fn as a function, got {residual_fn!r}.")
        self._residual_fn = residual_fn

    def call(self, inputs: Nest, state: Nest, **kwargs: Any) -> tuple[Any, Any]:
        """One step of the cell, joined with its inputs."""
        outputs, new_state = self.cell.call(inputs, state, **kwargs)
        if self._residual_fn is not None:
            return self._residual_fn(inputs, outputs), new_state
        return add_inputs(inputs, outputs, self.where), new_state

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments as plain data; a function of the caller's as its marshalled code."""
        config = super().get_config()
        if self._residual_fn is not None:
            config.update(function_config("residual_fn", self._residual_fn))
        return config

    @classmethod
    def _loaded(
        cls, arguments: dict[str, Any], custom_objects: Mapping[str, Any] | None, safe_mode: bool
    ) -> dict[str, Any]:
        return with_function(arguments, "residual_fn", "residual_fn", custom_objects, safe_mode, cls.__name__)


@register
class RNNCellDeviceWrapper(KerasCellWrapper):
    """Runs a cell on a device: TF2's form, which owns the cell's variables.

    Args:
        cell: Anything with `call(inputs, state)`, `state_size` and `output_size`.
        device: A torch device or its name, or TF1's name for it (`/cpu:0`, `/device:GPU:1`).
        kwargs: `name`, `trainable`, `dtype`.
    Raises:
        MemberError: no cell. ArgumentError: no such device. ArgumentTypeError: an unknown keyword.
    Source: TF2 `tf.nn.RNNCellDeviceWrapper`.
    """

    _class_base_name = "device_wrapper"

    def __init__(self, cell: Any, device: Any, **kwargs: Any) -> None:
        super().__init__(cell, **kwargs)
        self._device = device
        self._torch_device = as_device(device, "RNNCellDeviceWrapper")

    def call(self, inputs: Nest, state: Nest, **kwargs: Any) -> tuple[Any, Any]:
        """One step of the cell on the device."""
        return run_on(self._torch_device, inputs, state, lambda x, s: self.cell.call(x, s, **kwargs))

    def build(self, input_shape: ShapeLike) -> None:
        """Build the cell inside, on the device."""
        with torch.device(self._torch_device):
            super().build(input_shape)

    def zero_state(self, batch_size: Any, dtype: DTypeLike) -> Any:
        """The cell's zero state, on the device."""
        with torch.device(self._torch_device):
            return super().zero_state(batch_size, dtype)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments as plain data."""
        return {**super().get_config(), "device": self._device}
