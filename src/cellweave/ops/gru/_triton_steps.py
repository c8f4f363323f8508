"""The gated recurrent unit's time loop as one kernel per step, two with the reset before the product."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from cellweave.ops.common._gate_columns import GateColumns
from cellweave.ops.common._triton_autograd import Tensors
from cellweave.ops.common._triton_steps import Steps, add_products, device_of, in_dtype, sums_by_row, sums_for
from cellweave.specs import GRUSpec

_KERNELS = "cellweave.ops.gru._triton_step_kernels"


def gate_columns(units: int) -> list[GateColumns]:
    """Of the gates' weight: `2 * unit + gate` of r and u."""
    return [GateColumns(units, 0, 2, 0)]


def candidate_columns(units: int) -> list[GateColumns]:
    """Of the candidate's weight."""
    return [GateColumns(units, 0, 1, 2)]


def columns(units: int) -> list[GateColumns]:
    """Of all weights side by side, the candidate's before those of the gates."""
    return [GateColumns(units, 1, 2, 0), *candidate_columns(units)]


def forward(cell: GRUSpec, tensors: Tensors, made: Mapping[str, Any], given: Mapping[str, Any]) -> Tensors:
    """Run all steps and return h after them.

    Args:
        cell: What runs. tensors: As the loop has them. made: What the steps fill, by the names of the kernels.
        given: Their other arguments.
    """
    x_gates, h0, fresh, gates_weight, candidate, _, _ = tensors
    B, H = x_gates.shape[1], cell.units
    h, rh, product = torch.empty_like(h0), torch.empty_like(h0), x_gates.new_empty(B, 3 * H)
    steps = Steps(_KERNELS, {
        **given, **made, "x_gates": x_gates, "product": product, "reset_h": fresh, "h": h, "rh": rh,
    }, over=x_gates)  # fmt: skip
    with device_of(x_gates):
        steps.first_state(h0, h, made["hs"], fresh)
        cells = steps.cell("gru_fwd_step")
        if cell.reset_after:
            steps.run(steps.product(h, torch.cat([candidate, gates_weight], 1), product, columns(H)), cells)
            return (h,)
        resets = steps.cell("gru_fwd_reset")
        multiply = steps.product(h, gates_weight, product[:, H:], gate_columns(H))
        multiply_reset = steps.product(rh, candidate, product[:, :H], candidate_columns(H))
        steps.run(multiply, resets, multiply_reset, cells)
    return (h,)


def backward(
    cell: GRUSpec, tensors: Tensors, made: dict[str, Any], upstream: Tensors, given: Mapping[str, Any]
) -> None:
    """Run all steps backward and fill or replace what is made.

    Args:
        cell, tensors, made, given: As in `forward`, with what that left. upstream: Gradients of outputs and h.
    """
    x_gates, h0, fresh, gates_weight, candidate, _, norms = tensors
    B, H = x_gates.shape[1], cell.units
    d_h, sum_reset = upstream[1].to(torch.float32, copy=True), sums_for(fresh)
    d_totals, product, d_rh = x_gates.new_empty(B, 3 * H), torch.zeros_like(h0), torch.empty_like(h0)
    made["d_norms"] = sums_by_row(norms, B)
    steps = Steps(_KERNELS, {
        **given, **made, "product": product, "d_out": upstream[0], "past_h": d_h, "sum_reset_h": sum_reset,
        "d_totals": d_totals, "d_rh": d_rh,
    }, over=x_gates)  # fmt: skip
    with device_of(x_gates):
        cells = steps.cell("gru_bwd_step")
        if cell.reset_after:
            multiply = steps.product_back(d_totals, torch.cat([candidate, gates_weight], 1), product, columns(H))
            steps.run(cells, multiply, backward=True)
        else:
            resets = steps.cell("gru_bwd_reset")
            multiply = steps.product_back(d_totals[:, H:], gates_weight, product, gate_columns(H))
            multiply_reset = steps.product_back(d_totals[:, :H], candidate, d_rh, candidate_columns(H))
            steps.run(cells, multiply_reset, resets, multiply, backward=True)
        steps.first_gradient(d_h, product, made["d_h0"], sum_reset)
    made["d_reset_h"] = in_dtype(sum_reset, h0.dtype)


def gates_again(
    cell: GRUSpec, tensors: Tensors, kept: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, torch.Tensor | None]:
    """Gates, candidates and, with the reset after the product, the candidates' recurrent products of all steps.

    Args:
        cell, tensors: As in `forward`. kept: Operands of all steps. given: Arguments of the kernel.
    """
    x_gates, _, _, gates_weight, candidate, _, _ = tensors
    hs, rhs = kept["hs"], kept["rhs"]
    T, B, H = hs.shape
    product = x_gates.new_zeros(T * B, 3 * H)
    add_products(product[:, H:], hs, gates_weight, gate_columns(H), given)
    add_products(product[:, :H], hs if rhs is None else rhs, candidate, candidate_columns(H), given)
    made = {
        "gates": x_gates.new_empty(T, B, 2 * H), "values": torch.empty_like(hs),
        "from_h": torch.empty_like(hs) if cell.reset_after else None,
    }  # fmt: skip
    steps = Steps(_KERNELS, {**given, **made, "x_gates": x_gates, "product": product, "B": T * B})
    with device_of(x_gates):
        steps.cell("gru_gates_again")()
    return made
