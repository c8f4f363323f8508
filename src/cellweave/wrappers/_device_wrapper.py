"""DeviceWrapper."""

from __future__ import annotations

from typing import Any

from cellweave.cells import register
from cellweave.wrappers._base import CellWrapper
from cellweave.wrappers._placement import DeviceBehavior


@register
class DeviceWrapper(DeviceBehavior, CellWrapper):
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
        self._init_device(device)
