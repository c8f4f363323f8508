"""One step of the convolutional long short-term memory, in torch operations."""

from __future__ import annotations

import torch
from torch.nn import functional as F

_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def conv_lstm_step(
    inputs: torch.Tensor,
    c: torch.Tensor,
    h: torch.Tensor,
    kernel: torch.Tensor,
    bias: torch.Tensor | None,
    *,
    forget_bias: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One step with convolutions in place of products; channels last.

        i, j, f, o = split(conv([x, h], W) + b)
        c' = sigmoid(f + forget_bias)*c + sigmoid(i)*tanh(j);  h' = tanh(c')*sigmoid(o)

    Args:
        inputs: `[B, *space, I]`. c, h: `[B, *space, H]`. kernel: `[*window, I + H, 4H]`. bias: `[4H]`, or None.
        forget_bias: Added to the forget gate.
    Returns:
        c' and h' `[B, *space, H]`.
    Source: Shi et al. 2015; TF1 `tf.contrib.rnn.ConvLSTMCell`.
    """
    gates = same_convolution(torch.cat([inputs, h], dim=-1), kernel)
    gates = gates if bias is None else gates + bias
    i, j, f, o = gates.chunk(4, dim=-1)
    new_c = torch.sigmoid(f + forget_bias) * c + torch.sigmoid(i) * torch.tanh(j)
    return new_c, torch.tanh(new_c) * torch.sigmoid(o)


def same_convolution(x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """`[B, *space, I]` by `[*window, I, O]` to `[B, *space, O]`; an even window reaches one further at its end."""
    axes = x.dim() - 2
    padding: list[int] = []
    for size in reversed(kernel.shape[:axes]):
        padding += [(size - 1) // 2, size // 2]
    channels_first = F.pad(x.movedim(-1, 1), padding)
    weight = kernel.permute(axes + 1, axes, *range(axes))
    return _CONVOLUTIONS[axes](channels_first, weight).movedim(1, -1)
