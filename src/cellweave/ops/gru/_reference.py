"""One step of the gated recurrent unit, in torch operations."""

from __future__ import annotations

from collections.abc import Mapping
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
from cellweave.specs import GRUSpec


def gru_step(
    inputs: torch.Tensor,
    h: torch.Tensor,
    gates_kernel: torch.Tensor,
    gates_bias: torch.Tensor,
    candidate_kernel: torch.Tensor,
    candidate_bias: torch.Tensor,
    *,
    spec: GRUSpec,
) -> torch.Tensor:
    """One step with the reset gate before the candidate's product.

        r, u = sigmoid([x, h] W_gates + b_gates);  c = act([x, r*h] W_candidate + b_candidate)
        h' = u*h + (1 - u)*c

    Args:
        inputs: `[B, I]`. h: `[B, H]`. gates_kernel: `[I + H, 2H]`, reset columns first. gates_bias: `[2H]`.
        candidate_kernel: `[I + H, H]`. candidate_bias: `[H]`. spec: Variant.
    Returns:
        h' `[B, H]`.
    Source: Cho et al. 2014; TF1 GRUCell.
    """
    squash = activation_function(spec.recurrent_activation)
    gates = squash(torch.cat([inputs, h], dim=1) @ gates_kernel + gates_bias)
    r, u = gates.chunk(2, dim=1)
    total = torch.cat([inputs, r * h], dim=1) @ candidate_kernel + candidate_bias
    c = activation_function(spec.activation)(total)
    return u * h + (1 - u) * c


def gru_split_step(
    inputs: torch.Tensor,
    h: torch.Tensor,
    kernel: torch.Tensor,
    recurrent_kernel: torch.Tensor,
    bias: torch.Tensor | None,
    *,
    spec: GRUSpec,
) -> torch.Tensor:
    """One step with separate kernels for inputs and state, reset before or after the product.

    Args:
        inputs: `[B, I]`. h: `[B, H]`. kernel: `[I, 3H]` in `spec.gate_order`. recurrent_kernel: `[H, 3H]` likewise.
            Both transposed if the spec says so.
        bias: `[3H]`; `[2, 3H]` (inputs' row, state's row) when the reset comes after; or None.
        spec: Variant.
    Returns:
        h' `[B, H]`.
    Source: Keras GRUCell; `reset_after` is cuDNN's form.
    """
    squash, act = activation_function(spec.recurrent_activation), activation_function(spec.activation)
    if spec.transposed:
        kernel, recurrent_kernel = kernel.t(), recurrent_kernel.t()
    input_bias = bias[0] if bias is not None and spec.reset_after else bias
    from_x = inputs @ kernel
    from_x = from_x if input_bias is None else from_x + input_bias
    x = dict(zip(spec.gate_order, from_x.chunk(3, dim=1), strict=True))
    if spec.reset_after:
        from_h = h @ recurrent_kernel
        from_h = from_h if bias is None else from_h + bias[1]
        s = dict(zip(spec.gate_order, from_h.chunk(3, dim=1), strict=True))
        r, u = squash(x["r"] + s["r"]), squash(x["u"] + s["u"])
        c = act(x["c"] + r * s["c"])
    else:
        columns = dict(zip(spec.gate_order, recurrent_kernel.chunk(3, dim=1), strict=True))
        r, u = squash(x["r"] + h @ columns["r"]), squash(x["u"] + h @ columns["u"])
        c = act(x["c"] + (r * h) @ columns["c"])
    return u * h + (1 - u) * c


def gru_split_weights(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Separate kernels out of those of TF1's `CudnnCompatibleGRUCell`, for a reset after the product.

    Args:
        weights: `gates/kernel` `[I + H, 2H]`, `gates/bias` `[2H]`, and of each of `candidate/input_projection` and
            `candidate/hidden_projection` the `kernel` `[I, H]` or `[H, H]` and the `bias` `[H]`.
    Returns:
        New tensors `kernel` `[I, 3H]`, `recurrent_kernel` `[H, 3H]`, `bias` `[2, 3H]`, in order r, u, c: the gates' one
        bias stands in the inputs' row, beside zeros in the state's.
    """
    (from_x, b_x), (from_h, b_h) = [
        (weights[f"candidate/{side}_projection/kernel"], weights[f"candidate/{side}_projection/bias"])
        for side in ("input", "hidden")
    ]
    gates_x, gates_h = weights["gates/kernel"].split_with_sizes([from_x.shape[0], from_h.shape[0]])
    gates_bias = weights["gates/bias"]
    rows = [torch.cat([gates_bias, b_x]), torch.cat([torch.zeros_like(gates_bias), b_h])]
    kernels = torch.cat([gates_x, from_x], dim=1), torch.cat([gates_h, from_h], dim=1)
    return {"kernel": kernels[0], "recurrent_kernel": kernels[1], "bias": torch.stack(rows)}


def gru_sequence(call: LayerCall) -> LayerResult:
    """A whole sequence, step by step; the call's cell is a `GRUSpec`, its state `(h,)`."""
    spec, weights = cast(GRUSpec, call.spec.cell), call.weights
    if spec.joined_kernel and spec.reset_after:
        weights = gru_split_weights(weights)
    elif spec.joined_kernel:
        joined = [weights[f"{part}/{kind}"] for part in ("gates", "candidate") for kind in ("kernel", "bias")]
        return reference_sequence(lambda x, state: (gru_step(x, state[0], *joined, spec=spec),), call)
    kernels, bias = (weights["kernel"], weights["recurrent_kernel"]), weights.get("bias")
    return reference_sequence(lambda x, state: (gru_split_step(x, state[0], *kernels, bias, spec=spec),), call)


REFERENCE = Backend("reference", refuses_nothing, gru_sequence)
