"""The plain recurrent network's time loop as one kernel per step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from cellweave.ops.common._gate_columns import GateColumns
from cellweave.ops.common._triton_autograd import Tensors
from cellweave.ops.common._triton_steps import Steps, add_products, device_of, in_dtype, sums_by_row, sums_for
from cellweave.specs import RNNSpec

_KERNELS = "cellweave.ops.rnn._triton_step_kernels"


def columns(units: int) -> list[GateColumns]:
    """Of the gate."""
    return [GateColumns(units, 0, 1, 0)]


def forward(cell: RNNSpec, tensors: Tensors, made: Mapping[str, Any], given: Mapping[str, Any]) -> Tensors:
    """Run all steps and return h after them.

    Args:
        cell: What runs. tensors: As the loop has them. made: What the steps fill, by the names of the kernels.
        given: Their other arguments.
    """
    x_gates, h0, fresh, weight, _ = tensors
    h, product = torch.empty_like(h0), torch.empty_like(h0)
    buffers = {"x_gates": x_gates, "product": product, "reset_h": fresh, "h": h}
    steps = Steps(_KERNELS, {**given, **made, **buffers}, over=x_gates)
    with device_of(x_gates):
        steps.first_state(h0, h, made["hs"], fresh)
        steps.run(steps.product(h, weight, product, columns(cell.units)), steps.cell("rnn_fwd_step"))
    return (h,)


def backward(
    cell: RNNSpec, tensors: Tensors, made: dict[str, Any], upstream: Tensors, given: Mapping[str, Any]
) -> None:
    """Run all steps backward and fill or replace what is made.

    Args:
        cell, tensors, made, given: As in `forward`, with what that left. upstream: Gradients of outputs and h.
    """
    x_gates, h0, fresh, weight, norms = tensors
    d_h, sum_reset = upstream[1].to(torch.float32, copy=True), sums_for(fresh)
    d_totals, product = torch.empty_like(h0), torch.zeros_like(h0)
    made["d_norms"] = sums_by_row(norms, h0.shape[0])
    steps = Steps(_KERNELS, {
        **given, **made, "product": product, "d_out": upstream[0], "past_h": d_h, "sum_reset_h": sum_reset,
        "d_totals": d_totals,
    }, over=x_gates)  # fmt: skip
    with device_of(x_gates):
        multiply = steps.product_back(d_totals, weight, product, columns(cell.units))
        steps.run(steps.cell("rnn_bwd_step"), multiply, backward=True)
        steps.first_gradient(d_h, product, made["d_h0"], sum_reset)
    made["d_reset_h"] = in_dtype(sum_reset, h0.dtype)


def gates_again(
    cell: RNNSpec, tensors: Tensors, kept: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    """The values of all steps, or the totals that are normalized, in place of the input products.

    Args:
        cell, tensors: As in `forward`. kept: Operands of all steps. given: Arguments of the kernel.
    """
    gates: torch.Tensor = tensors[0]
    add_products(gates.flatten(0, 1), kept["hs"], tensors[3], columns(cell.units), given)
    if not cell.layer_norm:
        steps = Steps(_KERNELS, {**given, "gates": gates, "B": gates.shape[0] * gates.shape[1]})
        with device_of(gates):
            steps.kernel("rnn_gates_again", cell.units)()
    return {"gates": gates}
