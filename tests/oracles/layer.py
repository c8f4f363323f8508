"""A layer over a whole sequence with all that acts inside its time loop, forward and backward, time major.

At each step: resets replace the state, masks act on the inputs, the cell runs, zoneout takes some elements of c and h
from the state before the step (Krueger et al. 2017), masks act on the new c and h and on the output; rows past their
end give zeros and keep their state. A layer that reads backwards reads each row from its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from oracles.activations import Array
from oracles.composition import flatten, rebuild
from oracles.philox import uniform
from oracles.tf1 import Cell, LSTMState


class Mask(NamedTuple):
    """What a place is multiplied by, `[T or 1, B or 1, N]`, by a row's own steps.

    Places are "input", "h", "c", "output"; "zone_h" and "zone_c", where it is the share of the new value.
    """

    place: str
    values: Array


class LayerRun(NamedTuple):
    """What `layer_backward` needs."""

    cell: Cell
    live: Array  # [T, B]
    order: Array  # [T, B] memory index of each row's steps
    resets: Array  # [T, B] by a row's own steps
    factors: dict[str, Array]
    caches: list[Any]
    residual: bool
    states: list[Array]  # [T, B, N] of each leaf: the state after each step, by memory index


def mask_values(
    steps: int,
    shape: tuple[int, int],
    dtype: str,
    keep: float,
    *,
    by_floor: bool,
    stream: tuple[int, int, int],
    stride: int = 0,
    noise: Array | None = None,
    zone: bool = False,
) -> Array:
    """0 or 1 / keep, from the draws of `steps` steps of shape `[rows, N]`, or from given noise `[rows, N]`.

    Args:
        stream: Key, high half of the counter, and block of step 0; step t starts `stride * t` blocks later.
        by_floor: `floor(keep + noise)`, else `noise >= 1 - keep`; both in `dtype`.
        zone: 0 or 1 instead.
    """
    real = np.dtype(dtype).type
    seed, seed2, block = stream
    drawn = []
    for step in range(steps):
        u = noise if noise is not None else uniform(shape, dtype, seed, seed2, block + stride * step)
        drawn.append(np.floor(real(keep) + u) if by_floor else u >= real(1.0 - keep))
    values = np.array(drawn).reshape(steps, *shape).astype(np.float64)
    return values if zone else values / (float(real(keep)) if by_floor else keep)


def _leaf_names(state: Any) -> tuple[str, ...]:
    if isinstance(state, LSTMState):
        return ("c", "h")
    return ("h", "c")[: len(state)] if isinstance(state, list) else ("h",)


def _packed(like: Any, leaves: list[Array]) -> Any:
    return rebuild(like, leaves) if isinstance(like, tuple | list) else leaves[0]


def _choose(rows: Array, a: list[Array], b: list[Array]) -> list[Array]:
    return [np.where(rows[:, None], p, q) for p, q in zip(a, b, strict=True)]


def layer_forward(
    cell: Cell,
    x: Array,
    state: Any,
    *,
    lengths: Sequence[int] | None = None,
    resets: Array | None = None,
    fresh: Any = None,
    masks: Sequence[Mask] = (),
    residual: bool = False,
    reverse: bool = False,
) -> tuple[Array, Any, LayerRun]:
    """Outputs `[T, B, O]`, the state after each row's last step, and what the backward pass needs.

    Args:
        resets: `[T, B]` by memory index. fresh: What replaces the state then; None: zeros.
    """
    steps, rows = x.shape[:2]
    ends = np.full(rows, steps) if lengths is None else np.asarray(lengths)
    times = np.arange(steps)[:, None] + np.zeros((1, rows), int)
    live = times < ends
    order = np.where(live & reverse, ends - 1 - times, times)
    columns = np.arange(rows)[None, :]
    x = np.where(live[:, :, None], x, 0.0)
    struck = np.zeros((steps, rows), bool) if resets is None else resets[order, columns] & live
    names, leaves = _leaf_names(state), flatten(state)
    new_leaves = [np.zeros_like(leaf) for leaf in leaves] if fresh is None else flatten(fresh)
    widths = {"input": x.shape[2], "output": cell.output_size}
    widths |= {name: leaf.shape[1] for name, leaf in zip(names, leaves, strict=True)}
    widths |= {f"zone_{name}": widths[name] for name in names}
    factors = {place: np.ones((steps, rows, width)) for place, width in widths.items()}
    for mask in masks:
        factors[mask.place] = factors[mask.place] * mask.values
    own, outputs, caches = x[order, columns], np.zeros((steps, rows, cell.output_size)), []
    states = [np.zeros((steps, *leaf.shape)) for leaf in leaves]
    for s in range(steps):
        leaves = _choose(struck[s], new_leaves, leaves)
        out, new, cache = cell.forward(own[s] * factors["input"][s], _packed(state, leaves))
        shares = [factors[f"zone_{name}"][s] for name in names]
        zoned = [p * a + (1 - p) * b for p, a, b in zip(shares, flatten(new), leaves, strict=True)]
        if any(mask.place == "zone_h" for mask in masks):
            out = zoned[names.index("h")]
        masked = [leaf * factors[name][s] for name, leaf in zip(names, zoned, strict=True)]
        outputs[s] = np.where(live[s][:, None], out * factors["output"][s], 0.0)
        leaves = _choose(live[s], masked, leaves)
        for kept, leaf in zip(states, leaves, strict=True):
            kept[s] = leaf
        caches.append(cache)
    outputs = outputs[order, columns]
    states = [kept[order, columns] for kept in states]
    run = LayerRun(cell, live, order, struck, factors, caches, residual, states)
    return outputs + x if residual else outputs, _packed(state, leaves), run


def layer_backward(
    run: LayerRun, d_out: Array, d_state: Any, d_states: list[Array] | None = None
) -> tuple[Array, Any, Any]:
    """Gradients of x, of the first state and of the reset state; those of weights are summed into the cell's.

    Args:
        d_states: Of the leaves of the states after each step; None: zeros.
    """
    steps, rows = run.live.shape
    columns, names, d_leaves = np.arange(rows)[None, :], _leaf_names(d_state), flatten(d_state)
    d_fresh = [np.zeros_like(leaf) for leaf in d_leaves]
    d_out = np.where(run.live[:, :, None], d_out, 0.0)
    every = [leaf[run.order, columns] for leaf in d_states or [np.zeros_like(leaf) for leaf in run.states]]
    own, d_x = d_out[run.order, columns], np.zeros((steps, rows, run.factors["input"].shape[2]))
    for s in reversed(range(steps)):
        zeros = [np.zeros_like(leaf) for leaf in d_leaves]
        d_leaves = [a + b[s] for a, b in zip(d_leaves, every, strict=True)]
        d_new = _choose(run.live[s], d_leaves, zeros)
        d_new = [leaf * run.factors[name][s] for name, leaf in zip(names, d_new, strict=True)]
        kept = _choose(run.live[s], zeros, d_leaves)
        d_output = own[s] * run.factors["output"][s]
        shares = [run.factors[f"zone_{name}"][s] for name in names]
        through = [d + d_output if name == "h" else d for name, d in zip(names, d_new, strict=True)]
        kept = [leaf + (1 - share) * d for leaf, share, d in zip(kept, shares, through, strict=True)]
        d_new = [share * d for share, d in zip(shares, d_new, strict=True)]
        d_output = d_output * run.factors["zone_h"][s]
        d_in, d_old = run.cell.backward(run.caches[s], d_output, _packed(d_state, d_new))
        d_x[s] = d_in * run.factors["input"][s]
        d_leaves = [a + b for a, b in zip(kept, flatten(d_old), strict=True)]
        d_fresh = [a + b for a, b in zip(d_fresh, _choose(run.resets[s], d_leaves, zeros), strict=True)]
        d_leaves = _choose(run.resets[s], zeros, d_leaves)
    d_x = d_x[run.order, columns] + (d_out if run.residual else 0.0)
    return d_x, _packed(d_state, d_leaves), _packed(d_state, d_fresh)
