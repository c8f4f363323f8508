"""The gated recurrent unit as Triton kernels on CUDA devices."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple, cast

import torch

from cellweave.ops.common._calls import LayerCall
from cellweave.ops.common._triton_autograd import Tensors
from cellweave.ops.common._triton_backend import (
    ACTIVATIONS,
    as_columns,
    chip,
    norm_weights,
    same,
    stacked_norms,
)
from cellweave.ops.common._triton_loop import KernelLoop, Named
from cellweave.ops.common._triton_ops import TritonOp, triton_backend
from cellweave.ops.common._triton_schedule import Product, Schedule, plan_programs
from cellweave.ops.gru import _triton_steps as by_steps
from cellweave.ops.gru._native import gru_layout
from cellweave.ops.gru._reference import gru_sequence, gru_split_weights
from cellweave.specs import GRUSpec, gru_norms


def schedules(
    spec: GRUSpec, rows: int, itemsize: int, device: torch.device | None = None
) -> tuple[Schedule | None, Schedule | None]:
    """Of the forward and the backward kernel; None where nothing fits the device."""
    H, on = spec.units, chip(device)
    forward = (Product(H, 2 * H, 2), Product(H, H, 1))
    backward = (Product(2 * H, H, 1), Product(H, H, 1))
    return (
        plan_programs(H, rows, forward, itemsize, on, one_operand=spec.reset_after),
        plan_programs(H, rows, backward, itemsize, on),
    )


class _Packed(NamedTuple):
    """Weights as the kernels have them: the candidate's columns, then `2 * unit + gate` of r and u.

    Attributes:
        from_x, bias: `[I, 3H]` and `[3H]` or None. gates: `[H, 2H]`. candidate: `[H, H]`. from_h: The bias of the
            candidate's recurrent product, or None.
    """

    from_x: torch.Tensor
    bias: torch.Tensor | None
    gates: torch.Tensor
    candidate: torch.Tensor
    from_h: torch.Tensor | None


def _two(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return torch.stack([first, second], dim=-1).flatten(-2)


def _packed(call: LayerCall) -> _Packed:
    spec, depth = cast(GRUSpec, call.spec.cell), call.x.shape[2]
    weights = as_columns(call.weights, spec)
    if spec.joined_kernel and not spec.reset_after:
        kernel, candidate = weights["gates/kernel"], weights["candidate/kernel"]
        bias = torch.cat([weights["candidate/bias"], _two(*weights["gates/bias"].chunk(2))])
        from_x = torch.cat([candidate[:depth], _two(*kernel[:depth].chunk(2, dim=1))], dim=1)
        return _Packed(from_x, bias, _two(*kernel[depth:].chunk(2, dim=1)), candidate[depth:], None)
    order = spec.gate_order
    if spec.joined_kernel:
        weights, order = gru_split_weights(weights), "ruc"

    def parts(value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        found = dict(zip(order, value.chunk(3, dim=-1), strict=True))
        return found["r"], found["u"], found["c"]

    r, u, c = parts(weights["kernel"])
    from_x = torch.cat([c, _two(r, u)], dim=1)
    r, u, candidate = parts(weights["recurrent_kernel"])
    found_bias, from_h = weights.get("bias"), None
    if found_bias is not None and spec.reset_after:
        from_h = parts(found_bias[1])[2]
        in_gates = torch.cat([torch.ones_like(from_h) if gate != "c" else torch.zeros_like(from_h) for gate in order])
        found_bias = found_bias[0] + found_bias[1] * in_gates
    if found_bias is not None:
        b_r, b_u, b_c = parts(found_bias)
        found_bias = torch.cat([b_c, _two(b_r, b_u)])
    return _Packed(from_x, found_bias, _two(r, u), candidate, from_h)


def _weights(call: LayerCall) -> list[torch.Tensor | None]:
    """Of the inputs and their bias; those of the gates and the candidate, its recurrent bias, and normalizations."""
    packed, spec = _packed(call), cast(GRUSpec, call.spec.cell)
    norms = stacked_norms(call.weights, gru_norms(spec), spec.units) if spec.layer_norm else None
    return [packed.from_x, packed.bias, packed.gates, packed.candidate, packed.from_h, norms]


class GRULoop(KernelLoop):
    """The time loop of one call: its input products are `[T, B, 3H]`."""

    weights = ("weight", "candidate", "bias", "norms")
    keeps = ("hs", "rhs", "gates", "values", "from_h")
    module, kernels = "cellweave.ops.gru._triton_kernels", ("gru_fwd_persistent", "gru_bwd_exchange")
    steps = by_steps
    plan = schedules
    reference = gru_sequence

    def __init__(self, call: LayerCall) -> None:
        cell = call.spec.cell
        widths = dict.fromkeys(("h", "output", "zone_h"), cell.units) | {"gate_h": cell.units * cell.gate_count}
        super().__init__(call, by_steps.columns(cell.units), widths)

    def _made_inside(self, x_gates: torch.Tensor, *, kept: bool, save: bool, gates: bool) -> Named:
        (T, B), H, after = x_gates.shape[:2], self._spec.units, self._spec.reset_after
        return {
            "rhs": x_gates.new_empty(T, B, H) if kept and not after else None,
            "gates": x_gates.new_empty(T, B, 2 * H) if gates else None,
            "values": x_gates.new_empty(T, B, H) if gates else None,
            "from_h": x_gates.new_empty(T, B, H) if gates and after else None,
        }

    def _made_back(self, tensors: Tensors) -> Named:
        shape = (*tensors[0].shape[:2], self._spec.units)
        return {"d_from_h": tensors[0].new_empty(shape) if self._spec.reset_after else None}

    def _own_constants(self) -> Named:
        spec = self._spec
        return {
            "AFTER": spec.reset_after, "BIAS": spec.reset_after and spec.use_bias,
            "GATE_ACTIVATION": ACTIVATIONS[spec.recurrent_activation],
        }  # fmt: skip

    def _sides(self, schedule: Schedule, x_gates: torch.Tensor) -> Named:
        """Of the two products in a row, the gates' and the candidate's."""
        (m1, m2), (k1, k2) = schedule.sides
        return super()._sides(schedule, x_gates) | {"K1": k1, "K2": k2, "M1": m1, "M2": m2}

    def _weight_gradients(self, tensors: Tensors, kept: Named, made: Named) -> Tensors:
        hs, rhs, H = kept["hs"], kept["rhs"], self._spec.units
        d_gates, d_from_h = made["d_gates"].flatten(0, 1), made["d_from_h"]
        d_weight = self._weight_gradient(tensors, hs, d_gates[:, H:], by_steps.gate_columns(H))
        operand, d_value = (hs, d_from_h.flatten(0, 1)) if rhs is None else (rhs, d_gates[:, :H])
        d_candidate = self._weight_gradient(tensors, operand, d_value, by_steps.candidate_columns(H))
        return d_weight, d_candidate, None if tensors[5] is None else d_from_h.sum((0, 1))

    def _for_reference(self, tensors: Tensors) -> tuple[GRUSpec, torch.Tensor, dict[str, torch.Tensor]]:
        x_gates, _, _, gates_weight, candidate, bias, norms = tensors
        H = self._spec.units

        def unpacked(gates: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
            r, u = gates.view(*gates.shape[:-1], H, 2).unbind(-1)
            return torch.cat([r, u, last], dim=-1)

        products = unpacked(x_gates[..., H:].contiguous(), x_gates[..., :H])
        weights = {
            "kernel": same(products), "recurrent_kernel": unpacked(gates_weight, candidate),
            **norm_weights(norms, gru_norms(self._spec)),
        }  # fmt: skip
        if bias is not None:
            none = products.new_zeros(3 * H)
            weights["bias"] = torch.stack([none, torch.cat([none[: 2 * H], bias])])
        cell = dataclasses.replace(
            self._spec, gate_order="ruc", joined_kernel=False, use_bias=bias is not None, transposed=False
        )
        return cell, products, weights


OP = TritonOp("gru", GRULoop, _weights, gru_layout)
TRITON = triton_backend(OP, schedules)
