"""Parameters of layer normalization: names, start values, and which gates they belong to."""

from __future__ import annotations

from typing import Any

import torch

from cellweave.nn._plans import Options, facts_of, stack_plan
from cellweave.specs import GRU_NORM_NAMES, NORM_NAMES, CellSpec, GRUSpec, LSTMSpec

#: (part of the parameters' names, what the spec calls the gates whose parts follow each other in them)
Norms = tuple[tuple[str, tuple[str, ...]], ...]


def norms_of(cell: CellSpec) -> Norms:
    """The normalizations of a cell: its gates in one parameter, as the weights have them, then what comes beside."""
    if not cell.layer_norm:
        return ()
    if isinstance(cell, LSTMSpec):
        return ("", tuple(NORM_NAMES[gate] for gate in cell.gate_order)), ("_c", (NORM_NAMES["c"],))
    if isinstance(cell, GRUSpec):
        gates = ("", tuple(GRU_NORM_NAMES[gate] for gate in cell.gate_order))
        return (gates, ("_h", (GRU_NORM_NAMES["h"],))) if cell.reset_after else (gates,)
    return (("", ("norm",)),)


def add_norms(module: Any, device: Any, dtype: Any) -> None:
    """Give a module the parameters, behind its others: `norm_weight_l0`, `norm_bias_l0` and so on."""
    for place in stack_plan(facts_of(module), Options(False, False)).places:
        for name, gates in norms_of(place.spec.cell):
            for kind in ("norm_weight", "norm_bias"):
                value = torch.empty(len(gates) * module.hidden_size, device=device, dtype=dtype)
                module.register_parameter(kind + name + place.suffix, torch.nn.Parameter(value))
    reset_norms(module)


def reset_norms(module: Any) -> None:
    """Gammas become 1, betas 0."""
    with torch.no_grad():
        for name, value in module.named_parameters(recurse=False):
            if name.startswith("norm_"):
                value.fill_(1.0 if name.startswith("norm_weight") else 0.0)
