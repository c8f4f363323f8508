"""Layer normalization (Ba et al. 2016): n(a) = (a - mean)/sqrt(variance + epsilon)*gain + shift, by rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from oracles.activations import Array

Parameters = dict[str, Array]
EPSILON = 1e-12  # TF1 layer_norm's


def normalize(p: Parameters, part: str, value: Array, epsilon: float = EPSILON) -> tuple[Array, Any]:
    """n(value) where there are a gain `g_<part>` and a shift `s_<part>`, else the value; and what backward needs."""
    if f"g_{part}" not in p:
        return value, None
    scale = 1.0 / np.sqrt(value.var(axis=1, keepdims=True) + epsilon)
    unit = (value - value.mean(axis=1, keepdims=True)) * scale
    return unit * p[f"g_{part}"] + p[f"s_{part}"], (unit, scale)


def normalize_backward(p: Parameters, part: str, cache: Any, d: Array, grads: Parameters) -> Array:
    """The gradient of the value; those of gain and shift go into `grads`."""
    if cache is None:
        return d
    unit, scale = cache
    grads[f"g_{part}"], grads[f"s_{part}"] = (d * unit).sum(axis=0), d.sum(axis=0)
    d = d * p[f"g_{part}"]
    return scale * (d - d.mean(axis=1, keepdims=True) - unit * (d * unit).mean(axis=1, keepdims=True))
