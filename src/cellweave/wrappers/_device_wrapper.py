"""DeviceWrapper."""

from __future__ import annotations

from typing import Any

import torch

from cellweave._types import DTypeLike, Nest, ShapeLike
from cellweave.cells import register
from cellweave.wrappers._base import CellWrapper
from cellweave.wrappers._placement import as_device, run_on


@register
class DeviceWrapper(CellWrapper):
    """Runs a cell on a device: its weights are made there, inputs and state are moved there and back.

    Args:
        cell: Any recurrent cell.
        device: A torch device or its name, or TF1's name for it (`/cpu:0`, `/device:GPU:1`).
    Raises:
        ArgumentTypeError: no cell. ArgumentError: no such device.
    Source: TF1 `tf.nn.rnn_cell.DeviceWrapper`.
    """

    def __init__(self, cell: Any, device: Any, **kwargs: Any) -> None:
        super().__init__(cell, **kwargs)
        self._device = device
        self._torch_device = as_device(device, "DeviceWrapper")

    def call(self, inputs: Nest, state: Nest, **kwargs: Any) -> tuple[Any, Any]:
        """One step of the cell on the device."""
        return run_on(self._torch_device, inputs, state, lambda x, s: self.cell(x, s, **kwargs))

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
