"""The LSTM as Triton kernels on CUDA devices."""

from __future__ import annotations

import dataclasses
from typing import cast

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
from cellweave.ops.common._triton_steps import over_rows
from cellweave.ops.lstm import _triton_steps as by_steps
from cellweave.ops.lstm._native import lstm_layout
from cellweave.ops.lstm._reference import lstm_sequence
from cellweave.specs import NORM_NAMES, LSTMSpec

#: The kernels' order of gates.
_ORDER = "ijfo"


def schedules(
    spec: LSTMSpec, rows: int, itemsize: int, device: torch.device | None = None
) -> tuple[Schedule | None, Schedule | None]:
    """Of the forward and the backward kernel; None where nothing fits the device."""
    H, P, on = spec.units, spec.output_size, chip(device)
    forward = [Product(P, 4 * H, 4)]
    backward = [Product(4 * H, P, 0 if spec.projection else 1)]
    if spec.projection is not None:
        forward.append(Product(H, P, 0))
        backward.append(Product(P, H, 1))
    return (
        plan_programs(H, rows, tuple(forward), itemsize, on),
        plan_programs(H, rows, tuple(backward), itemsize, on),
    )


def packed_gates(weight: torch.Tensor, spec: LSTMSpec) -> torch.Tensor:
    """Columns `gate * H + unit` in the cell's order to `4 * unit + gate` in the kernels'; zeros for a missing gate."""
    parts = dict(zip(spec.gate_order, weight.chunk(len(spec.gate_order), dim=-1), strict=True))
    if spec.coupled:
        parts["i"] = torch.zeros_like(parts["f"])
    return torch.stack([parts[gate] for gate in _ORDER], dim=-1).flatten(-2)


def _weights(call: LayerCall) -> list[torch.Tensor | None]:
    """Of the inputs and their bias; recurrent ones, peepholes for f, i, o, the projection, and normalizations."""
    spec, depth = cast(LSTMSpec, call.spec.cell), call.x.shape[2]
    weights = as_columns(call.weights, spec)
    kernel = weights["kernel"]
    recurrent = kernel[depth:] if spec.joined_kernel else weights["recurrent_kernel"]
    bias = weights.get("bias")
    diagonals = [weights.get(f"w_{gate}_diag") for gate in "fio"]
    peephole = None
    if spec.peepholes:
        peephole = torch.stack([torch.zeros_like(weights["w_f_diag"]) if d is None else d for d in diagonals])
    return [
        packed_gates(kernel[:depth], spec), None if bias is None else packed_gates(bias, spec),
        packed_gates(recurrent, spec), peephole, weights.get("projection/kernel"),
        stacked_norms(weights, _norm_names(spec), spec.units) if spec.layer_norm else None,
    ]  # fmt: skip


def _norm_names(spec: LSTMSpec) -> list[str | None]:
    return [NORM_NAMES[part] if part in (*spec.gate_order, "c") else None for part in (*_ORDER, "c")]


class LSTMLoop(KernelLoop):
    """The time loop of one call: its input products are `[T, B, 4H]`."""

    leaves = ("c", "h")
    weights = ("weight", "peephole", "projection", "norms")
    keeps = ("hs", "cs", "gates", "ms", "raw")
    module, kernels = "cellweave.ops.lstm._triton_kernels", ("lstm_fwd_persistent", "lstm_bwd_exchange")
    steps = by_steps
    plan = schedules
    reference = lstm_sequence

    def __init__(self, call: LayerCall) -> None:
        cell = cast(LSTMSpec, call.spec.cell)
        H, P = cell.units, cell.output_size
        widths = {"h": P, "c": H, "output": P, "zone_h": P, "zone_c": H, "gate_h": P * cell.gate_count}
        super().__init__(call, by_steps.columns(cell), widths)

    def _made_inside(self, x_gates: torch.Tensor, *, kept: bool, save: bool, gates: bool) -> Named:
        (T, B), H, P = x_gates.shape[:2], self._spec.units, self._spec.output_size
        return {
            "cs": x_gates.new_empty((T, B, H), dtype=torch.float32) if save else None,
            "gates": torch.empty_like(x_gates) if gates else None,
            "ms": x_gates.new_empty(T, B, H) if kept and self._spec.projection is not None else None,
            "raw": x_gates.new_empty(T, B, P) if save and self._clips_projection else None,
        }

    def _made_back(self, tensors: Tensors) -> Named:
        x_gates, c0, spec = tensors[0], tensors[1], self._spec
        shape = (*x_gates.shape[:2], spec.output_size)
        return {
            "d_projected": x_gates.new_empty(shape) if spec.projection is not None else None,
            "d_peephole": x_gates.new_empty((3, *c0.shape), dtype=torch.float32) if spec.peepholes else None,
        }

    def _own_constants(self) -> Named:
        spec = self._spec
        clip = 0 if spec.cell_clip is None else 2 if spec.clip_passes_gradient else 1
        return {
            "P": spec.output_size, "forget_bias": float(spec.forget_bias),
            "cell_clip": float(spec.cell_clip or 0.0), "proj_clip": float(spec.proj_clip or 0.0),
            "GATE_ACTIVATION": ACTIVATIONS[spec.recurrent_activation],
            "COUPLED": spec.coupled, "PEEPHOLES": spec.peepholes, "CLIP": clip,
            "PROJECTION": spec.projection is not None, "PROJ_CLIP": self._clips_projection,
            "ZONE_C": self._masks.has("zone_c"),
        }  # fmt: skip

    def _sides(self, schedule: Schedule, x_gates: torch.Tensor) -> Named:
        spec = self._spec
        share = schedule.units if spec.projection is None else schedule.share(spec.output_size)
        return super()._sides(schedule, x_gates) | {"V": share}

    @property
    def _clips_projection(self) -> bool:
        return self._spec.projection is not None and self._spec.proj_clip is not None

    def _weight_gradients(self, tensors: Tensors, kept: Named, made: Named) -> Tensors:
        d_gates, d_projection = made["d_gates"], None
        d_weight = self._weight_gradient(tensors, kept["hs"], d_gates.flatten(0, 1), self.columns)
        if made["d_projected"] is not None:
            d_projection = kept["ms"].flatten(0, 1).t() @ made["d_projected"].flatten(0, 1)
        return d_weight, over_rows(made["d_peephole"], d_gates.dtype), d_projection

    def _for_reference(self, tensors: Tensors) -> tuple[LSTMSpec, torch.Tensor, dict[str, torch.Tensor]]:
        x_gates, weight, peephole, projection, norms = tensors[0], *tensors[5:]
        spec = self._spec
        order = "".join(gate for gate in _ORDER if gate in spec.gate_order)

        def unpacked(value: torch.Tensor) -> torch.Tensor:
            parts = dict(zip(_ORDER, value.view(*value.shape[:-1], spec.units, 4).unbind(-1), strict=True))
            return torch.cat([parts[gate] for gate in order], dim=-1)

        products = unpacked(x_gates)
        weights = {"kernel": torch.cat([same(products), unpacked(weight)]), **norm_weights(norms, _norm_names(spec))}
        if peephole is not None:
            weights |= {f"w_{gate}_diag": row for gate, row in zip("fio", peephole.unbind(0), strict=True)}
        if projection is not None:
            weights["projection/kernel"] = projection
        cell = dataclasses.replace(spec, gate_order=order, joined_kernel=True, use_bias=False, transposed=False)
        return cell, products, weights


OP = TritonOp("lstm", LSTMLoop, _weights, lstm_layout)
TRITON = triton_backend(OP, schedules)
