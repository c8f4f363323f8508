"""The simple recurrent network (Elman 1990): `h' = act(x W + h R + b)`; `act(n(...))` with a gain and a shift `*_a`."""

from __future__ import annotations

from typing import Any

from oracles.activations import ACTIVATIONS, Array
from oracles.normalization import EPSILON, normalize, normalize_backward

Parameters = dict[str, Array]


def rnn_step(
    p: Parameters, x: Array, h: Array, *, activation: str = "tanh", epsilon: float = EPSILON
) -> tuple[Array, Any]:
    """One step: `W [I, H]`, `R [H, H]`, `b [H]`; returns h' `[B, H]` and what the backward step needs."""
    a, norm = normalize(p, "a", x @ p["W"] + h @ p["R"] + p["b"], epsilon)
    return ACTIVATIONS[activation].value(a), (p, x, h, a, activation, norm)


def rnn_step_backward(cache: Any, d_h: Array) -> tuple[Array, Array, Parameters]:
    """Gradients of x, of the old h and of each parameter for a gradient `d_h [B, H]` on h'."""
    p, x, h, a, activation, norm = cache
    grads: Parameters = {}
    d_a = normalize_backward(p, "a", norm, d_h * ACTIVATIONS[activation].slope(a), grads)
    grads |= {"W": x.T @ d_a, "R": h.T @ d_a, "b": d_a.sum(axis=0)}
    return d_a @ p["W"].T, d_a @ p["R"].T, grads
