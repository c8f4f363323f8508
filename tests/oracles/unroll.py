"""Unrolling a cell over time with lengths, forward and backward, time major."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from oracles.activations import Array
from oracles.composition import Run, rebuild
from oracles.tf1 import Cell


def _choose(rows: Array, a: Any, b: Any) -> Any:
    """Rows of `a` where `rows` is true, of `b` elsewhere, leaf by leaf."""
    if isinstance(a, tuple | list):
        return rebuild(a, [_choose(rows, p, q) for p, q in zip(a, b, strict=True)])
    return np.where(rows[:, None], a, b)


def _zeros_like(state: Any) -> Any:
    if isinstance(state, tuple | list):
        return rebuild(state, [_zeros_like(item) for item in state])
    return np.zeros_like(state)


def _add(a: Any, b: Any) -> Any:
    if isinstance(a, tuple | list):
        return rebuild(a, [_add(p, q) for p, q in zip(a, b, strict=True)])
    return a + b


def zero_state(size: Any, batch: int) -> Any:
    """Zeros in the structure of a state size."""
    if isinstance(size, tuple | list):
        return rebuild(size, [zero_state(item, batch) for item in size])
    return np.zeros((batch, size))


def steps_executed(time: int, lengths: Sequence[int] | None) -> int:
    """How many steps TF1's graph mode runs."""
    return time if lengths is None else min(time, max(1, max(lengths, default=0)))


def unroll(
    cell: Cell,
    x: Array,
    state: Any,
    lengths: Sequence[int] | None = None,
    run: Run | None = None,
    op_per_step: bool = False,
) -> tuple[Array, Any, Any]:
    """Outputs `[T, B, O]` (zero past a row's length), the state after each row's last step, and a cache."""
    time, batch = x.shape[:2]
    run = Run() if run is None else run
    outputs = np.zeros((time, batch, cell.output_size))
    caches = []
    for t in range(steps_executed(time, lengths)):
        run.op = t if op_per_step else 0
        live = np.ones(batch, bool) if lengths is None else t < np.asarray(lengths)
        out, new, cache = cell.forward(np.asarray(x[t], np.float64), state, run)
        outputs[t] = np.where(live[:, None], out, 0.0)
        state = _choose(live, new, state)
        caches.append((live, cache))
    return outputs, state, caches


def unroll_backward(cell: Cell, x: Array, caches: Any, d_outputs: Array, d_state: Any) -> tuple[Array, Any]:
    """Gradients of x and of the first state; gradients of weights are summed into the cell's `grads`."""
    d_x = np.zeros(x.shape)
    for t in reversed(range(len(caches))):
        live, cache = caches[t]
        d_new = _choose(live, d_state, _zeros_like(d_state))
        d_old = _choose(live, _zeros_like(d_state), d_state)
        d_x[t], d_prev = cell.backward(cache, np.where(live[:, None], d_outputs[t], 0.0), d_new)
        d_state = _add(d_old, d_prev)
    return d_x, d_state


def reverse(x: Array, lengths: Sequence[int] | None) -> Array:
    """Each row's first `lengths[b]` steps in reverse order, the rest as it is."""
    if lengths is None:
        return x[::-1]
    flipped = x.copy()
    for b, n in enumerate(lengths):
        flipped[:n, b] = x[:n, b][::-1]
    return flipped
