"""Layers for ONNX files: what each is, what it runs on, and what its file must consist of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import cellweave as cw
from cellweave import keras
from cellweave import nn as tnn

D, N = 4, 6  # inputs and units
F32: dict[str, Any] = {"dtype": "float32"}


@dataclass(frozen=True)
class OnnxCase:
    """One layer.

    Attributes:
        name: For tests.
        make: Its cells or layers.
        holds: How many operators of which kind it is; "both" counts those of two directions.
        run: Calls it: (modules, x `[B, T, D]`, lengths `[B]`, resets `[B, T]`, h `[B, N]`) -> results.
    """

    name: str
    make: Callable[[], list[Any]]
    holds: dict[str, int]
    run: Callable[..., Any]


def lengths(m: Any, x: Any, n: Any, r: Any, h: Any) -> Any:
    return cw.dynamic_rnn(m[0], x, n, **F32)


def whole(m: Any, x: Any, n: Any, r: Any, h: Any) -> Any:
    return cw.dynamic_rnn(m[0], x, **F32)


def started(m: Any, x: Any, n: Any, r: Any, h: Any) -> Any:
    state = cw.LSTMStateTuple(0.5 - h, h) if isinstance(m[0], cw.LSTMCell) else h
    return cw.dynamic_rnn(m[0], x.transpose(0, 1), n, state, time_major=True)


def both(m: Any, x: Any, n: Any, r: Any, h: Any) -> Any:
    return cw.bidirectional_dynamic_rnn(m[0], m[1], x, n, **F32)


def both_outputs(m: Any, x: Any, n: Any, r: Any, h: Any) -> Any:
    """No state is read, and one direction's outputs alone."""
    return both(m, x, n, r, h)[0][0], both(m[2:], x, n, r, h)[0]


def chained(m: Any, x: Any, n: Any, r: Any, h: Any) -> Any:
    """The second direction starts where the first ended, so that no operator can run both."""
    _, state = cw.dynamic_rnn(m[0], x, n, **F32)
    return cw.bidirectional_dynamic_rnn(m[1], m[1], x, n, initial_state_fw=h, initial_state_bw=state)


def float64(m: Any, x: Any, n: Any, r: Any, h: Any) -> Any:
    """ONNX Runtime has no recurrent operators for it."""
    return cw.dynamic_rnn(m[0], x.double(), dtype="float64")


def reset(m: Any, x: Any, n: Any, r: Any, h: Any) -> Any:
    return cw.dynamic_rnn(m[0], x, n, **F32, resets=r, reset_state=h)


def cudnn(m: Any, x: Any, n: Any, r: Any, h: Any) -> Any:
    return m[0](x.transpose(0, 1), sequence_lengths=n, training=False)


def torchs(m: Any, x: Any, n: Any, r: Any, h: Any) -> Any:
    return m[0](x)


def torchs_lengths(m: Any, x: Any, n: Any, r: Any, h: Any) -> Any:
    return m[0](x, lengths=n)


def cudnn_whole(m: Any, x: Any, n: Any, r: Any, h: Any) -> Any:
    return m[0](x.transpose(0, 1), training=False)


def from_the_left(m: Any, x: Any, n: Any, r: Any, h: Any) -> Any:
    return m[0](x, lengths=n, padding_side="left")


def _case(name: str, make: Any, run: Any = lengths, **holds: int) -> OnnxCase:
    return OnnxCase(name, lambda: made if isinstance(made := make(), list) else [made], holds, run)


CASES = (
    _case("rnn", lambda: cw.BasicRNNCell(N, activation="elu"), RNN=1),
    _case("rnn-relu", lambda: keras.SimpleRNNCell(N, activation="relu", use_bias=False), whole, RNN=1),
    _case("gru", lambda: cw.DropoutWrapper(cw.GRUCell(N, activation="softplus"), 0.5, 0.5, 0.5), GRU=1),
    _case("gru-started", lambda: cw.GRUCell(N, activation="leaky_relu"), started, GRU=1),
    _case("gru-before", lambda: keras.GRUCell(N, reset_after=False, recurrent_activation="hard_sigmoid"), whole, GRU=1),
    _case("gru-after", lambda: keras.GRUCell(N, reset_after=True), whole, GRU=1),
    _case("lstm", lambda: cw.LSTMCell(N, activation="softsign"), LSTM=1),
    _case("lstm-started", lambda: cw.LSTMCell(N, use_peepholes=True, forget_bias=0.3), started, LSTM=1),
    _case("lstm-joined", lambda: cw.BasicLSTMCell(N, 0.0, state_is_tuple=False, activation="linear"), whole, LSTM=1),
    _case(
        "lstm-keras",
        lambda: keras.LSTMCell(N, recurrent_activation="hard_sigmoid", activation="elu", use_bias=False),
        whole, LSTM=1,
    ),
    _case(
        "stack",
        lambda: cw.MultiRNNCell([cw.GRUCell(D), cw.ResidualWrapper(cw.LSTMCell(D)), cw.BasicRNNCell(3)]),
        RNN=1, GRU=1, LSTM=1,
    ),
    _case("both-lstm", lambda: [cw.LSTMCell(N, use_peepholes=True) for _ in range(2)], both, LSTM=1, both=1),
    _case("both-gru", lambda: [cw.GRUCell(N), cw.GRUCell(N, activation="leaky_relu")], both, GRU=1, both=1),
    _case("both-outputs", lambda: [cw.LSTMCell(N) for _ in range(4)], both_outputs, LSTM=2, both=1),
    _case("both-peepholes", lambda: [cw.LSTMCell(N), cw.LSTMCell(N, use_peepholes=True)], both, LSTM=2),
    _case("chained", lambda: [cw.GRUCell(N), cw.GRUCell(N)], chained, GRU=2, both=1),
    _case("cudnn-lstm", lambda: cw.CudnnLSTM(2, N, direction="bidirectional"), cudnn, LSTM=2, both=2),
    _case("nn-lstm", lambda: tnn.LSTM(D, N, 2, batch_first=True, bidirectional=True), torchs, LSTM=2, both=2),
    _case("nn-gru", lambda: tnn.GRU(D, N, batch_first=True), torchs_lengths, GRU=1),
    _case("nn-left", lambda: tnn.GRU(D, N, batch_first=True), from_the_left, GRU=1),
    _case("nn-relu", lambda: tnn.RNN(D, N, nonlinearity="relu", bias=False, batch_first=True), torchs, RNN=1),
    _case("nn-projection", lambda: tnn.LSTM(D, N, proj_size=3, batch_first=True), torchs_lengths, Scan=1),
    _case("nn-norm", lambda: tnn.LSTM(D, N, layer_norm=True, batch_first=True), torchs_lengths, Scan=1),
    _case("cudnn-relu", lambda: cw.CudnnRNNRelu(1, N, direction="bidirectional"), cudnn_whole, RNN=1, both=1),
    _case(
        "both-clip",
        lambda: [cw.LSTMCell(N, cell_clip=0.3, num_proj=3, proj_clip=0.2, use_peepholes=True) for _ in range(2)],
        both, Scan=2,
    ),
    _case("resets", lambda: cw.GRUCell(N, activation="selu"), reset, Scan=1),
    _case("float64", lambda: cw.LSTMCell(N), float64, Scan=1),
)  # fmt: skip


class OnnxTable(nn.Module):
    """All cases in one module, whose outputs are theirs one after another."""

    def __init__(self, cases: tuple[OnnxCase, ...] = CASES) -> None:
        super().__init__()
        self.cases = cases
        self.parts = nn.ModuleList([nn.ModuleList(case.make()) for case in cases])

    def forward(
        self, x: torch.Tensor, lengths: torch.Tensor, resets: torch.Tensor, state: torch.Tensor
    ) -> list[torch.Tensor]:
        """Every result of every case."""
        return [result for found in self.by_case(x, lengths, resets, state) for result in found]

    def by_case(self, *inputs: torch.Tensor) -> list[list[torch.Tensor]]:
        """The results of each case."""
        return [
            torch.utils._pytree.tree_leaves(case.run(list(part), *inputs))
            for case, part in zip(self.cases, self.parts, strict=True)
        ]


def inputs_of(rows: int, steps: int, seed: int) -> tuple[torch.Tensor, ...]:
    """x, lengths (one of them 0, where there are several rows), resets, state."""
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, steps, D, generator=random)
    lengths = torch.randint(1, steps + 1, (rows,), generator=random, dtype=torch.int32)
    lengths[: rows - 1 : 3] = 0
    lengths[-1] = steps
    resets = torch.rand(rows, steps, generator=random) < 0.3
    return x, lengths, resets, torch.rand(rows, N, generator=random)


def randomize(module: nn.Module) -> nn.Module:
    """Weights and biases far from zero."""
    with torch.no_grad():
        for weight in module.parameters():
            weight.uniform_(-0.6, 0.6)
    return module
