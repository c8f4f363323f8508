"""The plain recurrent network as Triton kernels on CUDA devices."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, cast

import torch

from cellweave.ops.common._calls import LayerCall
from cellweave.ops.common._records import Backend, RunContext
from cellweave.ops.common._triton_autograd import Tensors
from cellweave.ops.common._triton_backend import (
    activation_refused,
    as_columns,
    call_arguments,
    chip,
    inner_masks,
    loop_arguments,
    norm_weights,
    only_by_steps,
    run_of_products,
    same,
    stacked_norms,
    states_as,
    step_arguments,
    steps_remark,
    surroundings,
    triton_refuses,
)
from cellweave.ops.common._triton_launch import Launch
from cellweave.ops.common._triton_masks import mask_table
from cellweave.ops.common._triton_ops import TritonOp, define_triton_ops, runner
from cellweave.ops.common._triton_schedule import Product, Schedule, plan_programs
from cellweave.ops.common._triton_steps import over_rows, recurrent_weight_gradient
from cellweave.ops.rnn import _triton_steps as by_steps
from cellweave.ops.rnn._native import rnn_layout
from cellweave.ops.rnn._reference import rnn_sequence
from cellweave.specs import RNNSpec, RunSpec

_KERNELS = "cellweave.ops.rnn._triton_kernels"
_NORM_NAMES = ("norm",)


def schedules(
    spec: RNNSpec, rows: int, itemsize: int, device: torch.device | None = None
) -> tuple[Schedule | None, Schedule | None]:
    """Of the forward and the backward kernel, which need the same; None where nothing fits."""
    found = plan_programs(spec.units, rows, (Product(spec.units, spec.units, 1),), itemsize, chip(device))
    return found, found


def _refuses(spec: RunSpec, context: RunContext) -> str | None:
    return triton_refuses(spec, context) or activation_refused(cast(RNNSpec, spec.cell))


def _remarks(spec: RunSpec, context: RunContext) -> str | None:
    cell = cast(RNNSpec, spec.cell)
    return steps_remark(schedules(cell, context.B, context.dtype.itemsize), spec, context)


def _weights(call: LayerCall) -> list[torch.Tensor | None]:
    """Of the inputs and their bias; recurrent ones, and of a normalization."""
    spec, depth = cast(RNNSpec, call.spec.cell), call.x.shape[2]
    weights = as_columns(call.weights, spec)
    kernel = weights["kernel"]
    recurrent = kernel[depth:] if spec.joined_kernel else weights["recurrent_kernel"]
    norms = stacked_norms(weights, _NORM_NAMES, spec.units) if spec.layer_norm else None
    return [kernel[:depth], weights.get("bias"), recurrent, norms]


class RNNLoop:
    """The time loop of one call: from input products `[T, B, H]`, states, recurrent weights to outputs and state."""

    def __init__(self, call: LayerCall) -> None:
        self._call, self._spec = call, cast(RNNSpec, call.spec.cell)
        rows, widths = call.x.shape[1], dict.fromkeys(("h", "output", "zone_h", "gate_h"), self._spec.units)
        self.columns = by_steps.columns(self._spec.units)
        self._around, self._masks = surroundings(call), mask_table(inner_masks(call), rows, widths, call.x)

    @functools.cached_property
    def schedules(self) -> tuple[Schedule | None, Schedule | None]:
        """Of the forward and the backward kernel; None where single steps run."""
        if only_by_steps(self._call.spec):
            return None, None
        x = self._call.x
        return schedules(self._spec, x.shape[1], x.dtype.itemsize, x.device)

    def forward(self, tensors: Tensors, *, save: bool, gates: bool = True) -> tuple[Tensors, Tensors]:
        """Outputs and h; and operands and values."""
        if self.schedules[0] is not None:
            launch, results, saved = self.forward_launch(tensors, save=save, gates=gates)
            launch.run()
            return results, saved
        made = self._forward_made(tensors[0], save=save, gates=gates, exchanged=False)
        h = by_steps.forward(tensors, made, {**self._step_arguments(tensors), "SAVE": save})
        return self._results(made, h), (made["hs"], made["gates"]) if save else ()

    def backward(self, tensors: Tensors, saved: Tensors, upstream: Tensors) -> Tensors:
        """Gradients of the loop's tensors."""
        if saved[1] is None:
            saved = (saved[0], by_steps.gates_again(tensors, saved[0], self._step_arguments(tensors)))
        if self.schedules[1] is not None:
            launch, made = self.backward_launch(tensors, saved, upstream)
            launch.run()
        else:
            made = self._backward_made(tensors)
            given = {**self._step_arguments(tensors), **self._backward_given(saved, upstream)}
            by_steps.backward(tensors, made, upstream, given)
        arguments = self._step_arguments(tensors)
        d_weight = recurrent_weight_gradient(saved[0], made["d_gates"].flatten(0, 1), self.columns, arguments)
        d_norms = over_rows(made.get("d_norms"), d_weight.dtype)
        return made["d_gates"], made["d_h0"], made["d_reset_h"], d_weight, d_norms

    def unfilled(self, products: torch.Tensor, *, save: bool) -> tuple[Tensors, Tensors]:
        """What `forward` gives for such input products, with undefined contents."""
        made, state = self._forward_made(products, save=save, gates=True, exchanged=False), self._call.state[0]
        return self._results(made, state.new_empty(state.shape)), (made["hs"], made["gates"]) if save else ()

    def forward_launch(self, tensors: Tensors, *, save: bool, gates: bool = True) -> tuple[Launch, Tensors, Tensors]:
        """The forward kernel's launch for the whole sequence, its results and what it leaves for backward."""
        x_gates, h0, fresh, weight, _ = tensors
        schedule, h = cast(Schedule, self.schedules[0]), torch.empty_like(h0)
        made = self._forward_made(x_gates, save=save, gates=gates, exchanged=True)
        arguments = {
            "x_gates": x_gates, "weight": weight, "h0": h0, "reset_h": fresh, "h_last": h, "SAVE": save, **made,
            **self._arguments(x_gates), **self._schedule_arguments(schedule, x_gates),
        }  # fmt: skip
        launch = Launch(_KERNELS, "rnn_fwd_persistent", schedule.grid, arguments)
        return launch, self._results(made, h), (made["hs"], made["gates"]) if save else ()

    def backward_launch(self, tensors: Tensors, saved: Tensors, upstream: Tensors) -> tuple[Launch, dict[str, Any]]:
        """The backward kernel's launch for the whole sequence, and what it makes."""
        schedule, made = cast(Schedule, self.schedules[1]), self._backward_made(tensors)
        arguments = {
            "weight": tensors[3], "d_h_last": upstream[1], **made, **self._backward_given(saved, upstream),
            **self._arguments(tensors[0]), **self._schedule_arguments(schedule, tensors[0]),
        }  # fmt: skip
        return Launch(_KERNELS, "rnn_bwd_exchange", schedule.grid, arguments), made

    def _forward_made(
        self, x_gates: torch.Tensor, *, save: bool, gates: bool, exchanged: bool
    ) -> dict[str, torch.Tensor | None]:
        """What forward fills; operands of all steps also where programs exchange them."""
        out = torch.empty_like(x_gates)
        return {
            "out": out, "hs": torch.empty_like(out) if save or exchanged else None,
            "gates": torch.empty_like(out) if save and gates else None,
            **states_as(("all_h",), (torch.empty_like(out),) if self._call.spec.all_states else ()),
        }  # fmt: skip

    def _results(self, made: dict[str, Any], h: torch.Tensor) -> Tensors:
        return (made["out"], h, *((made["all_h"],) if self._call.spec.all_states else ()))

    def _backward_made(self, tensors: Tensors) -> dict[str, Any]:
        x_gates, h0, fresh = tensors[:3]
        return {
            "d_gates": x_gates,  # each element is read, if it holds a value, before its gradient is stored
            "d_h0": torch.empty_like(h0),
            "d_reset_h": None if fresh is None else torch.zeros_like(fresh),
        }  # fmt: skip

    def _backward_given(self, saved: Tensors, upstream: Tensors) -> dict[str, Any]:
        return {"gates": saved[1], "d_out": upstream[0], **states_as(("d_all_h",), upstream[2:])}

    def _arguments(self, x_gates: torch.Tensor) -> dict[str, Any]:
        return call_arguments(self._call, self._around, self._masks, x_gates)

    def _step_arguments(self, tensors: Tensors) -> dict[str, Any]:
        x_gates, norms = tensors[0], tensors[4]
        return self._arguments(x_gates) | step_arguments(self._call.spec, norms, x_gates.dtype)

    def _schedule_arguments(self, schedule: Schedule, x_gates: torch.Tensor) -> dict[str, Any]:
        ((k1, k2),) = schedule.sides
        return loop_arguments(schedule, x_gates) | {"K1": k1, "K2": k2}

    def again(self, tensors: Tensors) -> Tensors:
        """Outputs and h by the reference, whose inputs are the products."""
        x_gates, h0, fresh, weight, norms = tensors
        cell = dataclasses.replace(self._spec, joined_kernel=False, use_bias=False, transposed=False)
        weights = {"kernel": same(x_gates), "recurrent_kernel": weight, **norm_weights(norms, _NORM_NAMES)}
        start = None if fresh is None else (fresh,)
        out, state, states = rnn_sequence(run_of_products(self._call, cell, x_gates, (h0,), weights, start))
        return out, *state, *states


OP = TritonOp("rnn", RNNLoop, _weights, rnn_layout)
define_triton_ops(OP)
TRITON = Backend("triton", _refuses, runner(OP), remarks=_remarks)
