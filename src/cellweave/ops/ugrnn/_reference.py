"""One step of the update gate RNN, in torch operations."""

from __future__ import annotations

import torch

from cellweave.ops.common import activation_function
from cellweave.specs import UGRNNSpec


def ugrnn_step(
    inputs: torch.Tensor, h: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor, *, spec: UGRNNSpec
) -> torch.Tensor:
    """One step: `g, k = split([x, h] W + b);  g = sigmoid(g + forget_bias);  h' = g*h + (1 - g)*act(k)`.

    Args:
        inputs: `[B, I]`. h: `[B, H]`. kernel: `[I + H, 2H]`, gate columns first. bias: `[2H]`. spec: Variant.
    Returns:
        h' `[B, H]`.
    Source: Collins et al. 2017; TF1 `tf.contrib.rnn.UGRNNCell`.
    """
    gate, candidate = (torch.cat([inputs, h], dim=1) @ kernel + bias).chunk(2, dim=1)
    g = torch.sigmoid(gate + spec.forget_bias)
    return g * h + (1.0 - g) * activation_function(spec.activation)(candidate)
