"""One step of the intersection RNN (+RNN), in torch operations."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from cellweave.ops.common import activation_function
from cellweave.specs import IntersectionSpec


def intersection_step(
    inputs: torch.Tensor, h: torch.Tensor, weights: Mapping[str, torch.Tensor], *, spec: IntersectionSpec
) -> tuple[torch.Tensor, torch.Tensor]:
    """One step: a gate through time and a gate through depth.

        x = x W_in + b_in, where the inputs are not as wide as the units
        a, k, d, y = split([x, h] W + b);  a = sigmoid(a + forget_bias);  d = sigmoid(d + forget_bias)
        h' = a*h + (1 - a)*tanh(k);  out = d*x + (1 - d)*act(y)

    Args:
        inputs: `[B, I]`. h: `[B, H]`.
        weights: By name: `kernel` `[2H, 4H]`, `bias` `[4H]`; `in_projection/kernel` `[I, H]` and `in_projection/bias`
            `[H]` if any.
        spec: Variant.
    Returns:
        out `[B, H]` and h' `[B, H]`.
    Source: Collins et al. 2017; TF1 `tf.contrib.rnn.IntersectionRNNCell`.
    """
    x = inputs
    if "in_projection/kernel" in weights:
        x = x @ weights["in_projection/kernel"] + weights["in_projection/bias"]
    total = torch.cat([x, h], dim=1) @ weights["kernel"] + weights["bias"]
    through_time, candidate, through_depth, y = total.chunk(4, dim=1)
    a, d = torch.sigmoid(through_time + spec.forget_bias), torch.sigmoid(through_depth + spec.forget_bias)
    new_h = a * h + (1.0 - a) * torch.tanh(candidate)
    return d * x + (1.0 - d) * activation_function(spec.activation)(y), new_h
