"""One step of the long short-term memory, in torch operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch.nn import functional as F

from cellweave.ops.common import (
    Backend,
    LayerCall,
    LayerResult,
    activation_function,
    reference_sequence,
    refuses_nothing,
)
from cellweave.specs import NORM_NAMES, LSTMSpec

#: Added to a row's variance. Source: TF1 `tf.contrib.layers.layer_norm`.
_EPSILON, _HALF_EPSILON = 1e-12, 1e-3


def lstm_step(
    inputs: torch.Tensor,
    c: torch.Tensor,
    h: torch.Tensor,
    weights: Mapping[str, torch.Tensor],
    *,
    spec: LSTMSpec,
    on_candidate: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One step; gates by `spec.gate_order`.

        i, j, f, o = split([x, h] W + b), each normalized under `layer_norm`
        c' = c*sigmoid(f + forget_bias + w_f*c) + sigmoid(i + w_i*c)*act(j), normalized, clipped
        h' = sigmoid(o + w_o*c')*act(c'), projected, clipped

    A coupled cell has `1 - sigmoid(f + ...)` in place of the input gate.

    Args:
        inputs: `[B, I]`. c: `[B, H]`. h: `[B, P]` (P = H without projection).
        weights: By name: `kernel` `[I + P, 4H]`, or `kernel` `[I, 4H]` and `recurrent_kernel` `[P, 4H]`;
            `bias` `[4H]` if any; `w_f_diag`, `w_i_diag`, `w_o_diag` `[H]` with peepholes; `projection/kernel` `[H, P]`;
            `input/gamma`, `input/beta` and so on `[H]` under `layer_norm`. Three columns in place of four when coupled;
            kernels and projection transposed if the spec says so.
        spec: Variant.
        on_candidate: Acts on act(j), such as recurrent dropout (Semeniuta et al. 2016).
    Returns:
        c' `[B, H]` and h' `[B, P]`. A clip passes the gradient inside and on its bounds; `clip_passes_gradient`: that
        of c everywhere.
    Source: Hochreiter & Schmidhuber 1997; Gers et al. 2002; Sak et al. 2014; Greff et al. 2015; Ba et al. 2016; TF1
        LSTMCell, LSTMBlockCell, CoupledInputForgetGateLSTMCell, LayerNormBasicLSTMCell.
    """
    squash, act = activation_function(spec.recurrent_activation), activation_function(spec.activation)
    parts = _gates(inputs, h, weights, spec).chunk(len(spec.gate_order), dim=1)
    gate = dict(zip(spec.gate_order, parts, strict=True))
    if spec.layer_norm:
        gate = {name: _normalized(part, name, weights) for name, part in gate.items()}
    f, o = gate["f"] + spec.forget_bias, gate["o"]
    if spec.peepholes:
        f = f + weights["w_f_diag"] * c
    f, j = squash(f), act(gate["j"])
    if on_candidate is not None:
        j = on_candidate(j)
    new_c = f * c + _input_gate(gate, f, c, weights, spec) * j
    if spec.layer_norm:
        new_c = _normalized(new_c, "c", weights)
    if spec.cell_clip is not None:
        new_c = _clipped(new_c, spec.cell_clip, passes_gradient=spec.clip_passes_gradient)
    if spec.peepholes:
        o = o + weights["w_o_diag"] * new_c
    new_h = squash(o) * act(new_c)
    if spec.projection is not None:
        new_h = new_h @ _upright(weights["projection/kernel"], spec)
        if spec.proj_clip is not None:
            new_h = torch.clamp(new_h, -spec.proj_clip, spec.proj_clip)
    return new_c, new_h


def _gates(inputs: torch.Tensor, h: torch.Tensor, weights: Mapping[str, torch.Tensor], spec: LSTMSpec) -> torch.Tensor:
    bias = weights.get("bias")
    if "recurrent_kernel" in weights:
        total = inputs @ _upright(weights["kernel"], spec) + h @ _upright(weights["recurrent_kernel"], spec)
    else:
        total = torch.cat([inputs, h], dim=1) @ weights["kernel"]
    return total if bias is None else total + bias


def _upright(weight: torch.Tensor, spec: LSTMSpec) -> torch.Tensor:
    return weight.t() if spec.transposed else weight


def _input_gate(
    gate: Mapping[str, torch.Tensor], f: torch.Tensor, c: torch.Tensor, weights: Mapping[str, torch.Tensor],
    spec: LSTMSpec,
) -> torch.Tensor:  # fmt: skip
    if spec.coupled:
        return 1 - f
    i = gate["i"] + weights["w_i_diag"] * c if spec.peepholes else gate["i"]
    return activation_function(spec.recurrent_activation)(i)


def _normalized(value: torch.Tensor, part: str, weights: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Each row with mean 0 and variance 1, times gamma plus beta."""
    name = NORM_NAMES[part]
    gamma, beta = weights[f"{name}/gamma"], weights[f"{name}/beta"]
    epsilon = _HALF_EPSILON if value.dtype == torch.float16 else _EPSILON
    return F.layer_norm(value, value.shape[-1:], gamma, beta, epsilon)


def _clipped(c: torch.Tensor, bound: float, *, passes_gradient: bool) -> torch.Tensor:
    if not passes_gradient:
        return torch.clamp(c, -bound, bound)
    return torch.clamp(c.detach(), -bound, bound) + (c - c.detach())  # the second summand is 0, its gradient c's


def lstm_sequence(call: LayerCall) -> LayerResult:
    """A whole sequence, step by step; the call's cell is an `LSTMSpec`, its state `(c, h)`."""
    spec = cast(LSTMSpec, call.spec.cell)
    return reference_sequence(lambda x, state: lstm_step(x, state[0], state[1], call.weights, spec=spec), call)


REFERENCE = Backend("reference", refuses_nothing, lstm_sequence)
