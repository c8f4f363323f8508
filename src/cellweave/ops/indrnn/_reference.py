"""One step of the independently recurrent networks, in torch operations: each unit sees its own state only."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from cellweave.ops.common import activation_function
from cellweave.specs import IndRNNSpec, IndyGRUSpec, IndyLSTMSpec

Weights = Mapping[str, torch.Tensor]


def indrnn_step(inputs: torch.Tensor, h: torch.Tensor, weights: Weights, *, spec: IndRNNSpec) -> torch.Tensor:
    """One step: `h' = act(x W + u*h + b)`.

    Args:
        inputs: `[B, I]`. h: `[B, H]`. weights: By name: `kernel_w` `[I, H]`, `kernel_u` `[1, H]`, `bias` `[H]`.
        spec: Variant.
    Returns:
        h' `[B, H]`.
    Source: Li et al. 2018; TF1 `tf.contrib.rnn.IndRNNCell`.
    """
    total = inputs @ weights["kernel_w"] + h * weights["kernel_u"] + weights["bias"]
    return activation_function(spec.activation)(total)


def indy_gru_step(inputs: torch.Tensor, h: torch.Tensor, weights: Weights, *, spec: IndyGRUSpec) -> torch.Tensor:
    """One step of the gated recurrent unit with diagonals in place of recurrent matrices.

        r, u = sigmoid(x W_g + u_g*[h, h] + b_g);  k = act(x W_k + u_k*(r*h) + b_k);  h' = u*h + (1 - u)*k

    Args:
        inputs: `[B, I]`. h: `[B, H]`.
        weights: By name: `gates/kernel_w` `[I, 2H]`, `gates/kernel_u` `[1, 2H]`, `gates/bias` `[2H]`,
            `candidate/kernel` `[I, H]`, `candidate/kernel_u` `[1, H]`, `candidate/bias` `[H]`.
        spec: Variant.
    Returns:
        h' `[B, H]`.
    Source: Li et al. 2018; TF1 `tf.contrib.rnn.IndyGRUCell`.
    """
    total = inputs @ weights["gates/kernel_w"] + h.repeat(1, 2) * weights["gates/kernel_u"] + weights["gates/bias"]
    r, u = torch.sigmoid(total).chunk(2, dim=1)
    candidate = inputs @ weights["candidate/kernel"] + (r * h) * weights["candidate/kernel_u"]
    k = activation_function(spec.activation)(candidate + weights["candidate/bias"])
    return u * h + (1 - u) * k


def indy_lstm_step(
    inputs: torch.Tensor, c: torch.Tensor, h: torch.Tensor, weights: Weights, *, spec: IndyLSTMSpec
) -> tuple[torch.Tensor, torch.Tensor]:
    """One step of the long short-term memory with diagonals in place of recurrent matrices.

        i, j, f, o = split(x W + u*[h, h, h, h] + b)
        c' = c*sigmoid(f + forget_bias) + sigmoid(i)*act(j);  h' = act(c')*sigmoid(o)

    Args:
        inputs: `[B, I]`. c, h: `[B, H]`.
        weights: By name: `kernel_w` `[I, 4H]`, `kernel_u` `[1, 4H]`, `bias` `[4H]`.
        spec: Variant.
    Returns:
        c' and h' `[B, H]`.
    Source: Gonnet & Deselaers 2019; TF1 `tf.contrib.rnn.IndyLSTMCell`.
    """
    act = activation_function(spec.activation)
    total = inputs @ weights["kernel_w"] + h.repeat(1, 4) * weights["kernel_u"] + weights["bias"]
    i, j, f, o = total.chunk(4, dim=1)
    new_c = c * torch.sigmoid(f + spec.forget_bias) + torch.sigmoid(i) * act(j)
    return new_c, act(new_c) * torch.sigmoid(o)
