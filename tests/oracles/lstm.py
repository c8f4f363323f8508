"""The long short-term memory with peepholes, clips and projection.

Hochreiter & Schmidhuber 1997 (cell), Gers et al. 2002 (forget gate, peepholes: i and f see the old c, o the new one),
Sak et al. 2014 (projection P of the cell output, which is also what recurs):

    i = gate(x W_i + y R_i + p_i * c + b_i)      z = act(x W_z + y R_z + b_z)
    f = gate(x W_f + y R_f + p_f * c + b_f)      c' = clip(f * c + i * z)
    o = gate(x W_o + y R_o + p_o * c' + b_o)     y' = clip((o * act(c')) P)

A clip passes the gradient inside and exactly on its bounds.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from oracles.activations import ACTIVATIONS, Array

Parameters = dict[str, Array]
GATES = ("i", "z", "f", "o")


def _clip(value: Array, bound: float | None) -> tuple[Array, Array]:
    """The clipped value, and 1 where the gradient passes."""
    if bound is None:
        return value, np.ones_like(value)
    return np.clip(value, -bound, bound), (np.abs(value) <= bound).astype(value.dtype)


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
) -> tuple[Array, Array, Any]:
    """One step; peepholes if `p_i`, `p_f`, `p_o` are among the parameters, projection if `P` is.

    Returns:
        c' `[B, H]`, y' `[B, M]`, and what the backward step needs.
    """
    act, squash = ACTIVATIONS[activation], ACTIVATIONS[gate]
    a = {g: x @ p[f"W_{g}"] + y @ p[f"R_{g}"] + p[f"b_{g}"] for g in GATES}
    peepholes = "p_i" in p
    if peepholes:
        a["i"], a["f"] = a["i"] + p["p_i"] * c, a["f"] + p["p_f"] * c
    i, f, z = squash.value(a["i"]), squash.value(a["f"]), act.value(a["z"])
    new_c, c_inside = _clip(f * c + i * z, cell_clip)
    if peepholes:
        a["o"] = a["o"] + p["p_o"] * new_c
    o, squashed = squash.value(a["o"]), act.value(new_c)
    m = o * squashed
    new_y, y_inside = _clip(m @ p["P"], proj_clip) if "P" in p else (m, np.ones_like(m))
    return new_c, new_y, (p, x, c, y, a, i, f, z, o, new_c, c_inside, squashed, m, y_inside, act, squash)


def lstm_step_backward(cache: Any, d_c: Array, d_y: Array) -> tuple[Array, Array, Array, Parameters]:
    """Gradients of x, of the old c and y and of each parameter for gradients on c' and y'."""
    p, x, c, y, a, i, f, z, o, new_c, c_inside, squashed, m, y_inside, act, squash = cache
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
    d_new_c = d_new_c * c_inside
    d_a["i"] = d_new_c * z * squash.slope(a["i"])
    d_a["z"] = d_new_c * i * act.slope(a["z"])
    d_a["f"] = d_new_c * c * squash.slope(a["f"])
    d_old_c = d_new_c * f
    if "p_i" in p:
        grads["p_i"], grads["p_f"] = (d_a["i"] * c).sum(axis=0), (d_a["f"] * c).sum(axis=0)
        d_old_c = d_old_c + d_a["i"] * p["p_i"] + d_a["f"] * p["p_f"]
    for g in GATES:
        grads[f"W_{g}"], grads[f"R_{g}"], grads[f"b_{g}"] = x.T @ d_a[g], y.T @ d_a[g], d_a[g].sum(axis=0)
    d_x = sum(d_a[g] @ p[f"W_{g}"].T for g in GATES)
    d_old_y = sum(d_a[g] @ p[f"R_{g}"].T for g in GATES)
    return d_x, d_old_c, d_old_y, grads
