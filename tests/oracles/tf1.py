"""TF1's cells on top of the papers' equations: layouts of the weights, shapes of the states.

A cell keeps its weights by TF1 suffix and sums gradients into `grads` under the same suffix. `forward` returns output,
new state and a cache; `backward` takes the cache and gradients on both, and returns gradients on inputs and old state.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from oracles.activations import Array
from oracles.gru import gru_step, gru_step_backward
from oracles.lstm import lstm_step, lstm_step_backward
from oracles.rnn import rnn_step, rnn_step_backward


class LSTMState(NamedTuple):
    """c first, then h."""

    c: Any
    h: Any


class Cell:
    """What every oracle cell has: sizes, weights by suffix, gradients by suffix."""

    state_size: Any
    output_size: int
    shapes: dict[str, tuple[int, ...]]

    def __init__(self) -> None:
        self.weights: dict[str, Array] = {}
        self.grads: dict[str, Array] = {}

    def set_weights(self, weights: dict[str, Array]) -> None:
        """Take weights by suffix, as float64 copies, and forget all gradients."""
        if list(weights) != list(self.shapes) or any(weights[k].shape != self.shapes[k] for k in weights):
            got = {k: w.shape for k, w in weights.items()}
            raise ValueError(f"{type(self).__name__}: expected weights {self.shapes}, got {got}.")
        self.weights = {k: np.array(w, np.float64) for k, w in weights.items()}
        self.grads = {k: np.zeros_like(w) for k, w in self.weights.items()}

    def forward(self, x: Array, state: Any, run: Any = None) -> tuple[Array, Any, Any]:
        """Output, new state, cache."""
        raise NotImplementedError

    def backward(self, cache: Any, d_out: Array, d_state: Any) -> tuple[Array, Any]:
        """Gradients of inputs and old state."""
        raise NotImplementedError


def norm_shapes(norms: dict[str, str], units: int) -> dict[str, tuple[int, ...]]:
    """Shapes of gammas and betas; `norms`: names of the weights by the papers' letter."""
    return {f"{name}/{k}": (units,) for name in norms.values() for k in ("gamma", "beta")}


def norm_parameters(norms: dict[str, str], weights: dict[str, Array]) -> dict[str, Array]:
    """Gains and shifts by letter."""
    pairs = [(f"{symbol}_{part}", weights[f"{name}/{k}"]) for part, name in norms.items() for symbol, k in _GAINS]
    return dict(pairs)


def add_norm_gradients(norms: dict[str, str], found: dict[str, Array], grads: dict[str, Array]) -> None:
    """Sum the gradients of gains and shifts up."""
    for part, name in norms.items():
        for symbol, k in _GAINS:
            grads[f"{name}/{k}"] += found[f"{symbol}_{part}"]


_GAINS = (("g", "gamma"), ("s", "beta"))


class BasicRNNCell(Cell):
    """`kernel [D + n, n]`: input rows above state rows; `epsilon`: normalized."""

    def __init__(self, depth: int, num_units: int, activation: str = "tanh", epsilon: float | None = None) -> None:
        super().__init__()
        self.depth, self.options = depth, {"activation": activation} | ({} if epsilon is None else {"epsilon": epsilon})
        self.state_size = self.output_size = num_units
        self.shapes = {"kernel": (depth + num_units, num_units), "bias": (num_units,)}
        self.norms = {} if epsilon is None else {"a": "norm"}
        self.shapes |= norm_shapes(self.norms, num_units)

    def forward(self, x: Array, state: Array, run: Any = None) -> tuple[Array, Array, Any]:
        kernel = self.weights["kernel"]
        p = {"W": kernel[: self.depth], "R": kernel[self.depth :], "b": self.weights["bias"]}
        p |= norm_parameters(self.norms, self.weights)
        h, cache = rnn_step(p, x, state, **self.options)
        return h, h, cache

    def backward(self, cache: Any, d_out: Array, d_state: Array) -> tuple[Array, Array]:
        d_x, d_h, g = rnn_step_backward(cache, d_out + d_state)
        self.grads["kernel"] += np.vstack([g["W"], g["R"]])
        self.grads["bias"] += g["b"]
        add_norm_gradients(self.norms, g, self.grads)
        return d_x, d_h


class GRUCell(Cell):
    """`gates/*` holds reset then update; the reset meets the state before the product; `epsilon`: normalized."""

    def __init__(self, depth: int, num_units: int, activation: str = "tanh", epsilon: float | None = None) -> None:
        super().__init__()
        self.depth, self.options = depth, {"activation": activation} | ({} if epsilon is None else {"epsilon": epsilon})
        n = self.state_size = self.output_size = num_units
        rows = depth + n
        self.shapes = {
            "gates/kernel": (rows, 2 * n),
            "gates/bias": (2 * n,),
            "candidate/kernel": (rows, n),
            "candidate/bias": (n,),
        }
        self.norms = {} if epsilon is None else {"r": "reset", "z": "update", "k": "candidate"}
        self.shapes |= norm_shapes(self.norms, n)

    def forward(self, x: Array, state: Array, run: Any = None) -> tuple[Array, Array, Any]:
        w, d, n = self.weights, self.depth, self.output_size
        (kernel_r, kernel_z), kernel_k = np.split(w["gates/kernel"], [n], axis=1), w["candidate/kernel"]
        p = {"b_r": w["gates/bias"][:n], "b_z": w["gates/bias"][n:], "b_k": w["candidate/bias"]}
        for name, kernel in (("r", kernel_r), ("z", kernel_z), ("k", kernel_k)):
            p[f"W_{name}"], p[f"R_{name}"] = kernel[:d], kernel[d:]
        p |= norm_parameters(self.norms, w)
        h, cache = gru_step(p, x, state, reset="before", **self.options)
        return h, h, cache

    def backward(self, cache: Any, d_out: Array, d_state: Array) -> tuple[Array, Array]:
        d_x, d_h, g = gru_step_backward(cache, d_out + d_state)
        self.grads["gates/kernel"] += np.block([[g["W_r"], g["W_z"]], [g["R_r"], g["R_z"]]])
        self.grads["gates/bias"] += np.concatenate([g["b_r"], g["b_z"]])
        self.grads["candidate/kernel"] += np.vstack([g["W_k"], g["R_k"]])
        self.grads["candidate/bias"] += g["b_k"]
        add_norm_gradients(self.norms, g, self.grads)
        return d_x, d_h


class CudnnCompatibleGRUCell(Cell):
    """The reset meets the state after the product; the candidate keeps its two biases apart."""

    def __init__(self, depth: int, num_units: int) -> None:
        super().__init__()
        self.depth = depth
        n = self.state_size = self.output_size = num_units
        self.shapes = {
            "gates/kernel": (depth + n, 2 * n),
            "gates/bias": (2 * n,),
            "candidate/input_projection/kernel": (depth, n),
            "candidate/hidden_projection/kernel": (n, n),
            "candidate/input_projection/bias": (n,),
            "candidate/hidden_projection/bias": (n,),
        }

    def forward(self, x: Array, state: Array, run: Any = None) -> tuple[Array, Array, Any]:
        w, d, n = self.weights, self.depth, self.output_size
        kernel_r, kernel_z = np.split(w["gates/kernel"], [n], axis=1)
        p = {"b_r": w["gates/bias"][:n], "b_z": w["gates/bias"][n:]}
        for name, kernel in (("r", kernel_r), ("z", kernel_z)):
            p[f"W_{name}"], p[f"R_{name}"] = kernel[:d], kernel[d:]
        for symbol, side in (("W", "input"), ("R", "hidden")):
            p[f"{symbol}_k"] = w[f"candidate/{side}_projection/kernel"]
        p["b_k"], p["q_k"] = w["candidate/input_projection/bias"], w["candidate/hidden_projection/bias"]
        h, cache = gru_step(p, x, state, reset="after")
        return h, h, cache

    def backward(self, cache: Any, d_out: Array, d_state: Array) -> tuple[Array, Array]:
        d_x, d_h, g = gru_step_backward(cache, d_out + d_state)
        self.grads["gates/kernel"] += np.block([[g["W_r"], g["W_z"]], [g["R_r"], g["R_z"]]])
        self.grads["gates/bias"] += np.concatenate([g["b_r"], g["b_z"]])
        self.grads["candidate/input_projection/kernel"] += g["W_k"]
        self.grads["candidate/hidden_projection/kernel"] += g["R_k"]
        self.grads["candidate/input_projection/bias"] += g["b_k"]
        self.grads["candidate/hidden_projection/bias"] += g["q_k"]
        return d_x, d_h


class LSTMCell(Cell):
    """Columns i, j (candidate), f, o; the forget bias is added when run. Also BasicLSTMCell."""

    def __init__(
        self,
        depth: int,
        num_units: int,
        use_peepholes: bool = False,
        cell_clip: float | None = None,
        num_proj: int | None = None,
        proj_clip: float | None = None,
        forget_bias: float = 1.0,
        state_is_tuple: bool = True,
        activation: str = "tanh",
    ) -> None:
        super().__init__()
        self.depth, self.forget_bias, self.peepholes, self.tuple = depth, forget_bias, use_peepholes, state_is_tuple
        self.options = {"activation": activation, "cell_clip": cell_clip, "proj_clip": proj_clip}
        n, m = num_units, num_units if num_proj is None else num_proj
        self.units, self.projected, self.output_size = n, num_proj is not None, m
        self.state_size = LSTMState(n, m) if state_is_tuple else n + m
        self.shapes = {"kernel": (depth + m, 4 * n), "bias": (4 * n,)}
        if use_peepholes:
            self.shapes |= {"w_f_diag": (n,), "w_i_diag": (n,), "w_o_diag": (n,)}
        if self.projected:
            self.shapes["projection/kernel"] = (n, m)

    def _parameters(self) -> dict[str, Array]:
        w, p = self.weights, {}
        blocks = zip("izfo", np.split(w["kernel"], 4, axis=1), np.split(w["bias"], 4), strict=True)
        for gate, kernel, bias in blocks:
            p[f"W_{gate}"], p[f"R_{gate}"], p[f"b_{gate}"] = kernel[: self.depth], kernel[self.depth :], bias
        p["b_f"] = p["b_f"] + self.forget_bias
        if self.peepholes:
            p |= {f"p_{gate}": w[f"w_{gate}_diag"] for gate in "fio"}
        if self.projected:
            p["P"] = w["projection/kernel"]
        return p

    def forward(self, x: Array, state: Any, run: Any = None) -> tuple[Array, Any, Any]:
        c, h = state if self.tuple else (state[:, : self.units], state[:, self.units :])
        c, h, cache = lstm_step(self._parameters(), x, c, h, **self.options)
        return h, LSTMState(c, h) if self.tuple else np.hstack([c, h]), cache

    def backward(self, cache: Any, d_out: Array, d_state: Any) -> tuple[Array, Any]:
        d_c, d_h = d_state if self.tuple else (d_state[:, : self.units], d_state[:, self.units :])
        d_x, d_c, d_h, g = lstm_step_backward(cache, d_c, d_h + d_out)
        columns = [np.vstack([g[f"W_{gate}"], g[f"R_{gate}"]]) for gate in "izfo"]
        self.grads["kernel"] += np.hstack(columns)
        self.grads["bias"] += np.concatenate([g[f"b_{gate}"] for gate in "izfo"])
        for gate in "fio" if self.peepholes else "":
            self.grads[f"w_{gate}_diag"] += g[f"p_{gate}"]
        if self.projected:
            self.grads["projection/kernel"] += g["P"]
        return d_x, LSTMState(d_c, d_h) if self.tuple else np.hstack([d_c, d_h])
