"""Layer normalization of a step's sums, in torch operations."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn import functional as F

from cellweave.specs import NORM_EPSILON

#: What float16 adds to a variance in place of TF1's own number, which it cannot hold. Source: TF1 `layer_norm`.
_HALF_EPSILON = 1e-3


def added_to_variance(epsilon: float, dtype: torch.dtype) -> float:
    """What is added to the variance of a row of this dtype where a spec says `epsilon`."""
    return _HALF_EPSILON if dtype == torch.float16 and epsilon == NORM_EPSILON else epsilon


def normalized(
    value: torch.Tensor, name: str, weights: Mapping[str, torch.Tensor], epsilon: float = NORM_EPSILON
) -> torch.Tensor:
    """Each row of `value` `[B, H]` with mean 0 and variance 1, times gamma plus beta.

    Args:
        name: The weights are `<name>/gamma` and `<name>/beta`, `[H]` each.
        epsilon: Added to the variance; float16 adds 1e-3 in place of TF1's 1e-12.
    """
    gamma, beta = weights[f"{name}/gamma"], weights[f"{name}/beta"]
    return F.layer_norm(value, value.shape[-1:], gamma, beta, added_to_variance(epsilon, value.dtype))
