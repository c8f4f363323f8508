"""RNNCellResidualWrapper and RNNCellDeviceWrapper."""

from __future__ import annotations

from typing import Any

from cellweave.cells import register
from cellweave.wrappers._base import KerasCellWrapper
from cellweave.wrappers._placement import DeviceBehavior
from cellweave.wrappers._residual import ResidualBehavior


@register
class RNNCellResidualWrapper(ResidualBehavior, KerasCellWrapper):
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
        self._init_residual(residual_fn)


@register
class RNNCellDeviceWrapper(DeviceBehavior, KerasCellWrapper):
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
        self._init_device(device)
