"""What `cellweave.nn` has and torch.nn lacks, each by itself: ours, the same step by step, and the plain module."""

from __future__ import annotations

from typing import Any

import problem
import torch
from program import Program
from registry import HALF, OWN_BARE, Case

import cellweave as cw
from contestants import torch_layers
from contestants.cellweave_layers import stepwise
from contestants.torch_programs import TorchLayer

_MODULES: dict[str, Any] = {"lstm": cw.nn.LSTM, "gru_after": cw.nn.GRU}
_OPTIONS: dict[str, dict[str, Any]] = {
    "zoneout": {"zoneout": 0.1},
    "layer norm": {"layer_norm": True},
    "weight dropout": {"weight_dropout": 0.3},
}


def make(name: str, case: Case) -> Program:
    return layer(name, case).program()


def layer(name: str, case: Case) -> TorchLayer:
    varied = name != OWN_BARE
    options = _OPTIONS.get(case.variation, {}) if varied else {}
    module = torch_layers.with_weights(_MODULES[case.kind](case.I, case.H, **options), case, suffix="_l0")
    extra: dict[str, Any] = {}
    if varied and case.variation == "all states":
        extra["return_all_states"] = True
    if varied and case.variation == "lengths":
        extra["lengths"] = torch.from_numpy(problem.lengths(case))

    def run(x: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(1)  # what is drawn is the same step by step
        outputs: torch.Tensor = module(x, **extra)[0]
        return outputs

    def run_stepwise(x: torch.Tensor) -> torch.Tensor:
        with stepwise():
            return run(x)

    if case.variation == HALF:
        module, run = torch_layers.in_half(module)
    weights = list(module.parameters())
    chosen = run_stepwise if name == "stepwise" else run
    return TorchLayer(case, weights, chosen, lambda grads: torch_layers.as_ours(case, grads[:4]))
