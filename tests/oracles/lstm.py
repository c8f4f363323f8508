"""The long short-term memory with peepholes, clips and projection.

Hochreiter & Schmidhuber 1997 (cell), Gers et al. 2002 (forget gate, peepholes: i and f see the old c, o the new one),
Sak et al. 2014 (projection P of the cell output, which is also what recurs):

    i = gate(x W_i + y R_i + p_i * c + b_i)      z = act(x W_z + y R_z + b_z)
    f = gate(x W_f + y R_f + p_f * c + b_f)      c' = clip(f * c + i * z)
    o = gate(x W_o + y R_o + p_o * c' + b_o)     y' = clip((o * act(c')) P)

A clip passes the gradient inside and exactly on its bounds; that of TF1's block cells passes all of it.

Greff et al. 2015 couple the gates: i = 1 - f. Ba et al. 2016 normalize each gate's sum before its peepholes, and c'
before its clip: n(a) = (a - mean)/sqrt(variance + epsilon)*gain + shift, mean and variance of a row.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from oracles.activations import ACTIVATIONS, Array
from oracles.normalization import EPSILON, normalize, normalize_backward

Parameters = dict[str, Array]
GATES = ("i", "z", "f", "o")


def _clip(value: Array, bound: float | None, *, stops: bool = True) -> tuple[Array, Array]:
    """The clipped value, and 1 where the gradient passes."""
    if bound is None:
        return value, np.ones_like(value)
    passes = np.abs(value) <= bound if stops else np.ones_like(value)
    return np.clip(value, -bound, bound), passes.astype(value.dtype)


def lstm_step(
    p: Parameters,
    x: Array,
    c: Array,
    y: Array,
    *,
    activation: str = "tanh",
    gate: str = "sigmoid",
    cell_clip: float | None = None,
    proj_clip: float | None = None,
    forget_bias: float = 0.0,
    clip_stops: bool = True,
    candidate_factor: Array | float = 1.0,
    epsilon: float = EPSILON,
) -> tuple[Array, Array, Any]:
    """One step; what is not among the parameters is not there.

    Args:
        p: `W_*`, `R_*` for each gate, without `i` when coupled; `b_*`; peepholes `p_i`, `p_f`, `p_o`; projection `P`;
            gains `g_*` and shifts `s_*` for each gate and `c`.
        candidate_factor: What z is multiplied by (recurrent dropout, Semeniuta et al. 2016); forward only.
    Returns:
        c' `[B, H]`, y' `[B, M]`, and what the backward step needs.
    """
    act, squash = ACTIVATIONS[activation], ACTIVATIONS[gate]
    gates = [g for g in GATES if f"W_{g}" in p]
    norms: dict[str, Any] = {}
    a = {}
    for g in gates:
        total = x @ p[f"W_{g}"] + y @ p[f"R_{g}"] + p.get(f"b_{g}", 0.0)
        a[g], norms[g] = normalize(p, g, total, epsilon)
    a["f"] = a["f"] + forget_bias
    for g in "if":
        if f"p_{g}" in p:
            a[g] = a[g] + p[f"p_{g}"] * c
    f, z = squash.value(a["f"]), act.value(a["z"]) * candidate_factor
    i = squash.value(a["i"]) if "i" in gates else 1.0 - f
    new_c, norms["c"] = normalize(p, "c", f * c + i * z, epsilon)
    new_c, c_inside = _clip(new_c, cell_clip, stops=clip_stops)
    if "p_o" in p:
        a["o"] = a["o"] + p["p_o"] * new_c
    o, squashed = squash.value(a["o"]), act.value(new_c)
    m = o * squashed
    new_y, y_inside = _clip(m @ p["P"], proj_clip) if "P" in p else (m, np.ones_like(m))
    return new_c, new_y, (p, x, c, y, a, i, f, z, o, new_c, c_inside, squashed, m, y_inside, act, squash, norms)


def lstm_step_backward(cache: Any, d_c: Array, d_y: Array) -> tuple[Array, Array, Array, Parameters]:
    """Gradients of x, of the old c and y and of each parameter for gradients on c' and y'."""
    p, x, c, y, a, i, f, z, o, new_c, c_inside, squashed, m, y_inside, act, squash, norms = cache
    grads: Parameters = {}
    d_m = d_y * y_inside
    if "P" in p:
        grads["P"] = m.T @ d_m
        d_m = d_m @ p["P"].T
    d_a = {"o": d_m * squashed * squash.slope(a["o"])}
    d_new_c = d_c + d_m * o * act.slope(new_c)
    if "p_o" in p:
        grads["p_o"] = (d_a["o"] * new_c).sum(axis=0)
        d_new_c = d_new_c + d_a["o"] * p["p_o"]
    d_new_c = normalize_backward(p, "c", norms["c"], d_new_c * c_inside, grads)
    d_a["z"] = d_new_c * i * act.slope(a["z"])
    if "i" in a:
        d_a["i"] = d_new_c * z * squash.slope(a["i"])
        d_a["f"] = d_new_c * c * squash.slope(a["f"])
    else:
        d_a["f"] = d_new_c * (c - z) * squash.slope(a["f"])
    d_old_c = d_new_c * f
    for g in "if":
        if f"p_{g}" in p:
            grads[f"p_{g}"] = (d_a[g] * c).sum(axis=0)
            d_old_c = d_old_c + d_a[g] * p[f"p_{g}"]
    gates = [g for g in GATES if f"W_{g}" in p]
    for g in gates:
        d_a[g] = normalize_backward(p, g, norms[g], d_a[g], grads)
        grads[f"W_{g}"], grads[f"R_{g}"], grads[f"b_{g}"] = x.T @ d_a[g], y.T @ d_a[g], d_a[g].sum(axis=0)
    d_x = sum(d_a[g] @ p[f"W_{g}"].T for g in gates)
    d_old_y = sum(d_a[g] @ p[f"R_{g}"].T for g in gates)
    return d_x, d_old_c, d_old_y, grads
