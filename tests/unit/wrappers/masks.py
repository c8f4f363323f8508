"""Masks as TensorFlow draws them, by the Philox oracle, and cells that show which masks met them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

import cellweave as cw
from oracles.philox import BLOCKS_PER_ELEMENT, mask_seed, op_seeds, uniform


def kept(
    seed: int,
    kind: str,
    index: int,
    shape: tuple[int, ...],
    keep: float,
    *,
    draw: int = 0,
    dtype: str = "float32",
    graph_seed: int | None = None,
) -> torch.Tensor:
    """True where draw number `draw` of a mask keeps an element; every draw before it had the same shape."""
    pair = op_seeds(graph_seed, mask_seed(seed, kind, index))
    noise = uniform(shape, dtype, *pair, draw * BLOCKS_PER_ELEMENT * math.prod(shape))
    threshold = torch.tensor(1.0 - float(np.float32(keep)), dtype=getattr(torch, dtype))
    return torch.tensor(np.asarray(noise, np.float64)) >= threshold.double()


def streams(wrapper: Any) -> dict[tuple[str, int, int], int]:
    """(kind, index, op) of every stream a v1 dropout wrapper has drawn from, and the elements drawn so far."""
    names = ("input", "state", "output")
    rows = wrapper.get_extra_state().tolist()
    return {(names[k], i, call): block // BLOCKS_PER_ELEMENT for k, i, _, call, _, _, block, _ in rows}


class Ones(cw.RNNCell):
    """Output: its input as it arrives. New state: ones in every leaf, so that a dropped state shows its own mask.

    `arrived` holds the states that came in, in order.
    """

    def __init__(self, size: int = 8, state_size: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.output_size_, self.state_size_ = size, size if state_size is None else state_size
        self.arrived: list[Any] = []

    @property
    def state_size(self) -> Any:
        """As given."""
        return self.state_size_

    @property
    def output_size(self) -> int:
        """As given."""
        return self.output_size_

    def call(self, inputs: torch.Tensor, state: Any) -> Any:
        """Ones, whatever comes in."""
        self.arrived.append(state)
        rows, dtype = inputs.shape[0], inputs.dtype
        return inputs, _ones(self.state_size_, rows, dtype)


def _ones(size: Any, rows: int, dtype: torch.dtype) -> Any:
    if isinstance(size, dict):
        return {key: _ones(item, rows, dtype) for key, item in size.items()}
    if isinstance(size, tuple | list):
        items = [_ones(item, rows, dtype) for item in size]
        return type(size)(*items) if hasattr(size, "_fields") else type(size)(items)
    return torch.ones(rows, size, dtype=dtype)
