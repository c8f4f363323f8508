"""One step of the cell that neural architecture search found, in torch operations."""

from __future__ import annotations

from collections.abc import Mapping

import torch


def nas_step(
    inputs: torch.Tensor, c: torch.Tensor, m: torch.Tensor, weights: Mapping[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """One step; eight columns each from the inputs (x) and from the state (s, with the bias).

        a0, a2, a5, a7 = sigmoid(x + s);  a1 = relu(x1 + s1);  a3 = relu(x3*s3);  a4, a6 = tanh(x + s)
        c' = tanh(tanh(a0*a1) + c)*tanh(a2 + a3);  m' = tanh(c'*tanh(tanh(a4*a5) + sigmoid(a6 + a7))), projected

    Args:
        inputs: `[B, I]`. c: `[B, H]`. m: `[B, P]` (P = H without projection).
        weights: By name: `kernel` `[I, 8H]`, `recurrent_kernel` `[P, 8H]`, `bias` `[8H]` if any, `projection_weights`
            `[H, P]` if any.
    Returns:
        c' `[B, H]` and m' `[B, P]`.
    Source: Zoph & Le 2017; TF1 `tf.contrib.rnn.NASCell`.
    """
    from_state = m @ weights["recurrent_kernel"]
    if "bias" in weights:
        from_state = from_state + weights["bias"]
    s, x = from_state.chunk(8, dim=1), (inputs @ weights["kernel"]).chunk(8, dim=1)
    first = torch.tanh(torch.sigmoid(x[0] + s[0]) * torch.relu(x[1] + s[1]))
    second = torch.tanh(torch.sigmoid(x[2] + s[2]) + torch.relu(x[3] * s[3]))
    third = torch.tanh(torch.tanh(x[4] + s[4]) * torch.sigmoid(x[5] + s[5]))
    fourth = torch.sigmoid(torch.tanh(x[6] + s[6]) + torch.sigmoid(x[7] + s[7]))
    new_c = torch.tanh(first + c) * second
    new_m = torch.tanh(new_c * torch.tanh(third + fourth))
    return new_c, new_m @ weights["projection_weights"] if "projection_weights" in weights else new_m
