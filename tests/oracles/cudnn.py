"""Stacked, also bidirectional recurrent layers in cuDNN's canonical form, forward and backward.

cuDNN's documentation of `cudnnRNNMode_t`: per layer and direction a matrix for the inputs and one for the state of each
gate, a bias beside each matrix; the LSTM's gates i, f, candidate, o; the GRU's reset, update, candidate, with the reset
after the candidate's product. With `skip`, the lowest layer's inputs are added to every gate as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from oracles.activations import Array
from oracles.gru import gru_step, gru_step_backward
from oracles.lstm import lstm_step, lstm_step_backward
from oracles.rnn import rnn_step, rnn_step_backward
from oracles.tf1 import Cell, LSTMState
from oracles.unroll import reverse, unroll, unroll_backward

#: Gates in cuDNN's order, by the letters of the papers' equations.
GATES = {"lstm": "ifzo", "gru": "rzk", "rnn_tanh": "h", "rnn_relu": "h"}


class CanonicalCell(Cell):
    """One direction of one layer. Weights: `W_<gate> [H, I]`, `R_<gate> [H, H]`, `bW_<gate>`, `bR_<gate> [H]`."""

    def __init__(self, mode: str, depth: int, units: int, *, skip: bool = False) -> None:
        super().__init__()
        self.mode, self.gates, self.output_size = mode, GATES[mode], units
        self.state_size: Any = LSTMState(units, units) if mode == "lstm" else units
        self.skip = skip
        self.shapes = {
            **{f"W_{gate}": (units, depth) for gate in self.gates},
            **{f"R_{gate}": (units, units) for gate in self.gates},
            **{f"b{side}_{gate}": (units,) for side in "WR" for gate in self.gates},
        }

    def _parameters(self) -> dict[str, Array]:
        w, p = self.weights, {}
        for gate in self.gates:
            p[f"W_{gate}"] = np.eye(self.output_size) if self.skip else w[f"W_{gate}"].T
            p[f"R_{gate}"] = w[f"R_{gate}"].T
            p[f"b_{gate}"] = w[f"bW_{gate}"] + w[f"bR_{gate}"]
        if self.mode == "gru":
            p["b_k"], p["q_k"] = w["bW_k"], w["bR_k"]
        if self.mode.startswith("rnn"):
            p = {"W": p["W_h"], "R": p["R_h"], "b": p["b_h"]}
        return p

    def forward(self, x: Array, state: Any, run: Any = None) -> tuple[Array, Any, Any]:
        p = self._parameters()
        if self.mode == "lstm":
            c, h, cache = lstm_step(p, x, state[0], state[1])
            return h, LSTMState(c, h), cache
        if self.mode == "gru":
            h, cache = gru_step(p, x, state, reset="after")
        else:
            h, cache = rnn_step(p, x, state, activation=self.mode.removeprefix("rnn_"))
        return h, h, cache

    def backward(self, cache: Any, d_out: Array, d_state: Any) -> tuple[Array, Any]:
        if self.mode == "lstm":
            d_x, d_c, d_h, g = lstm_step_backward(cache, d_state[0], d_state[1] + d_out)
            self._add(g)
            return d_x, LSTMState(d_c, d_h)
        back = gru_step_backward if self.mode == "gru" else rnn_step_backward
        d_x, d_h, g = back(cache, d_out + d_state)
        self._add({f"{name}_h": value for name, value in g.items()} if self.mode.startswith("rnn") else g)
        return d_x, d_h

    def _add(self, g: dict[str, Array]) -> None:
        for gate in self.gates:
            if not self.skip:
                self.grads[f"W_{gate}"] += g[f"W_{gate}"].T
            self.grads[f"R_{gate}"] += g[f"R_{gate}"].T
            self.grads[f"bW_{gate}"] += g[f"b_{gate}"]
            self.grads[f"bR_{gate}"] += g["q_k"] if (self.mode, gate) == ("gru", "k") else g[f"b_{gate}"]


@dataclass
class CudnnOracle:
    """All layers.

    Attributes:
        cells: By layer and direction: forwards, then backwards.
        trace: What the backward pass needs.
    """

    cells: list[list[CanonicalCell]]
    lengths: Sequence[int] | None = None
    trace: Any = None

    @classmethod
    def make(
        cls, mode: str, layers: int, directions: int, depth: int, units: int, *, skip: bool = False
    ) -> CudnnOracle:
        """Layers without weights."""
        widths = [depth] + [directions * units] * (layers - 1)
        cells = [
            [CanonicalCell(mode, width, units, skip=skip and number == 0) for _ in range(directions)]
            for number, width in enumerate(widths)
        ]
        return cls(cells)

    @property
    def flat(self) -> list[CanonicalCell]:
        """All cells: layer by layer, forwards first."""
        return [cell for layer in self.cells for cell in layer]

    def set_random(self, rng: np.random.Generator) -> None:
        """Weights that keep the gates inside ±2, non-zero biases; all of them float32 numbers."""
        for cell in self.flat:
            bounds = {k: 1.0 / np.sqrt(s[1]) if len(s) == 2 else 0.3 for k, s in cell.shapes.items()}
            made = {k: rng.uniform(-bounds[k], bounds[k], size=s).astype(np.float32) for k, s in cell.shapes.items()}
            cell.set_weights(made)

    def canonical(self, which: str = "weights") -> tuple[list[Array], list[Array]]:
        """Matrices and biases, or their gradients ("grads"), in cuDNN's order."""
        named = [item for cell in self.flat for item in getattr(cell, which).items()]
        return [v for k, v in named if k[0] in "WR"], [v for k, v in named if k[0] == "b"]

    def forward(self, x: Array, states: Sequence[Array], lengths: Sequence[int] | None) -> tuple[Array, list[Array]]:
        """Outputs `[T, B, D * H]`, and the last states `[h]` or `[h, c]`, each `[L * D, B, H]`."""
        self.lengths, self.trace, finals = lengths, [], []
        for layer in self.cells:
            outputs = []
            for direction, cell in enumerate(layer):
                seen = reverse(x, lengths) if direction else x
                out, final, caches = unroll(cell, seen, _pick(states, len(finals)), lengths)
                self.trace.append((seen, caches))
                outputs.append(reverse(out, lengths) if direction else out)
                finals.append(final)
            x = np.concatenate(outputs, axis=2)
        return x, _collect(finals)

    def backward(self, d_out: Array, d_states: Sequence[Array]) -> tuple[Array, list[Array]]:
        """Gradients of the inputs and of the first states; those of the weights are summed up in the cells."""
        place, found = len(self.flat), []
        for layer in reversed(self.cells):
            parts, d_x = np.split(d_out, len(layer), axis=2), 0.0
            for direction in reversed(range(len(layer))):
                place -= 1
                seen, caches = self.trace[place]
                d = reverse(parts[direction], self.lengths) if direction else parts[direction]
                d_seen, d_first = unroll_backward(layer[direction], seen, caches, d, _pick(d_states, place))
                d_x = d_x + (reverse(d_seen, self.lengths) if direction else d_seen)
                found.append(d_first)
            d_out = d_x
        return d_out, _collect(found[::-1])


def _pick(states: Sequence[Array], place: int) -> Any:
    return LSTMState(states[1][place], states[0][place]) if len(states) == 2 else states[0][place]


def _collect(states: list[Any]) -> list[Array]:
    if isinstance(states[0], LSTMState):
        return [np.stack([state.h for state in states]), np.stack([state.c for state in states])]
    return [np.stack(states)]
