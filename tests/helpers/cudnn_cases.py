"""cuDNN layers with numbers: the library's, the oracle's and torch's, on the same weights."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import cellweave as cw
from oracles.activations import Array
from oracles.cudnn import CudnnOracle

CLASSES: dict[str, Any] = {
    "lstm": cw.CudnnLSTM,
    "gru": cw.CudnnGRU,
    "rnn_tanh": cw.CudnnRNNTanh,
    "rnn_relu": cw.CudnnRNNRelu,
}
MODES = tuple(CLASSES)


@dataclass(frozen=True)
class CudnnCase:
    """One case; its id reads `gru-L2-bi-skip-ragged-float32`."""

    mode: str
    L: int = 2
    directions: int = 2
    T: int = 6
    B: int = 3
    I: int = 4
    H: int = 5
    skip: bool = False
    ragged: bool = False
    dtype: str = "float32"

    @property
    def id(self) -> str:
        """Readable name."""
        words = [self.mode, f"L{self.L}", ("uni", "bi")[self.directions - 1]]
        return "-".join([*words, *["skip"] * self.skip, *["ragged"] * self.ragged, self.dtype])

    @property
    def direction(self) -> str:
        """As the layers call it."""
        return ("unidirectional", "bidirectional")[self.directions - 1]


@dataclass
class CudnnData:
    """Numbers of a case, float64 (each is a float16 number), time major."""

    oracle: CudnnOracle
    x: Array
    states: list[Array]
    lengths: list[int] | None
    d_out: Array
    d_states: list[Array]


def make_data(case: CudnnCase) -> CudnnData:
    """Random inputs, weights, non-zero states and biases, random upstream gradients on everything."""
    rng = np.random.default_rng(zlib.crc32(case.id.rsplit("-", 1)[0].encode()))

    def normal(*shape: int) -> Array:
        return rng.normal(size=shape).astype(np.float16).astype(np.float64)

    oracle = CudnnOracle.make(case.mode, case.L, case.directions, case.I, case.H, skip=case.skip)
    oracle.set_random(rng)
    for cell in oracle.flat:
        cell.set_weights({name: value.astype(np.float16) for name, value in cell.weights.items()})
    count, shape = 1 + (case.mode == "lstm"), (case.L * case.directions, case.B, case.H)
    return CudnnData(
        oracle,
        normal(case.T, case.B, case.I),
        [0.5 * normal(*shape) for _ in range(count)],
        [case.T, 0, case.T // 2][: case.B] if case.ragged else None,
        normal(case.T, case.B, case.directions * case.H),
        [normal(*shape) for _ in range(count)],
    )


def make_layer(case: CudnnCase, data: CudnnData) -> Any:
    """The library's layer with these weights."""
    mode = "skip_input" if case.skip else "linear_input"
    layer = CLASSES[case.mode](case.L, case.H, mode, case.direction, dtype=case.dtype)
    layer.load_canonical(*[[torch.tensor(v) for v in part] for part in data.oracle.canonical()])
    return layer


Run = Callable[[torch.Tensor, tuple[torch.Tensor, ...]], tuple[torch.Tensor, Sequence[torch.Tensor]]]


def results_of(run: Run, parameters: Sequence[torch.Tensor], data: CudnnData, dtype: str) -> dict[str, Any]:
    """Outputs, states and all gradients of something that is called as a layer; `d parameters` is a list."""
    kind = getattr(torch, dtype)
    x = torch.tensor(data.x, dtype=kind).requires_grad_()
    states = tuple(torch.tensor(state, dtype=kind).requires_grad_() for state in data.states)
    out, last = run(x, states)
    loss = (out * torch.tensor(data.d_out, dtype=kind)).sum()
    for state, upstream in zip(last, data.d_states, strict=True):
        loss = loss + (state * torch.tensor(upstream, dtype=kind)).sum()
    d_x, *rest = torch.autograd.grad(loss, [x, *states, *parameters])
    found = {"out": out, "d x": d_x, "d parameters": rest[len(states) :]}
    found |= {f"last {number}": state for number, state in enumerate(last)}
    return found | {f"d state {number}": grad for number, grad in enumerate(rest[: len(states)])}


def oracle_results(case: CudnnCase, data: CudnnData) -> dict[str, Any]:
    """The same from the oracle; `d parameters` as the layer's lie: W (unless skipped), R and two biases a place."""
    out, last = data.oracle.forward(data.x, data.states, data.lengths)
    d_x, d_states = data.oracle.backward(data.d_out, data.d_states)
    parameters = [
        np.concatenate([cell.grads[f"{side}_{gate}"] for gate in cell.gates])
        for cell in data.oracle.flat
        for side in [*("" if cell.skip else "W"), "R", "bW", "bR"]
    ]
    found = {"out": out, "d x": d_x, "d parameters": parameters}
    found |= {f"last {number}": state for number, state in enumerate(last)}
    return found | {f"d state {number}": grad for number, grad in enumerate(d_states)}
