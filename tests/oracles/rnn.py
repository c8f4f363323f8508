"""The simple recurrent network (Elman 1990): `h' = act(x W + h R + b)`."""

from __future__ import annotations

from typing import Any

from oracles.activations import ACTIVATIONS, Array

Parameters = dict[str, Array]


def rnn_step(p: Parameters, x: Array, h: Array, *, activation: str = "tanh") -> tuple[Array, Any]:
    """One step: `W [I, H]`, `R [H, H]`, `b [H]`; returns h' `[B, H]` and what the backward step needs."""
    a = x @ p["W"] + h @ p["R"] + p["b"]
    return ACTIVATIONS[activation].value(a), (p, x, h, a, activation)


def rnn_step_backward(cache: Any, d_h: Array) -> tuple[Array, Array, Parameters]:
    """Gradients of x, of the old h and of each parameter for a gradient `d_h [B, H]` on h'."""
    p, x, h, a, activation = cache
    d_a = d_h * ACTIVATIONS[activation].slope(a)
    return d_a @ p["W"].T, d_a @ p["R"].T, {"W": x.T @ d_a, "R": h.T @ d_a, "b": d_a.sum(axis=0)}
