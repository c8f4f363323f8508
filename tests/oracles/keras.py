"""Keras's cells on top of the papers' equations: `kernel`, `recurrent_kernel`, `bias`; list states, h before c."""

from __future__ import annotations

from typing import Any

import numpy as np

from oracles.activations import Array
from oracles.gru import gru_step, gru_step_backward
from oracles.lstm import lstm_step, lstm_step_backward
from oracles.rnn import rnn_step, rnn_step_backward
from oracles.tf1 import Cell, add_norm_gradients, norm_parameters, norm_shapes


class SimpleRNNCell(Cell):
    """`h' = act(x kernel + h recurrent_kernel + bias)`."""

    def __init__(self, depth: int, units: int, activation: str = "tanh") -> None:
        super().__init__()
        self.activation, self.output_size, self.state_size = activation, units, [units]
        self.shapes = {"kernel": (depth, units), "recurrent_kernel": (units, units), "bias": (units,)}

    def forward(self, x: Array, state: list[Array], run: Any = None) -> tuple[Array, list[Array], Any]:
        w = self.weights
        p = {"W": w["kernel"], "R": w["recurrent_kernel"], "b": w["bias"]}
        h, cache = rnn_step(p, x, state[0], activation=self.activation)
        return h, [h], cache

    def backward(self, cache: Any, d_out: Array, d_state: list[Array]) -> tuple[Array, list[Array]]:
        d_x, d_h, g = rnn_step_backward(cache, d_out + d_state[0])
        for name, symbol in (("kernel", "W"), ("recurrent_kernel", "R"), ("bias", "b")):
            self.grads[name] += g[symbol]
        return d_x, [d_h]


class GRUCell(Cell):
    """Columns z, r, candidate; with `reset_after` the bias has an input row and a recurrent row."""

    def __init__(
        self,
        depth: int,
        units: int,
        activation: str = "tanh",
        recurrent_activation: str = "sigmoid",
        reset_after: bool = True,
        epsilon: float | None = None,
    ) -> None:
        super().__init__()
        self.options: dict[str, Any] = {"activation": activation, "gate": recurrent_activation}
        self.options |= {} if epsilon is None else {"epsilon": epsilon}
        self.reset_after, self.output_size, self.state_size = reset_after, units, [units]
        bias = (2, 3 * units) if reset_after else (3 * units,)
        self.shapes = {"kernel": (depth, 3 * units), "recurrent_kernel": (units, 3 * units), "bias": bias}
        names = {"r": "reset", "z": "update", "k": "candidate"} | ({"q": "recurrent"} if reset_after else {})
        self.norms = {} if epsilon is None else names
        self.shapes |= norm_shapes(self.norms, units)

    def forward(self, x: Array, state: list[Array], run: Any = None) -> tuple[Array, list[Array], Any]:
        p: dict[str, Array] = norm_parameters(self.norms, self.weights)
        for symbol, name in (("W", "kernel"), ("R", "recurrent_kernel")):
            for gate, block in zip("zrk", np.split(self.weights[name], 3, axis=1), strict=True):
                p[f"{symbol}_{gate}"] = block
        bias = self.weights["bias"]
        rows = bias if self.reset_after else np.stack([bias, np.zeros_like(bias)])
        first, second = np.split(rows[0], 3), np.split(rows[1], 3)
        p |= {"b_z": first[0] + second[0], "b_r": first[1] + second[1], "b_k": first[2], "q_k": second[2]}
        h, cache = gru_step(p, x, state[0], reset="after" if self.reset_after else "before", **self.options)
        return h, [h], cache

    def backward(self, cache: Any, d_out: Array, d_state: list[Array]) -> tuple[Array, list[Array]]:
        d_x, d_h, g = gru_step_backward(cache, d_out + d_state[0])
        self.grads["kernel"] += np.hstack([g[f"W_{gate}"] for gate in "zrk"])
        self.grads["recurrent_kernel"] += np.hstack([g[f"R_{gate}"] for gate in "zrk"])
        add_norm_gradients(self.norms, g, self.grads)
        shared = [g["b_z"], g["b_r"]]
        if self.reset_after:
            self.grads["bias"] += np.stack([np.concatenate([*shared, g["b_k"]]), np.concatenate([*shared, g["q_k"]])])
        else:
            self.grads["bias"] += np.concatenate([*shared, g["b_k"]])
        return d_x, [d_h]


class LSTMCell(Cell):
    """Columns i, f, candidate, o; the forget bias is a starting value only."""

    def __init__(self, depth: int, units: int, activation: str = "tanh", recurrent_activation: str = "sigmoid") -> None:
        super().__init__()
        self.options = {"activation": activation, "gate": recurrent_activation}
        self.output_size, self.state_size = units, [units, units]
        self.shapes = {"kernel": (depth, 4 * units), "recurrent_kernel": (units, 4 * units), "bias": (4 * units,)}

    def forward(self, x: Array, state: list[Array], run: Any = None) -> tuple[Array, list[Array], Any]:
        p: dict[str, Array] = {}
        for symbol, name in (("W", "kernel"), ("R", "recurrent_kernel"), ("b", "bias")):
            for gate, block in zip("ifzo", np.split(self.weights[name], 4, axis=-1), strict=True):
                p[f"{symbol}_{gate}"] = block
        h, c = state
        c, h, cache = lstm_step(p, x, c, h, **self.options)
        return h, [h, c], cache

    def backward(self, cache: Any, d_out: Array, d_state: list[Array]) -> tuple[Array, list[Array]]:
        d_h, d_c = d_state
        d_x, d_c, d_h, g = lstm_step_backward(cache, d_c, d_h + d_out)
        for symbol, name in (("W", "kernel"), ("R", "recurrent_kernel"), ("b", "bias")):
            self.grads[name] += np.concatenate([g[f"{symbol}_{gate}"] for gate in "ifzo"], axis=-1)
        return d_x, [d_h, d_c]
