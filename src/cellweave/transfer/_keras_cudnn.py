"""How Keras's `CuDNNLSTM` and `CuDNNGRU` of TF1 keep their weights: named as its other layers', in cuDNN's order.

A gate's `[rows, H]` of a kernel are the numbers of cuDNN's matrix `[H, rows]`, row by row; the bias has cuDNN's two.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cellweave.transfer._arrays import Array

#: Dimensions of a kernel.
_MATRIX = 2


def is_keras_cudnn(recurrent_kernel: tuple[int, ...], bias: tuple[int, ...]) -> bool:
    """Whether weights of these shapes are such a layer's: it alone has two biases in one row."""
    if len(recurrent_kernel) != _MATRIX or bias != (2 * recurrent_kernel[1],):
        return False
    return gates_of(recurrent_kernel) in (3, 4)


def gates_of(recurrent_kernel: tuple[int, ...]) -> int:
    """Gates of a layer; 0 where the shape is no recurrent kernel's."""
    units, columns = recurrent_kernel
    return 0 if not units or columns % units else columns // units


@dataclass(frozen=True)
class KerasCudnnLayout:
    """That layout.

    Attributes:
        gates: 4 of an LSTM, whose biases add up, 3 of a GRU, which has both.
    """

    gates: int

    def shape_of(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the parameter that is stored with this one."""
        if len(stored) == _MATRIX:
            return stored
        half = stored[0] // 2
        return (2, half) if self.gates == 3 else (half,)  # a GRU's

    def value(self, stored: Array) -> Array:
        """The parameter."""
        if stored.ndim == _MATRIX:
            parts = np.hsplit(stored, self.gates)
            return np.hstack([part.reshape(part.shape[::-1]).T for part in parts])
        both = stored.reshape(2, -1)
        return both if both.shape == self.shape_of(stored.shape) else both[0] + both[1]

    def slot(self, stored: Array) -> Array:
        """A slot of the parameter: both biases of an LSTM have the same gradient, so one's slot is the other's."""
        if stored.ndim == _MATRIX or len(self.shape_of(stored.shape)) == _MATRIX:
            return self.value(stored)
        half: Array = stored.reshape(2, -1)[0]
        return half
