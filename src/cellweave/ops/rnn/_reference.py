"""One step of the plain recurrent network, in torch operations."""

from __future__ import annotations

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
        inputs: `[B, I]`. h: `[B, H]`. kernel: `[I + H, H]`, or `[I, H]` beside `recurrent_kernel` `[H, H]`
            (transposed if the spec says so).
        bias: `[H]` or None. spec: Variant.
    Returns:
        h' `[B, H]`.
    Source: TF1 BasicRNNCell; Keras SimpleRNNCell.
    """
    if recurrent_kernel is None:
        total = torch.cat([inputs, h], dim=1) @ kernel
        total = total if bias is None else total + bias
    else:
        if spec.transposed:
            kernel, recurrent_kernel = kernel.t(), recurrent_kernel.t()
        total = inputs @ kernel
        total = (total if bias is None else total + bias) + h @ recurrent_kernel
    return activation_function(spec.activation)(total)


def rnn_sequence(call: LayerCall) -> LayerResult:
    """A whole sequence, step by step; the call's cell is an `RNNSpec`, its state `(h,)`."""
    spec, weights = cast(RNNSpec, call.spec.cell), call.weights
    kernel, recurrent_kernel, bias = weights["kernel"], weights.get("recurrent_kernel"), weights.get("bias")
    return reference_sequence(
        lambda x, state: (rnn_step(x, state[0], kernel, recurrent_kernel, bias, spec=spec),), call
    )


REFERENCE = Backend("reference", refuses_nothing, rnn_sequence)
