"""Cells made of cells: layers, residual sums and dropout with TF1's random streams, forward and backward.

Structures of states are tuples, lists, `LSTMState` and arrays; gradients have the same structures.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from oracles.activations import Array, sigmoid
from oracles.philox import BLOCKS_PER_ELEMENT, mask_seed, op_seeds, uniform
from oracles.tf1 import Cell, LSTMState


class Run:
    """One session.run: which op of a site executes (static unrolls have one per step), and the noise drawn so far."""

    def __init__(self) -> None:
        self.op = 0
        self.noise: dict[tuple[int, str, int], Array] = {}


def rebuild(like: Any, items: list[Any]) -> Any:
    """One level of the structure `like` with other items."""
    return type(like)(*items) if isinstance(like, LSTMState) else type(like)(items)


def flatten(value: Any) -> list[Any]:
    """Leaves, depth first."""
    return [leaf for item in value for leaf in flatten(item)] if isinstance(value, tuple | list) else [value]


class MultiRNNCell(Cell):
    """Cells stacked: the output of one is the input of the next."""

    def __init__(self, cells: list[Any], state_is_tuple: bool = True) -> None:
        super().__init__()
        self.cells, self.tuple = cells, state_is_tuple
        sizes = [cell.state_size for cell in cells]
        self.cuts = np.cumsum(sizes)[:-1] if not state_is_tuple else []
        self.state_size = tuple(sizes) if state_is_tuple else sum(sizes)
        self.output_size = cells[-1].output_size

    def _parts(self, state: Any) -> list[Any]:
        return list(state) if self.tuple else np.split(state, self.cuts, axis=1)

    def _whole(self, parts: list[Any]) -> Any:
        return tuple(parts) if self.tuple else np.hstack(parts)

    def forward(self, x: Array, state: Any, run: Any = None) -> tuple[Array, Any, Any]:
        states, caches = [], []
        for cell, part in zip(self.cells, self._parts(state), strict=True):
            x, new, cache = cell.forward(x, part, run)
            states.append(new)
            caches.append(cache)
        return x, self._whole(states), caches

    def backward(self, cache: Any, d_out: Array, d_state: Any) -> tuple[Array, Any]:
        parts = self._parts(d_state)
        for k in reversed(range(len(self.cells))):
            d_out, parts[k] = self.cells[k].backward(cache[k], d_out, parts[k])
        return d_out, self._whole(parts)


#: Residual functions of the goldens: value and gradients by input and output.
RESIDUALS: dict[str, tuple[Callable[..., Array], Callable[..., tuple[Any, Any]]]] = {
    "sum": (lambda i, o: i + o, lambda i, o: (1.0, 1.0)),
    "half_in": (lambda i, o: 0.5 * i + o, lambda i, o: (0.5, 1.0)),
    "gate": (lambda i, o: i * sigmoid(o), lambda i, o: (sigmoid(o), i * sigmoid(o) * (1.0 - sigmoid(o)))),
    "out_minus_in": (lambda i, o: o - i, lambda i, o: (-1.0, 1.0)),
}


class Wrapper(Cell):
    """A cell around a cell."""

    def __init__(self, cell: Any) -> None:
        super().__init__()
        self.cell, self.state_size, self.output_size = cell, cell.state_size, cell.output_size


class DeviceWrapper(Wrapper):
    """Numerically neutral."""

    def forward(self, x: Array, state: Any, run: Any = None) -> tuple[Array, Any, Any]:
        return self.cell.forward(x, state, run)

    def backward(self, cache: Any, d_out: Array, d_state: Any) -> tuple[Array, Any]:
        return self.cell.backward(cache, d_out, d_state)


class ResidualWrapper(Wrapper):
    """`residual(input, output)`; the state passes through."""

    def __init__(self, cell: Any, residual: str = "sum") -> None:
        super().__init__(cell)
        self.value, self.slopes = RESIDUALS[residual]

    def forward(self, x: Array, state: Any, run: Any = None) -> tuple[Array, Any, Any]:
        out, new, cache = self.cell.forward(x, state, run)
        return self.value(x, out), new, (x, out, cache)

    def backward(self, cache: Any, d_out: Array, d_state: Any) -> tuple[Array, Any]:
        x, out, inner = cache
        by_x, by_out = self.slopes(x, out)
        d_x, d_old = self.cell.backward(inner, d_out * by_out, d_state)
        return d_x + d_out * by_x, d_old


def default_visitor(state: Any) -> Any:
    """TF1's own: c of an LSTM is never dropped."""
    return LSTMState(False, True) if isinstance(state, LSTMState) else True


VISITORS: dict[str, Callable[[Any], Any]] = {
    "drop_all": lambda s: True,
    "drop_none": lambda s: False,
    "only_c": lambda s: LSTMState(True, False) if isinstance(s, LSTMState) else True,
    "skip_lstm": lambda s: not isinstance(s, LSTMState),
    "first_only": lambda s: tuple(k == 0 for k in range(len(s))) if type(s) is tuple else True,
}


class DropoutWrapper(Wrapper):
    """Masks drawn from Philox streams, one per mask site.

    `keep` holds the three probabilities (input, state, output): a float, or for a fed tensor, which is then always
    applied, a function that tells what it holds now.
    """

    def __init__(
        self,
        cell: Any,
        keep: dict[str, float | Callable[[], float]],
        seed: int,
        graph_seed: int | None,
        dtype: str,
        variational: bool = False,
        input_size: int | None = None,
        visitor: Callable[[Any], Any] = default_visitor,
    ) -> None:
        super().__init__(cell)
        self.keep, self.seed, self.graph_seed, self.dtype = keep, seed, graph_seed, dtype
        self.variational, self.input_size, self.visitor = variational, input_size, visitor
        self.blocks: dict[tuple[str, int, int], int] = {}

    def _probability(self, kind: str) -> tuple[bool, float]:
        keep = self.keep[kind]
        if callable(keep):
            return True, float(np.dtype(self.dtype).type(keep()))
        return float(np.float32(keep)) != 1.0, float(np.float32(keep))

    def _uniform(self, kind: str, index: int, shape: tuple[int, ...], op: int) -> Array:
        seeds = op_seeds(self.graph_seed, mask_seed(self.seed, kind, index))
        block = self.blocks.get((kind, index, op), 0)
        self.blocks[kind, index, op] = block + BLOCKS_PER_ELEMENT * math.prod(shape)
        return uniform(shape, self.dtype, *seeds, block)

    def _mask(self, kind: str, index: int, shape: tuple[int, ...], keep: float, run: Run) -> Array:
        """What the value is multiplied by: 0 or 1 / keep."""
        real = np.dtype(self.dtype).type
        if self.variational:
            key = (id(self), kind, index)
            if key not in run.noise:
                run.noise[key] = self._uniform(kind, index, (1, shape[1]), 0)
            kept = np.floor(real(keep) + run.noise[key])
        else:
            kept = self._uniform(kind, index, shape, run.op) >= real(1.0 - keep)
        return np.broadcast_to(kept, shape).astype(np.float64) / keep

    def _drop_state(self, state: Any, keep: float, run: Run) -> tuple[Any, Any]:
        """The dropped state, and the multipliers in its structure."""
        position = 0

        def visit(value: Any, descend: bool) -> tuple[Any, Any]:
            nonlocal position
            verdict = descend and self.visitor(value)
            if verdict is False:
                position += len(flatten(value)) if self.variational else 1
                return value, 1.0
            if isinstance(value, tuple | list):
                flags = list(verdict) if isinstance(verdict, tuple | list) else [True] * len(value)
                pairs = [visit(item, flag) for item, flag in zip(value, flags, strict=True)]
                return rebuild(value, [item for item, _ in pairs]), [mask for _, mask in pairs]
            mask = self._mask("state", position, value.shape, keep, run)
            position += 1
            return value * mask, mask

        return visit(state, True)

    def forward(self, x: Array, state: Any, run: Any = None) -> tuple[Array, Any, Any]:
        masks: dict[str, Any] = {}
        active, keep = self._probability("input")
        if active:
            masks["input"] = self._mask("input", 0, x.shape, keep, run)
            x = x * masks["input"]
        out, new, cache = self.cell.forward(x, state, run)
        active, keep = self._probability("state")
        if active:
            new, masks["state"] = self._drop_state(new, keep, run)
        active, keep = self._probability("output")
        if active:
            masks["output"] = self._mask("output", 0, out.shape, keep, run)
            out = out * masks["output"]
        return out, new, (cache, masks)

    def backward(self, cache: Any, d_out: Array, d_state: Any) -> tuple[Array, Any]:
        inner, masks = cache
        d_out = d_out * masks.get("output", 1.0)
        if "state" in masks:
            d_state = _multiply(d_state, masks["state"])
        d_x, d_old = self.cell.backward(inner, d_out, d_state)
        return d_x * masks.get("input", 1.0), d_old


def _multiply(structure: Any, masks: Any) -> Any:
    if not isinstance(masks, list):  # a leaf's mask, or the 1.0 of a sublevel left alone
        return structure if isinstance(structure, tuple | list) else structure * masks
    return rebuild(structure, [_multiply(a, b) for a, b in zip(structure, masks, strict=True)])
