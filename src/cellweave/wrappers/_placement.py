"""Running a cell on a device and bringing the results back."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch

from cellweave import _nest
from cellweave._errors import ArgumentError
from cellweave._types import DTypeLike, Nest, ShapeLike
from cellweave.cells import plain_zeros
from cellweave.scopes import recordable
from cellweave.specs import DeviceSpec, describe
from cellweave.wrappers._base import Wrapper

_TF_DEVICE = re.compile(
    r"(?:/job:[^/]+)?(?:/replica:\d+)?(?:/task:\d+)?/(?:device:)?(cpu|gpu)(?::(\d+|\*))?", re.IGNORECASE
)


def as_device(device: Any, where: str) -> torch.device:
    """A torch device from torch's name for it, or TF1's (`/cpu:0`, `/device:GPU:1`).

    Raises:
        ArgumentError: not a device's name, or a device that this machine lacks.
    """
    if isinstance(device, torch.device):
        found = device
    else:
        match = _TF_DEVICE.fullmatch(str(device))
        name = str(device)
        if match:
            kind = "cuda" if match[1].lower() == "gpu" else "cpu"
            name = kind if kind == "cpu" or match[2] in (None, "*") else f"{kind}:{match[2]}"
        try:
            found = torch.device(name)
        except RuntimeError as error:
            raise ArgumentError(
                f"{where}: expected a device such as 'cpu', 'cuda:0' or '/gpu:0', got {device!r}."
            ) from error
    if found.type == "cuda" and not 0 <= (found.index or 0) < torch.cuda.device_count():
        raise ArgumentError(
            f"{where}: expected a device of this machine, got {device!r}: it has {torch.cuda.device_count()} GPUs."
        )
    return found


def run_on(
    device: torch.device, inputs: Nest, state: Nest, step: Callable[[Nest, Nest], tuple[Any, Any]]
) -> tuple[Any, Any]:
    """Run a step on `device`; outputs come back to the inputs' device, the new state to the state's."""
    home = next((leaf.device for leaf in _nest.flatten(inputs) if isinstance(leaf, torch.Tensor)), device)
    state_home = next((leaf.device for leaf in _nest.flatten(state) if isinstance(leaf, torch.Tensor)), device)
    with torch.device(device):
        output, new_state = step(_moved(inputs, device), _moved(state, device))
    return _moved(output, home), _moved(new_state, state_home)


def _moved(values: Nest, device: torch.device) -> Any:
    return _nest.map_structure(lambda leaf: leaf.to(device) if isinstance(leaf, torch.Tensor) else leaf, values)


class DeviceBehavior(Wrapper):
    """Mixin of the device wrappers."""

    def _init_device(self, device: Any) -> None:
        self._device = device
        self._torch_device = as_device(device, type(self).__name__)

    def call(self, inputs: Nest, state: Nest, **kwargs: Any) -> tuple[Any, Any]:
        """One step of the cell on the device."""
        return run_on(self._torch_device, inputs, state, lambda x, s: self._step(x, s, **kwargs))

    def build(self, input_shape: ShapeLike) -> None:
        """Build the cell inside, on the device."""
        with torch.device(self._torch_device):
            super().build(input_shape)

    @recordable
    @plain_zeros
    def zero_state(self, batch_size: Any, dtype: DTypeLike) -> Any:
        """The cell's zero state, on the device."""
        with torch.device(self._torch_device):
            return super().zero_state(batch_size, dtype)

    def spec(self) -> DeviceSpec:
        """What it does to the cell inside, as data. A subclass that changes a step has to give its own."""
        return DeviceSpec(describe(self.cell)[0], str(self._torch_device))

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments as plain data."""
        return {**super().get_config(), "device": self._device}
