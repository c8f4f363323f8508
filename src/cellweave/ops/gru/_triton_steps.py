"""The gated recurrent unit's time loop as one kernel per step, two with the reset before the product."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from cellweave.ops.common._triton_autograd import Tensors
from cellweave.ops.common._triton_steps import Steps, device_of, in_dtype, sums_by_row, sums_for

_KERNELS = "cellweave.ops.gru._triton_step_kernels"


def forward(tensors: Tensors, made: Mapping[str, Any], given: Mapping[str, Any]) -> torch.Tensor:
    """Run all steps and return h after them.

    Args:
        tensors: As the loop has them. made: What the steps fill, by the names of the kernels. given: Their other
            arguments.
    """
    x_gates, h0, fresh, gates_weight, candidate, bias, _ = tensors
    (T, B), H, after = x_gates.shape[:2], h0.shape[1], given["AFTER"]
    h, product = torch.empty_like(h0), x_gates.new_empty(B, 3 * H)
    rh, weight = torch.empty_like(h0), torch.cat([candidate, gates_weight], 1) if after else gates_weight
    steps = Steps(_KERNELS, {
        **given, **made, "x_gates": x_gates, "product": product, "bias": bias, "BIAS": bias is not None,
        "reset_h": fresh, "h": h, "rh": rh,
    })  # fmt: skip
    with device_of(x_gates):
        steps.first_state(h0, h, made["hs"], fresh)
        cells = steps.cell("gru_fwd_step")
        resets = None if after else steps.cell("gru_fwd_reset")
        for step in range(T):
            if resets is None:
                torch.mm(h, weight, out=product)
            else:
                torch.mm(h, weight, out=product[:, H:])
                resets(step=step)
                torch.mm(rh, candidate, out=product[:, :H])
            cells(step=step)
    return h


def backward(tensors: Tensors, made: dict[str, Any], upstream: Tensors, given: Mapping[str, Any]) -> None:
    """Run all steps backward and fill or replace what is made.

    Args:
        tensors, made, given: As in `forward`, with what that left. upstream: Gradients of outputs and h.
    """
    x_gates, h0, fresh, gates_weight, candidate, _, norms = tensors
    (T, B), H, after = x_gates.shape[:2], h0.shape[1], given["AFTER"]
    d_h, sum_reset = upstream[1].to(torch.float32, copy=True), sums_for(fresh)
    d_totals, product = x_gates.new_empty(B, 3 * H), torch.zeros_like(h0)
    made["d_norms"] = sums_by_row(norms, B)
    d_rh, weight = torch.empty_like(h0), torch.cat([candidate, gates_weight], 1) if after else gates_weight
    steps = Steps(_KERNELS, {
        **given, **made, "product": product, "d_out": upstream[0], "past_h": d_h, "sum_reset_h": sum_reset,
        "d_totals": d_totals, "d_rh": d_rh,
    })  # fmt: skip
    with device_of(x_gates):
        cells = steps.cell("gru_bwd_step")
        resets = None if after else steps.cell("gru_bwd_reset")
        for step in reversed(range(T)):
            cells(step=step)
            if resets is None:
                torch.mm(d_totals, weight.t(), out=product)
            else:
                torch.mm(d_totals[:, :H], candidate.t(), out=d_rh)
                resets(step=step)
                torch.mm(d_totals[:, H:], weight.t(), out=product)
        steps.first_gradient(d_h, product, made["d_h0"], sum_reset)
    made["d_reset_h"] = in_dtype(sum_reset, h0.dtype)


def gates_again(
    tensors: Tensors, hs: torch.Tensor, rhs: torch.Tensor | None, given: Mapping[str, Any]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Gates, candidates and, with the reset after the product, the candidates' recurrent products of all steps.

    Args:
        tensors: As the loop has them. hs, rhs: Operands of all steps. given: Arguments of the kernel.
    """
    x_gates, _, _, gates_weight, candidate, bias, _ = tensors
    T, B, H = hs.shape
    product, flat = x_gates.new_empty(T * B, 3 * H), hs.flatten(0, 1)
    torch.mm(flat, gates_weight, out=product[:, H:])
    torch.mm(flat if rhs is None else rhs.flatten(0, 1), candidate, out=product[:, :H])
    gates, values = x_gates.new_empty(T, B, 2 * H), torch.empty_like(hs)
    from_h = torch.empty_like(hs) if rhs is None else None
    steps = Steps(_KERNELS, {
        **given, "x_gates": x_gates, "product": product, "bias": bias, "BIAS": bias is not None, "gates": gates,
        "values": values, "from_h": from_h, "B": T * B,
    })  # fmt: skip
    with device_of(x_gates):
        steps.cell("gru_gates_again")()
    return gates, values, from_h
