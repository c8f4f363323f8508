"""One step of the gated recurrent unit, in torch operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import torch

from cellweave.ops.common import (
    Backend,
    GateMasks,
    LayerCall,
    LayerResult,
    activation_function,
    normalized,
    reference_sequence,
    refuses_nothing,
)
from cellweave.specs import GRU_NORM_NAMES, GRUSpec

Norms = Mapping[str, torch.Tensor]
#: In the order in which masks count them.
GATES = "ruc"


def gru_step(
    inputs: torch.Tensor,
    h: torch.Tensor,
    gates_kernel: torch.Tensor,
    gates_bias: torch.Tensor,
    candidate_kernel: torch.Tensor,
    candidate_bias: torch.Tensor,
    *,
    spec: GRUSpec,
    norms: Norms | None = None,
    masks: GateMasks | None = None,
) -> torch.Tensor:
    """One step with the reset gate before the candidate's product.

        r, u = sigmoid([x, h] W_gates + b_gates);  c = act([x, r*h] W_candidate + b_candidate)
        h' = u*h + (1 - u)*c

    Under `layer_norm` the sums of r, u and c are normalized before their activations.

    Args:
        inputs: `[B, I]`. h: `[B, H]`. gates_kernel: `[I + H, 2H]`, reset columns first. gates_bias: `[2H]`.
        candidate_kernel: `[I + H, H]`. candidate_bias: `[H]`. spec: Variant.
        norms: `reset/gamma`, `reset/beta` and so on `[H]` under `layer_norm`. masks: Of each gate's own.
    Returns:
        h' `[B, H]`.
    Source: Cho et al. 2014; TF1 GRUCell; Ba et al. 2016.
    """
    squash, norm = activation_function(spec.recurrent_activation), _normalizer(spec, norms)
    r, u = (_joined_product(inputs, h, gates_kernel, (0, 1), masks) + gates_bias).chunk(2, dim=1)
    r, u = squash(norm(r, "r")), squash(norm(u, "u"))
    total = _joined_product(inputs, r * h, candidate_kernel, (2,), masks) + candidate_bias
    c = activation_function(spec.activation)(norm(total, "c"))
    return u * h + (1 - u) * c


def _joined_product(
    inputs: torch.Tensor, h: torch.Tensor, kernel: torch.Tensor, columns: tuple[int, ...], masks: GateMasks | None
) -> torch.Tensor:
    if masks is None:
        return torch.cat([inputs, h], dim=1) @ kernel
    rows = [inputs.shape[1], h.shape[1]]
    of_x, of_h = kernel.split_with_sizes(rows)
    return masks.product(inputs, h, (of_x, of_h), columns)


def _normalizer(spec: GRUSpec, norms: Norms | None) -> Callable[[torch.Tensor, str], torch.Tensor]:
    if not spec.layer_norm or norms is None:
        return lambda value, part: value
    return lambda value, part: normalized(value, GRU_NORM_NAMES[part], norms, spec.norm_epsilon)


def gru_split_step(
    inputs: torch.Tensor,
    h: torch.Tensor,
    kernel: torch.Tensor,
    recurrent_kernel: torch.Tensor,
    bias: torch.Tensor | None,
    *,
    spec: GRUSpec,
    norms: Norms | None = None,
    masks: GateMasks | None = None,
) -> torch.Tensor:
    """One step with separate kernels for inputs and state, reset before or after the product.

    Under `layer_norm` the sums of r, u and c are normalized before their activations; with the reset after the product
    the candidate is `act(n(x W + b) + r * n(h R + b'))`.

    Args:
        inputs: `[B, I]`. h: `[B, H]`. kernel: `[I, 3H]` in `spec.gate_order`. recurrent_kernel: `[H, 3H]` likewise.
            Both transposed if the spec says so.
        bias: `[3H]`; `[2, 3H]` (inputs' row, state's row) when the reset comes after; or None.
        spec: Variant. norms: `reset/gamma`, `reset/beta` and so on `[H]` under `layer_norm`. masks: Of each gate's own.
    Returns:
        h' `[B, H]`.
    Source: Keras GRUCell; `reset_after` is cuDNN's form; Ba et al. 2016.
    """
    squash, act = activation_function(spec.recurrent_activation), activation_function(spec.activation)
    norm = _normalizer(spec, norms)
    if spec.transposed:
        kernel, recurrent_kernel = kernel.t(), recurrent_kernel.t()
    input_bias = bias[0] if bias is not None and spec.reset_after else bias
    order = spec.gate_order
    from_x = _by_gate("input", inputs, kernel, order, masks)
    from_x = from_x if input_bias is None else from_x + input_bias
    x = dict(zip(order, from_x.chunk(3, dim=1), strict=True))
    if spec.reset_after:
        from_h = _by_gate("h", h, recurrent_kernel, order, masks)
        from_h = from_h if bias is None else from_h + bias[1]
        s = dict(zip(order, from_h.chunk(3, dim=1), strict=True))
        r, u = squash(norm(x["r"] + s["r"], "r")), squash(norm(x["u"] + s["u"], "u"))
        c = act(norm(x["c"], "c") + r * norm(s["c"], "h"))
    else:
        columns = dict(zip(order, recurrent_kernel.chunk(3, dim=1), strict=True))

        def from_state(value: torch.Tensor, gate: str) -> torch.Tensor:
            return _by_gate("h", value, columns[gate], gate, masks)

        r, u = squash(norm(x["r"] + from_state(h, "r"), "r")), squash(norm(x["u"] + from_state(h, "u"), "u"))
        c = act(norm(x["c"] + from_state(r * h, "c"), "c"))
    return u * h + (1 - u) * c


def _by_gate(
    place: str, value: torch.Tensor, kernel: torch.Tensor, order: str, masks: GateMasks | None
) -> torch.Tensor:
    """`value kernel`, whose blocks of columns belong to the gates of `order`."""
    if masks is None:
        return value @ kernel
    pairs = zip(order, kernel.chunk(len(order), dim=1), strict=True)
    return torch.cat([masks.on(place, value, GATES.index(gate)) @ columns for gate, columns in pairs], dim=1)


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
    norms = call.weights
    if spec.joined_kernel and spec.reset_after:
        weights = gru_split_weights(weights)
    elif spec.joined_kernel:
        joined = [weights[f"{part}/{kind}"] for part in ("gates", "candidate") for kind in ("kernel", "bias")]
        return reference_sequence(
            lambda x, state, masks=None: (gru_step(x, state[0], *joined, spec=spec, norms=norms, masks=masks),), call
        )
    own = (weights["kernel"], weights["recurrent_kernel"], weights.get("bias"))
    return reference_sequence(
        lambda x, state, masks=None: (gru_split_step(x, state[0], *own, spec=spec, norms=norms, masks=masks),), call
    )


REFERENCE = Backend("reference", refuses_nothing, gru_sequence)
