"""One step of the plain recurrent network, in torch operations."""

from __future__ import annotations

import torch

from cellweave.ops.common import activation_function
from cellweave.specs import RNNSpec


def rnn_step(
    inputs: torch.Tensor,
    h: torch.Tensor,
    kernel: torch.Tensor,
    recurrent_kernel: torch.Tensor | None,
    bias: torch.Tensor | None,
    *,
    spec: RNNSpec,
) -> torch.Tensor:
    """`h' = act([x, h] W + b)`, or `act(x W + h R + b)` with a recurrent kernel of its own.

    Args:
        inputs: `[B, I]`. h: `[B, H]`. kernel: `[I + H, H]`, or `[I, H]` beside `recurrent_kernel` `[H, H]`.
        bias: `[H]` or None. spec: Variant.
    Returns:
        h' `[B, H]`.
    Source: TF1 BasicRNNCell; Keras SimpleRNNCell.
    """
    if recurrent_kernel is None:
        total = torch.cat([inputs, h], dim=1) @ kernel
        total = total if bias is None else total + bias
    else:
        total = inputs @ kernel
        total = (total if bias is None else total + bias) + h @ recurrent_kernel
    return activation_function(spec.activation)(total)
