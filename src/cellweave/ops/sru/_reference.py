"""One step of the simple recurrent unit, in torch operations."""

from __future__ import annotations

import torch

from cellweave.ops.common import activation_function
from cellweave.specs import SRUSpec


def sru_step(
    inputs: torch.Tensor, c: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor, *, spec: SRUSpec
) -> tuple[torch.Tensor, torch.Tensor]:
    """One step; the state meets no matrix.

        z, f, r, x~ = split(x W);  f = sigmoid(f + b_f);  r = sigmoid(r + b_r)
        c' = f*c + (1 - f)*z;  h = r*act(c') + (1 - r)*x~

    Args:
        inputs: `[B, I]`. c: `[B, H]`. kernel: `[I, 4H]` in order z, f, r, x~. bias: `[2H]` in order f, r.
        spec: Variant.
    Returns:
        h `[B, H]`, the output, and c' `[B, H]`, the state.
    Source: Lei et al. 2017; TF1 `tf.contrib.rnn.SRUCell`.
    """
    z, f, r, direct = (inputs @ kernel).chunk(4, dim=1)
    f, r = torch.sigmoid(torch.cat([f, r], dim=1) + bias).chunk(2, dim=1)
    new_c = f * c + (1.0 - f) * z
    return r * activation_function(spec.activation)(new_c) + (1.0 - r) * direct, new_c
