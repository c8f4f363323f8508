"""The gated recurrent unit, in its two published forms.

Reset before the product (Cho et al. 2014, "Learning phrase representations using RNN encoder-decoder", eq. 5 to 8):

    r = gate(x W_r + h R_r + b_r)        z = gate(x W_z + h R_z + b_z)
    k = act(x W_k + (r * h) R_k + b_k)   h' = z * h + (1 - z) * k

Reset after it (the form of cuDNN and of Keras's `reset_after`), with a recurrent bias `q_k` on the candidate:

    k = act(x W_k + b_k + r * (h R_k + q_k))

With a gain `g_*` and a shift `s_*` each sum is normalized (Ba et al. 2016) before its gate: r, z and k, and with the
reset after the product the candidate's two parts each by itself, k and q:

    k = act(n(x W_k + b_k) + r * n(h R_k + q_k))
"""

from __future__ import annotations

from typing import Any

from oracles.activations import ACTIVATIONS, Array
from oracles.normalization import EPSILON, normalize, normalize_backward

Parameters = dict[str, Array]


def gru_step(
    p: Parameters,
    x: Array,
    h: Array,
    *,
    reset: str,
    activation: str = "tanh",
    gate: str = "sigmoid",
    epsilon: float = EPSILON,
) -> tuple[Array, Any]:
    """One step; `reset` is "before" or "after". Returns h' `[B, H]` and what the backward step needs."""
    act, squash = ACTIVATIONS[activation], ACTIVATIONS[gate]
    norms: dict[str, Any] = {}
    a_r, norms["r"] = normalize(p, "r", x @ p["W_r"] + h @ p["R_r"] + p["b_r"], epsilon)
    a_z, norms["z"] = normalize(p, "z", x @ p["W_z"] + h @ p["R_z"] + p["b_z"], epsilon)
    r, z = squash.value(a_r), squash.value(a_z)
    if reset == "before":
        inner = r * h
        a_k, norms["k"] = normalize(p, "k", x @ p["W_k"] + inner @ p["R_k"] + p["b_k"], epsilon)
    elif reset == "after":
        inner, norms["q"] = normalize(p, "q", h @ p["R_k"] + p["q_k"], epsilon)
        from_x, norms["k"] = normalize(p, "k", x @ p["W_k"] + p["b_k"], epsilon)
        a_k = from_x + r * inner
    else:
        raise ValueError(f"gru_step: expected reset 'before' or 'after', got {reset!r}.")
    k = act.value(a_k)
    return z * h + (1.0 - z) * k, (p, x, h, a_r, a_z, a_k, r, z, k, inner, reset, act, squash, norms)


def gru_step_backward(cache: Any, d_h: Array) -> tuple[Array, Array, Parameters]:
    """Gradients of x, of the old h and of each parameter for a gradient `d_h [B, H]` on h'."""
    p, x, h, a_r, a_z, a_k, r, z, k, inner, reset, act, squash, norms = cache
    grads: Parameters = {}
    d_a_z = normalize_backward(p, "z", norms["z"], d_h * (h - k) * squash.slope(a_z), grads)
    d_sum = d_h * (1.0 - z) * act.slope(a_k)
    d_a_k = normalize_backward(p, "k", norms["k"], d_sum, grads)
    d_old = d_h * z
    grads |= {"W_k": x.T @ d_a_k, "b_k": d_a_k.sum(axis=0)}
    if reset == "before":
        d_inner = d_a_k @ p["R_k"].T
        grads["R_k"] = inner.T @ d_a_k
        d_r, d_old = d_inner * h, d_old + d_inner * r
    else:
        d_inner = normalize_backward(p, "q", norms["q"], d_sum * r, grads)
        grads["R_k"], grads["q_k"] = h.T @ d_inner, d_inner.sum(axis=0)
        d_r, d_old = d_sum * inner, d_old + d_inner @ p["R_k"].T
    d_a_r = normalize_backward(p, "r", norms["r"], d_r * squash.slope(a_r), grads)
    for name, d_a in (("r", d_a_r), ("z", d_a_z)):
        grads[f"W_{name}"], grads[f"R_{name}"], grads[f"b_{name}"] = x.T @ d_a, h.T @ d_a, d_a.sum(axis=0)
    d_x = d_a_r @ p["W_r"].T + d_a_z @ p["W_z"].T + d_a_k @ p["W_k"].T
    d_old = d_old + d_a_r @ p["R_r"].T + d_a_z @ p["R_z"].T
    return d_x, d_old, grads
