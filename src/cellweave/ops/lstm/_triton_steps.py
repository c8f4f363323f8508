"""The LSTM's time loop as one kernel per step, two under a projection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from cellweave.ops.common._gate_columns import GateColumns
from cellweave.ops.common._triton_autograd import Tensors
from cellweave.ops.common._triton_steps import Part, Steps, add_products, device_of, in_dtype, sums_by_row, sums_for
from cellweave.specs import LSTMSpec

_KERNELS = "cellweave.ops.lstm._triton_step_kernels"


def columns(spec: LSTMSpec) -> list[GateColumns]:
    """Of the gates: `4 * unit + gate`, in the order i, j, f, o."""
    return [GateColumns(spec.units, 0, 4, 0, missing=int(spec.coupled))]


def forward(cell: LSTMSpec, tensors: Tensors, made: Mapping[str, Any], given: Mapping[str, Any]) -> Tensors:
    """Run all steps and return c and h after them.

    Args:
        cell: What runs. tensors: As the loop has them. made: What the steps fill, by the names of the kernels.
        given: Their other arguments.
    """
    x_gates, c0, h0, fresh_c, fresh_h, weight, _, projection, _ = tensors
    B, H, P = x_gates.shape[1], cell.units, cell.output_size
    h, c, product = torch.empty_like(h0), torch.empty_like(c0, dtype=torch.float32), x_gates.new_empty(B, 4 * H)
    m, projected = x_gates.new_empty(B, H), x_gates.new_empty(B, P)
    steps = Steps(_KERNELS, {
        **given, **made, "x_gates": x_gates, "product": product, "reset_h": fresh_h, "reset_c": fresh_c, "h": h,
        "c": c, "m": m, "projected": projected,
    }, over=x_gates)  # fmt: skip
    with device_of(x_gates):
        steps.first_state(h0, h, made["hs"], fresh_h)
        steps.first_state(c0, c, made["cs"], fresh_c)
        parts: list[Part] = [steps.product(h, weight, product, columns(cell)), steps.cell("lstm_fwd_step")]
        if projection is not None:
            parts += [lambda step: torch.mm(m, projection, out=projected), steps.kernel("lstm_fwd_output", P)]
        steps.run(*parts)
    return c.to(c0.dtype), h


def backward(
    cell: LSTMSpec, tensors: Tensors, made: dict[str, Any], upstream: Tensors, given: Mapping[str, Any]
) -> None:
    """Run all steps backward and fill or replace what is made.

    Args:
        cell, tensors, made, given: As in `forward`, with what that left. upstream: Gradients of outputs, c and h.
    """
    x_gates, c0, _, fresh_c, fresh_h, weight, _, projection, norms = tensors
    B, H, P, dtype = x_gates.shape[1], cell.units, cell.output_size, x_gates.dtype
    d_out, d_c, d_h = upstream[0], upstream[1].to(torch.float32, copy=True), upstream[2].to(torch.float32, copy=True)
    d_totals, product = x_gates.new_empty(B, 4 * H), x_gates.new_zeros(B, P)
    d_m, d_raw = x_gates.new_empty(B, H), x_gates.new_empty(B, P)
    sum_reset_h, sum_reset_c = sums_for(fresh_h), sums_for(fresh_c)
    if cell.peepholes:
        made["d_peephole"] = c0.new_zeros((3, B, H), dtype=torch.float32)
    made["d_norms"] = sums_by_row(norms, B)
    steps = Steps(_KERNELS, {
        **given, **made, "product": product, "d_m": d_m, "d_out": d_out, "past_h": d_h, "d_c": d_c,
        "sum_reset_h": sum_reset_h, "sum_reset_c": sum_reset_c, "d_totals": d_totals, "d_raw": d_raw,
    }, over=x_gates)  # fmt: skip
    with device_of(x_gates):
        multiply = steps.product_back(d_totals, weight, product, columns(cell))
        parts: list[Part] = [steps.cell("lstm_bwd_step"), multiply]
        if projection is not None:
            back = projection.t()
            parts = [steps.kernel("lstm_bwd_output", P), lambda step: torch.mm(d_raw, back, out=d_m), *parts]
        steps.run(*parts, backward=True)
        steps.first_gradient(d_h, product, made["d_h0"], sum_reset_h)
    made["d_c0"] = d_c.to(dtype)
    made["d_reset_h"], made["d_reset_c"] = in_dtype(sum_reset_h, dtype), in_dtype(sum_reset_c, dtype)


def gates_again(
    cell: LSTMSpec, tensors: Tensors, kept: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    """The activated gates of all steps, or the totals that are normalized, in place of the input products.

    Args:
        cell, tensors: As in `forward`. kept: Operands of all steps. given: Arguments of the kernel.
    """
    gates: torch.Tensor = tensors[0]
    add_products(gates.flatten(0, 1), kept["hs"], tensors[5], columns(cell), given)
    if not cell.layer_norm:
        steps = Steps(_KERNELS, {**given, "gates": gates, "cs": kept["cs"], "B": gates.shape[0] * gates.shape[1]})
        with device_of(gates):
            steps.kernel("lstm_gates_again", cell.units)()
    return {"gates": gates}
