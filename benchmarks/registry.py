"""What is timed: sizes, and for each the contestants that compute it. Cases are declared here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

import cellweave as cw


@dataclass(frozen=True)
class Case:
    """A recurrence and its sizes: T steps, B rows, I inputs, H units, float32."""

    kind: str
    steps: int
    batch: int
    inputs: int
    units: int

    @property
    def name(self) -> str:
        return f"{self.kind}-T{self.steps}-B{self.batch}-I{self.inputs}-H{self.units}"


CASES = tuple(
    Case(kind, steps, batch, inputs, units)
    for kind in ("lstm", "gru")
    for steps, batch, inputs, units in ((20, 1, 64, 64), (50, 32, 128, 128), (35, 20, 200, 200), (65, 8, 63, 65))
)

Contestant = tuple[list[torch.Tensor], Callable[[torch.Tensor], torch.Tensor]]


def _stepwise_cellweave(case: Case) -> Contestant:
    cell = {"lstm": cw.LSTMCell, "gru": cw.GRUCell}[case.kind](case.units)
    cell.build([None, case.inputs])
    return list(cell.parameters()), lambda x: cw.dynamic_rnn(cell, x, dtype="float32", time_major=True)[0]


def _stepwise_torch(case: Case) -> Contestant:
    cell = {"lstm": torch.nn.LSTMCell, "gru": torch.nn.GRUCell}[case.kind](case.inputs, case.units)

    def run(x: torch.Tensor) -> torch.Tensor:
        state, outputs = None, []
        for step in x:
            state = cell(step, state)
            outputs.append(state[0] if case.kind == "lstm" else state)
        return torch.stack(outputs)

    return list(cell.parameters()), run


def _fused_torch(case: Case) -> Contestant:
    layer = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[case.kind](case.inputs, case.units)
    return list(layer.parameters()), lambda x: layer(x)[0]


BASELINE = "torch.nn"
CONTESTANTS: dict[str, Callable[[Case], Contestant]] = {
    "cellweave reference": _stepwise_cellweave,
    "torch.nn cell, looped": _stepwise_torch,
    BASELINE: _fused_torch,
}
