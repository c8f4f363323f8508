"""The gated recurrent unit, in its two published forms.

Reset before the product (Cho et al. 2014, "Learning phrase representations using RNN encoder-decoder", eq. 5 to 8):

    r = gate(x W_r + h R_r + b_r)        z = gate(x W_z + h R_z + b_z)
    k = act(x W_k + (r * h) R_k + b_k)   h' = z * h + (1 - z) * k

Reset after it (the form of cuDNN and of Keras's `reset_after`), with a recurrent bias `q_k` on the candidate:

    k = act(x W_k + b_k + r * (h R_k + q_k))
"""

from __future__ import annotations

from typing import Any

from oracles.activations import ACTIVATIONS, Array

Parameters = dict[str, Array]


def gru_step(
    p: Parameters, x: Array, h: Array, *, reset: str, activation: str = "tanh", gate: str = "sigmoid"
) -> tuple[Array, Any]:
    """One step; `reset` is "before" or "after". Returns h' `[B, H]` and what the backward step needs."""
    act, squash = ACTIVATIONS[activation], ACTIVATIONS[gate]
    a_r = x @ p["W_r"] + h @ p["R_r"] + p["b_r"]
    a_z = x @ p["W_z"] + h @ p["R_z"] + p["b_z"]
    r, z = squash.value(a_r), squash.value(a_z)
    if reset == "before":
        inner = r * h
        a_k = x @ p["W_k"] + inner @ p["R_k"] + p["b_k"]
    elif reset == "after":
        inner = h @ p["R_k"] + p["q_k"]
        a_k = x @ p["W_k"] + p["b_k"] + r * inner
    else:
        raise ValueError(f"gru_step: expected reset 'before' or 'after', got {reset!r}.")
    k = act.value(a_k)
    return z * h + (1.0 - z) * k, (p, x, h, a_r, a_z, a_k, r, z, k, inner, reset, act, squash)


def gru_step_backward(cache: Any, d_h: Array) -> tuple[Array, Array, Parameters]:
    """Gradients of x, of the old h and of each parameter for a gradient `d_h [B, H]` on h'."""
    p, x, h, a_r, a_z, a_k, r, z, k, inner, reset, act, squash = cache
    d_a_z = d_h * (h - k) * squash.slope(a_z)
    d_a_k = d_h * (1.0 - z) * act.slope(a_k)
    d_old = d_h * z
    grads = {"W_k": x.T @ d_a_k, "b_k": d_a_k.sum(axis=0)}
    if reset == "before":
        d_inner = d_a_k @ p["R_k"].T
        grads["R_k"] = inner.T @ d_a_k
        d_r, d_old = d_inner * h, d_old + d_inner * r
    else:
        d_inner = d_a_k * r
        grads["R_k"], grads["q_k"] = h.T @ d_inner, d_inner.sum(axis=0)
        d_r, d_old = d_a_k * inner, d_old + d_inner @ p["R_k"].T
    d_a_r = d_r * squash.slope(a_r)
    for name, d_a in (("r", d_a_r), ("z", d_a_z)):
        grads[f"W_{name}"], grads[f"R_{name}"], grads[f"b_{name}"] = x.T @ d_a, h.T @ d_a, d_a.sum(axis=0)
    d_x = d_a_r @ p["W_r"].T + d_a_z @ p["W_z"].T + d_a_k @ p["W_k"].T
    d_old = d_old + d_a_r @ p["R_r"].T + d_a_z @ p["R_z"].T
    return d_x, d_old, grads
