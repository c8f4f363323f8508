"""Contrib's LSTMs on top of the papers' equations, and single steps of its other cells, forward only.

Weights are those of the library's specs: `kernel`, `bias`, `w_f_diag`, `input/gamma` and so on.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from oracles.activations import ACTIVATIONS, Array, sigmoid
from oracles.lstm import lstm_step, lstm_step_backward
from oracles.tf1 import Cell, LSTMState

#: The papers' letter of each gate, by TF1's; and what TF1 calls the normalization of each.
_LETTERS = {"i": "i", "j": "z", "f": "f", "o": "o"}
_NORMS = {"i": "input", "z": "transform", "f": "forget", "o": "output", "c": "state"}


class LSTMVariant(Cell):
    """Coupled gates, layer normalization, peepholes, projection, and a bound on c that stops no gradient."""

    def __init__(
        self,
        depth: int,
        num_units: int,
        *,
        coupled: bool = False,
        layer_norm: bool = False,
        biased: bool = False,
        peepholes: bool = False,
        peephole_order: str = "fio",
        projection: int | None = None,
        forget_bias: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__()
        self.depth, self.options = depth, {"forget_bias": forget_bias, **options}
        n, m = num_units, num_units if projection is None else projection
        self.output_size, self.state_size = m, LSTMState(n, m)
        self.gates = [_LETTERS[gate] for gate in ("jfo" if coupled else "ijfo")]
        self.biased = biased or not layer_norm
        self.shapes = {"kernel": (depth + m, len(self.gates) * n)}
        if self.biased:
            self.shapes["bias"] = (len(self.gates) * n,)
        self.norms = [*self.gates, "c"] if layer_norm else []
        self.shapes |= {f"{_NORMS[part]}/{k}": (n,) for part in self.norms[:-1] for k in ("gamma", "beta")}
        self.peepholes = [gate for gate in peephole_order if gate in self.gates] if peepholes else []
        self.shapes |= {f"w_{gate}_diag": (n,) for gate in self.peepholes}
        self.shapes |= {f"{_NORMS[part]}/{k}": (n,) for part in self.norms[-1:] for k in ("gamma", "beta")}
        if projection is not None:
            self.shapes["projection/kernel"] = (n, m)

    def forward(self, x: Array, state: Any, run: Any = None) -> tuple[Array, Any, Any]:
        w, p = self.weights, {}
        for gate, kernel in zip(self.gates, np.split(w["kernel"], len(self.gates), axis=1), strict=True):
            p[f"W_{gate}"], p[f"R_{gate}"] = kernel[: self.depth], kernel[self.depth :]
        if self.biased:
            parts = np.split(w["bias"], len(self.gates))
            p |= {f"b_{gate}": part for gate, part in zip(self.gates, parts, strict=True)}
        for part in self.norms:
            p[f"g_{part}"], p[f"s_{part}"] = w[f"{_NORMS[part]}/gamma"], w[f"{_NORMS[part]}/beta"]
        p |= {f"p_{gate}": w[f"w_{gate}_diag"] for gate in self.peepholes}
        if "projection/kernel" in w:
            p["P"] = w["projection/kernel"]
        c, h, cache = lstm_step(p, x, state[0], state[1], **self.options)
        return h, LSTMState(c, h), cache

    def backward(self, cache: Any, d_out: Array, d_state: Any) -> tuple[Array, Any]:
        d_x, d_c, d_h, g = lstm_step_backward(cache, d_state[0], d_state[1] + d_out)
        self.grads["kernel"] += np.hstack([np.vstack([g[f"W_{k}"], g[f"R_{k}"]]) for k in self.gates])
        if self.biased:
            self.grads["bias"] += np.concatenate([g[f"b_{k}"] for k in self.gates])
        for part in self.norms:
            self.grads[f"{_NORMS[part]}/gamma"] += g[f"g_{part}"]
            self.grads[f"{_NORMS[part]}/beta"] += g[f"s_{part}"]
        for gate in self.peepholes:
            self.grads[f"w_{gate}_diag"] += g[f"p_{gate}"]
        if "P" in g:
            self.grads["projection/kernel"] += g["P"]
        return d_x, LSTMState(d_c, d_h)


def nas(w: dict[str, Array], x: Array, c: Array, m: Array) -> tuple[Array, Array]:
    """Zoph & Le 2017, figure 8: eight leaves in pairs, the cell joins the first pair. Returns c' and m'."""
    s = np.split(m @ w["recurrent_kernel"] + w.get("bias", 0.0), 8, axis=1)
    v = np.split(x @ w["kernel"], 8, axis=1)
    leaves = [
        sigmoid(v[0] + s[0]),
        np.maximum(v[1] + s[1], 0),
        sigmoid(v[2] + s[2]),
        np.maximum(v[3] * s[3], 0),
        np.tanh(v[4] + s[4]),
        sigmoid(v[5] + s[5]),
        np.tanh(v[6] + s[6]),
        sigmoid(v[7] + s[7]),
    ]
    pairs = np.tanh(leaves[0] * leaves[1]), np.tanh(leaves[2] + leaves[3]), np.tanh(leaves[4] * leaves[5])
    new_c = np.tanh(pairs[0] + c) * pairs[1]
    new_m = np.tanh(new_c * np.tanh(pairs[2] + sigmoid(leaves[6] + leaves[7])))
    return new_c, new_m @ w["projection_weights"] if "projection_weights" in w else new_m


def sru(w: dict[str, Array], x: Array, c: Array, *, activation: str = "tanh") -> tuple[Array, Array]:
    """Lei et al. 2017, equations 3 to 7. Returns h and c'."""
    n = c.shape[1]
    z, f, r, direct = (x @ w["kernel"][:, k * n : (k + 1) * n] for k in range(4))
    f, r = sigmoid(f + w["bias"][:n]), sigmoid(r + w["bias"][n:])
    new_c = f * c + (1 - f) * z
    return r * ACTIVATIONS[activation].value(new_c) + (1 - r) * direct, new_c


def ugrnn(w: dict[str, Array], x: Array, h: Array, *, forget_bias: float = 1.0, activation: str = "tanh") -> Array:
    """Collins et al. 2017, equations 9 to 11: h'."""
    n = h.shape[1]
    total = np.hstack([x, h]) @ w["kernel"] + w["bias"]
    g = sigmoid(total[:, :n] + forget_bias)
    return g * h + (1 - g) * ACTIVATIONS[activation].value(total[:, n:])


def intersection(
    w: dict[str, Array], x: Array, h: Array, *, forget_bias: float = 1.0, activation: str = "relu"
) -> tuple[Array, Array]:
    """Collins et al. 2017, equations 12 to 17. Returns the output and h'."""
    n = h.shape[1]
    if "in_projection/kernel" in w:
        x = x @ w["in_projection/kernel"] + w["in_projection/bias"]
    total = np.hstack([x, h]) @ w["kernel"] + w["bias"]
    through_time, through_depth = sigmoid(total[:, :n] + forget_bias), sigmoid(total[:, 2 * n : 3 * n] + forget_bias)
    new_h = through_time * h + (1 - through_time) * np.tanh(total[:, n : 2 * n])
    y = ACTIVATIONS[activation].value(total[:, 3 * n :])
    return through_depth * x + (1 - through_depth) * y, new_h


def indrnn(w: dict[str, Array], x: Array, h: Array, *, activation: str = "tanh") -> Array:
    """Li et al. 2018, equation 2: h'."""
    return ACTIVATIONS[activation].value(x @ w["kernel_w"] + h * w["kernel_u"][0] + w["bias"])


def indy_gru(w: dict[str, Array], x: Array, h: Array, *, activation: str = "tanh") -> Array:
    """The GRU of Cho et al. 2014 with the diagonals of Li et al. 2018: h'."""
    n = h.shape[1]

    def gate(first: int) -> Array:
        columns = slice(first, first + n)
        total = x @ w["gates/kernel_w"][:, columns] + h * w["gates/kernel_u"][0, columns] + w["gates/bias"][columns]
        return sigmoid(total)

    r, u = gate(0), gate(n)
    total = x @ w["candidate/kernel"] + r * h * w["candidate/kernel_u"][0] + w["candidate/bias"]
    return u * h + (1 - u) * ACTIVATIONS[activation].value(total)


def indy_lstm(
    w: dict[str, Array], x: Array, c: Array, h: Array, *, forget_bias: float = 1.0, activation: str = "tanh"
) -> tuple[Array, Array]:
    """The LSTM with diagonals. Returns c' and h'."""
    n, act = h.shape[1], ACTIVATIONS[activation].value
    parts = [slice(k * n, (k + 1) * n) for k in range(4)]
    i, j, f, o = (x @ w["kernel_w"][:, s] + h * w["kernel_u"][0, s] + w["bias"][s] for s in parts)
    new_c = sigmoid(f + forget_bias) * c + sigmoid(i) * act(j)
    return new_c, sigmoid(o) * act(new_c)


def phased_lstm(
    w: dict[str, Array], time: Array, x: Array, c: Array, h: Array, *, leak: float, peepholes: bool
) -> tuple[Array, Array]:
    """Neil et al. 2016, equations 1 to 10, peepholes as full matrices. Returns c' and h'."""

    def linear(name: str, *parts: Array) -> Array:
        return np.hstack(parts) @ w[f"{name}/kernel"] + w[f"{name}/bias"]

    n = c.shape[1]
    gates = sigmoid(linear("mask_gates", x, h, c) if peepholes else linear("mask_gates", x, h))
    candidate = gates[:, n:] * c + gates[:, :n] * np.tanh(linear("new_input", x, h))
    o = sigmoid(linear("output_gate", x, h, candidate) if peepholes else linear("output_gate", x, h))
    phi = np.mod(time - w["phase"], w["period"]) / w["period"]
    r_on = w["ratio_on"] + 0 * phi
    k = np.select([phi < r_on / 2, phi < r_on], [2 * phi / r_on, 2 - 2 * phi / r_on], leak * phi)
    return k * candidate + (1 - k) * c, k * np.tanh(candidate) * o + (1 - k) * h


def conv_lstm(w: dict[str, Array], x: Array, c: Array, h: Array, *, forget_bias: float = 1.0) -> tuple[Array, Array]:
    """Shi et al. 2015 without peepholes; each output pixel is a sum over its window. Returns c' and h'."""
    joined, kernel = np.concatenate([x, h], axis=-1), w["kernel"]
    space, window = joined.shape[1:-1], kernel.shape[:-2]
    gates = np.zeros((*joined.shape[:-1], kernel.shape[-1]))
    for pixel in np.ndindex(*space):
        for offset in np.ndindex(*window):
            at = tuple(p + o - (size - 1) // 2 for p, o, size in zip(pixel, offset, window, strict=True))
            if all(0 <= a < size for a, size in zip(at, space, strict=True)):
                gates[(slice(None), *pixel)] += joined[(slice(None), *at)] @ kernel[offset]
    i, j, f, o = np.split(gates + w.get("biases", 0.0), 4, axis=-1)
    new_c = sigmoid(f + forget_bias) * c + sigmoid(i) * np.tanh(j)
    return new_c, sigmoid(o) * np.tanh(new_c)
