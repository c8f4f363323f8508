"""Any cell with its kernels as torch.nn keeps them: one for inputs, one for states, a row for each unit."""

from __future__ import annotations

from typing import Any

import numpy as np

from oracles.activations import Array
from oracles.tf1 import Cell

_KERNELS = ("kernel", "recurrent_kernel", "projection/kernel")


class ByUnit(Cell):
    """Wraps a cell whose kernels have a column for each unit; a joined `kernel` is cut below the inputs' rows."""

    def __init__(self, cell: Cell, depth: int) -> None:
        super().__init__()
        self.cell, self.depth, self.joined = cell, depth, "recurrent_kernel" not in cell.shapes
        self.state_size, self.output_size = cell.state_size, cell.output_size
        empty = {name: np.zeros(shape) for name, shape in cell.shapes.items()}
        self.shapes = {name: value.shape for name, value in self._outwards(empty).items()}

    def _outwards(self, arrays: dict[str, Array]) -> dict[str, Array]:
        found = {}
        for name, value in arrays.items():
            if name == "kernel" and self.joined:
                found[name], found["recurrent_kernel"] = value[: self.depth].T, value[self.depth :].T
            else:
                found[name] = value.T if name in _KERNELS else value
        return found

    def set_weights(self, weights: dict[str, Array]) -> None:
        super().set_weights(weights)
        inner = {name: value.T if name in _KERNELS else value for name, value in weights.items()}
        if self.joined:
            inner["kernel"] = np.vstack([inner["kernel"], inner.pop("recurrent_kernel")])
        self.cell.set_weights({name: inner[name] for name in self.cell.shapes})

    def forward(self, x: Array, state: Any, run: Any = None) -> tuple[Array, Any, Any]:
        return self.cell.forward(x, state, run)

    def backward(self, cache: Any, d_out: Array, d_state: Any) -> tuple[Array, Any]:
        found = self.cell.backward(cache, d_out, d_state)
        self.grads = self._outwards(self.cell.grads)
        return found
