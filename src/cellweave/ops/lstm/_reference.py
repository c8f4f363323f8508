"""One step of the long short-term memory, in torch operations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch

from cellweave.ops.common import (
    Backend,
    LayerCall,
    LayerResult,
    activation_function,
    reference_sequence,
    refuses_nothing,
)
from cellweave.specs import LSTMSpec


def lstm_step(
    inputs: torch.Tensor, c: torch.Tensor, h: torch.Tensor, weights: Mapping[str, torch.Tensor], *, spec: LSTMSpec
) -> tuple[torch.Tensor, torch.Tensor]:
    """One step; gates by `spec.gate_order`.

        i, j, f, o = split([x, h] W + b)
        c' = c*sigmoid(f + forget_bias + w_f*c) + sigmoid(i + w_i*c)*act(j), clipped
        h' = sigmoid(o + w_o*c')*act(c'), projected, clipped

    Args:
        inputs: `[B, I]`. c: `[B, H]`. h: `[B, P]` (P = H without projection).
        weights: By name: `kernel` `[I + P, 4H]`, or `kernel` `[I, 4H]` and `recurrent_kernel` `[P, 4H]`;
            `bias` `[4H]` if any; `w_f_diag`, `w_i_diag`, `w_o_diag` `[H]` with peepholes; `projection/kernel` `[H, P]`.
        spec: Variant.
    Returns:
        c' `[B, H]` and h' `[B, P]`. A clip passes the gradient inside and on its bounds.
    Source: Hochreiter & Schmidhuber 1997; Gers et al. 2002; Sak et al. 2014; TF1 LSTMCell.
    """
    squash, act = activation_function(spec.recurrent_activation), activation_function(spec.activation)
    gate = dict(zip(spec.gate_order, _gates(inputs, h, weights).chunk(4, dim=1), strict=True))
    i, f, o = gate["i"], gate["f"] + spec.forget_bias, gate["o"]
    if spec.peepholes:
        i, f = i + weights["w_i_diag"] * c, f + weights["w_f_diag"] * c
    new_c = squash(f) * c + squash(i) * act(gate["j"])
    if spec.cell_clip is not None:
        new_c = torch.clamp(new_c, -spec.cell_clip, spec.cell_clip)
    if spec.peepholes:
        o = o + weights["w_o_diag"] * new_c
    new_h = squash(o) * act(new_c)
    if spec.projection is not None:
        new_h = new_h @ weights["projection/kernel"]
        if spec.proj_clip is not None:
            new_h = torch.clamp(new_h, -spec.proj_clip, spec.proj_clip)
    return new_c, new_h


def _gates(inputs: torch.Tensor, h: torch.Tensor, weights: Mapping[str, torch.Tensor]) -> torch.Tensor:
    bias = weights.get("bias")
    if "recurrent_kernel" in weights:
        total = inputs @ weights["kernel"] + h @ weights["recurrent_kernel"]
    else:
        total = torch.cat([inputs, h], dim=1) @ weights["kernel"]
    return total if bias is None else total + bias


def lstm_sequence(call: LayerCall) -> LayerResult:
    """A whole sequence, step by step; the call's cell is an `LSTMSpec`, its state `(c, h)`."""
    spec = cast(LSTMSpec, call.spec.cell)
    return reference_sequence(lambda x, state: lstm_step(x, state[0], state[1], call.weights, spec=spec), call)


REFERENCE = Backend("reference", refuses_nothing, lstm_sequence)
