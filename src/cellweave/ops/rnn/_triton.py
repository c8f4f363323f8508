"""The plain recurrent network as Triton kernels on CUDA devices."""

from __future__ import annotations

import dataclasses
from typing import cast

import torch

from cellweave.ops.common._calls import LayerCall
from cellweave.ops.common._triton_autograd import Tensors
from cellweave.ops.common._triton_backend import (
    as_columns,
    chip,
    norm_weights,
    same,
    stacked_norms,
)
from cellweave.ops.common._triton_loop import KernelLoop, Named
from cellweave.ops.common._triton_ops import TritonOp, triton_backend
from cellweave.ops.common._triton_schedule import Product, Schedule, plan_programs
from cellweave.ops.rnn import _triton_steps as by_steps
from cellweave.ops.rnn._native import rnn_layout
from cellweave.ops.rnn._reference import rnn_sequence
from cellweave.specs import RNNSpec

_NORM_NAMES = ("norm",)


def schedules(
    spec: RNNSpec, rows: int, itemsize: int, device: torch.device | None = None
) -> tuple[Schedule | None, Schedule | None]:
    """Of the forward and the backward kernel, which need the same; None where nothing fits."""
    found = plan_programs(spec.units, rows, (Product(spec.units, spec.units, 1),), itemsize, chip(device))
    return found, found


def _weights(call: LayerCall) -> list[torch.Tensor | None]:
    """Of the inputs and their bias; recurrent ones, and of a normalization."""
    spec, depth = cast(RNNSpec, call.spec.cell), call.x.shape[2]
    weights = as_columns(call.weights, spec)
    kernel = weights["kernel"]
    recurrent = kernel[depth:] if spec.joined_kernel else weights["recurrent_kernel"]
    norms = stacked_norms(weights, _NORM_NAMES, spec.units) if spec.layer_norm else None
    return [kernel[:depth], weights.get("bias"), recurrent, norms]


class RNNLoop(KernelLoop):
    """The time loop of one call: its input products are `[T, B, H]`."""

    weights = ("weight", "norms")
    keeps = ("hs", "gates")
    module, kernels = "cellweave.ops.rnn._triton_kernels", ("rnn_fwd_persistent", "rnn_bwd_exchange")
    steps = by_steps
    plan = schedules
    reference = rnn_sequence

    def __init__(self, call: LayerCall) -> None:
        units = call.spec.cell.units
        super().__init__(call, by_steps.columns(units), dict.fromkeys(("h", "output", "zone_h", "gate_h"), units))

    def _made_inside(self, x_gates: torch.Tensor, *, kept: bool, save: bool, gates: bool) -> Named:
        return {"gates": torch.empty_like(x_gates) if gates else None}

    def _weight_gradients(self, tensors: Tensors, kept: Named, made: Named) -> Tensors:
        return (self._weight_gradient(tensors, kept["hs"], made["d_gates"].flatten(0, 1), self.columns),)

    def _for_reference(self, tensors: Tensors) -> tuple[RNNSpec, torch.Tensor, dict[str, torch.Tensor]]:
        x_gates, _, _, weight, norms = tensors
        cell = dataclasses.replace(self._spec, joined_kernel=False, use_bias=False, transposed=False)
        weights = {"kernel": same(x_gates), "recurrent_kernel": weight, **norm_weights(norms, _NORM_NAMES)}
        return cell, x_gates, weights


OP = TritonOp("rnn", RNNLoop, _weights, rnn_layout)
TRITON = triton_backend(OP, schedules)
