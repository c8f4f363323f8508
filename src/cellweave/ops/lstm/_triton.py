"""The LSTM as Triton kernels on CUDA devices."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, cast

import torch

from cellweave.ops.common._calls import LayerCall
from cellweave.ops.common._records import Backend, RunContext
from cellweave.ops.common._triton_autograd import Tensors
from cellweave.ops.common._triton_backend import (
    ACTIVATIONS,
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
from cellweave.ops.lstm import _triton_steps as by_steps
from cellweave.ops.lstm._native import lstm_layout
from cellweave.ops.lstm._reference import lstm_sequence
from cellweave.specs import NORM_NAMES, LSTMSpec, RunSpec

_KERNELS = "cellweave.ops.lstm._triton_kernels"
#: The kernels' order of gates.
_ORDER = "ijfo"


def schedules(
    spec: LSTMSpec, rows: int, itemsize: int, device: torch.device | None = None
) -> tuple[Schedule | None, Schedule | None]:
    """Of the forward and the backward kernel; None where nothing fits the device."""
    H, P = spec.units, spec.output_size
    forward = [Product(P, 4 * H, 4)]
    backward = [Product(4 * H, P, 0 if spec.projection else 1)]
    if spec.projection is not None:
        forward.append(Product(H, P, 0))
        backward.append(Product(P, H, 1))
    return (
        plan_programs(H, rows, tuple(forward), itemsize, chip(device)),
        plan_programs(H, rows, tuple(backward), itemsize, chip(device)),
    )


def _refuses(spec: RunSpec, context: RunContext) -> str | None:
    return triton_refuses(spec, context) or activation_refused(cast(LSTMSpec, spec.cell))


def _remarks(spec: RunSpec, context: RunContext) -> str | None:
    cell = cast(LSTMSpec, spec.cell)
    return steps_remark(schedules(cell, context.B, context.dtype.itemsize), spec, context)


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


class LSTMLoop:
    """The time loop of one call: from input products `[T, B, 4H]`, states, recurrent weights to outputs and state."""

    def __init__(self, call: LayerCall) -> None:
        self._call, self._spec = call, cast(LSTMSpec, call.spec.cell)
        H, P = self._spec.units, self._spec.output_size
        widths = {"h": P, "c": H, "output": P, "zone_h": P, "zone_c": H, "gate_h": P * self._spec.gate_count}
        self.columns = by_steps.columns(self._spec)
        self._around = surroundings(call)
        self._masks = mask_table(inner_masks(call), call.x.shape[1], widths, call.x)

    @functools.cached_property
    def schedules(self) -> tuple[Schedule | None, Schedule | None]:
        """Of the forward and the backward kernel; None where single steps run."""
        if only_by_steps(self._call.spec):
            return None, None
        x = self._call.x
        return schedules(self._spec, x.shape[1], x.dtype.itemsize, x.device)

    def forward(self, tensors: Tensors, *, save: bool, gates: bool = True) -> tuple[Tensors, Tensors]:
        """Outputs, c and h; and gates, operands, cells and projections."""
        if self.schedules[0] is not None:
            launch, results, saved = self.forward_launch(tensors, save=save, gates=gates)
            launch.run()
            return results, saved
        x_gates = tensors[0]
        made = self._forward_made(x_gates, save=save, gates=gates, exchanged=False)
        given = {**self._step_arguments(tensors), "SAVE": save}
        c, h = by_steps.forward(self._spec, tensors, made, given)
        return self._results(made, c, h), self._saved(made) if save else ()

    def backward(self, tensors: Tensors, saved: Tensors, upstream: Tensors) -> Tensors:
        """Gradients of the loop's tensors."""
        hs, cs, gates, *rest = saved
        if gates is None:
            given = {**self._step_arguments(tensors), "cs": cs}
            saved = (hs, cs, by_steps.gates_again(self._spec, tensors, hs, given), *rest)
        if self.schedules[1] is not None:
            launch, made = self.backward_launch(tensors, saved, upstream)
            launch.run()
        else:
            made = self._backward_made(tensors)
            given = {**self._step_arguments(tensors), **self._backward_given(saved, upstream)}
            by_steps.backward(self._spec, tensors, made, upstream, given)
        return self._gradients(tensors, saved, made)

    def unfilled(self, products: torch.Tensor, *, save: bool) -> tuple[Tensors, Tensors]:
        """What `forward` gives for such input products, with undefined contents."""
        made = self._forward_made(products, save=save, gates=True, exchanged=False)
        c, h = (leaf.new_empty(leaf.shape) for leaf in self._call.state)  # dense, as kernels leave them
        return self._results(made, c, h), self._saved(made) if save else ()

    def forward_launch(self, tensors: Tensors, *, save: bool, gates: bool = True) -> tuple[Launch, Tensors, Tensors]:
        """The forward kernel's launch for the whole sequence, its results and what it leaves for backward."""
        x_gates, c0, h0, fresh_c, fresh_h, weight, peephole, projection, _ = tensors
        schedule = cast(Schedule, self.schedules[0])
        made = self._forward_made(x_gates, save=save, gates=gates, exchanged=True)
        c, h = torch.empty_like(c0), torch.empty_like(h0)
        arguments = {
            "x_gates": x_gates, "weight": weight, "h0": h0, "c0": c0, "reset_h": fresh_h, "reset_c": fresh_c,
            "peephole": peephole, "projection": projection, "h_last": h, "c_last": c,
            "forget_bias": float(self._spec.forget_bias), "SAVE": save, **made,
            **self._arguments(x_gates), **self._schedule_arguments(schedule, x_gates),
        }  # fmt: skip
        launch = Launch(_KERNELS, "lstm_fwd_persistent", schedule.grid, arguments)
        return launch, self._results(made, c, h), self._saved(made) if save else ()

    def backward_launch(
        self, tensors: Tensors, saved: Tensors, upstream: Tensors
    ) -> tuple[Launch, dict[str, torch.Tensor | None]]:
        """The backward kernel's launch for the whole sequence, and what it makes."""
        schedule, made = cast(Schedule, self.schedules[1]), self._backward_made(tensors)
        arguments = {
            "weight": tensors[5], "peephole": tensors[6], "projection": tensors[7], "d_c_last": upstream[1],
            "d_h_last": upstream[2], **self._backward_given(saved, upstream), **made,
            **self._arguments(tensors[0]), **self._schedule_arguments(schedule, tensors[0]),
        }  # fmt: skip
        return Launch(_KERNELS, "lstm_bwd_exchange", schedule.grid, arguments), made

    def _forward_made(
        self, x_gates: torch.Tensor, *, save: bool, gates: bool, exchanged: bool
    ) -> dict[str, torch.Tensor | None]:
        """What forward fills; operands of all steps also where programs exchange them."""
        spec, (T, B) = self._spec, x_gates.shape[:2]
        H, P, kept = spec.units, spec.output_size, save or exchanged
        states = (x_gates.new_empty(T, B, H), x_gates.new_empty(T, B, P)) if self._call.spec.all_states else ()
        return {
            "out": x_gates.new_empty(T, B, P), "hs": x_gates.new_empty(T, B, P) if kept else None,
            "cs": x_gates.new_empty((T, B, H), dtype=torch.float32) if save else None,
            "gates": torch.empty_like(x_gates) if save and gates else None,
            "ms": x_gates.new_empty(T, B, H) if kept and spec.projection is not None else None,
            "raw": x_gates.new_empty(T, B, P) if save and self._clips_projection else None,
            **states_as(("all_c", "all_h"), states),
        }  # fmt: skip

    def _results(self, made: dict[str, Any], c: torch.Tensor, h: torch.Tensor) -> Tensors:
        return (made["out"], c, h, *((made["all_c"], made["all_h"]) if self._call.spec.all_states else ()))

    def _saved(self, made: dict[str, Any]) -> Tensors:
        return tuple(made[name] for name in ("hs", "cs", "gates", "ms", "raw"))

    def _backward_made(self, tensors: Tensors) -> dict[str, torch.Tensor | None]:
        x_gates, c0, h0, fresh_c, fresh_h = tensors[:5]
        spec, (T, B) = self._spec, x_gates.shape[:2]
        return {
            "d_gates": x_gates,  # each element is read, if it holds a gate, before its gradient is stored
            "d_projected": x_gates.new_empty(T, B, spec.output_size) if spec.projection is not None else None,
            "d_h0": torch.empty_like(h0), "d_c0": torch.empty_like(c0),
            "d_reset_h": None if fresh_h is None else torch.zeros_like(fresh_h),
            "d_reset_c": None if fresh_c is None else torch.zeros_like(fresh_c),
            "d_peephole": x_gates.new_empty((3, *c0.shape), dtype=torch.float32) if spec.peepholes else None,
        }  # fmt: skip

    def _backward_given(self, saved: Tensors, upstream: Tensors) -> dict[str, Any]:
        _, cs, gates, _, raw = saved
        states = states_as(("d_all_c", "d_all_h"), upstream[3:])
        return {"cs": cs, "gates": gates, "raw": raw, "d_out": upstream[0], **states}

    def _arguments(self, x_gates: torch.Tensor) -> dict[str, Any]:
        spec = self._spec
        clip = 0 if spec.cell_clip is None else 2 if spec.clip_passes_gradient else 1
        return {
            **call_arguments(self._call, self._around, self._masks, x_gates), "P": spec.output_size,
            "cell_clip": float(spec.cell_clip or 0.0), "proj_clip": float(spec.proj_clip or 0.0),
            "GATE_ACTIVATION": ACTIVATIONS[cast(str, spec.recurrent_activation)],
            "COUPLED": spec.coupled, "PEEPHOLES": spec.peepholes, "CLIP": clip,
            "PROJECTION": spec.projection is not None, "PROJ_CLIP": self._clips_projection,
            "ZONE_C": self._masks.has("zone_c"),
        }  # fmt: skip

    def _step_arguments(self, tensors: Tensors) -> dict[str, Any]:
        x_gates, norms = tensors[0], tensors[8]
        own = {"forget_bias": float(self._spec.forget_bias)}
        return self._arguments(x_gates) | own | step_arguments(self._call.spec, norms, x_gates.dtype)

    def _schedule_arguments(self, schedule: Schedule, x_gates: torch.Tensor) -> dict[str, Any]:
        (k1, k2), (m1, m2), spec = schedule.sides[0], schedule.sides[-1], self._spec
        share = schedule.units if spec.projection is None else schedule.share(spec.output_size)
        return loop_arguments(schedule, x_gates) | {"V": share, "K1": k1, "K2": k2, "M1": m1, "M2": m2}

    @property
    def _clips_projection(self) -> bool:
        return self._spec.projection is not None and self._spec.proj_clip is not None

    def _gradients(self, tensors: Tensors, saved: Tensors, made: dict[str, torch.Tensor | None]) -> Tensors:
        hs, _, _, ms, _ = saved
        d_gates = cast(torch.Tensor, made["d_gates"])
        d_weight = recurrent_weight_gradient(hs, d_gates.flatten(0, 1), self.columns, self._step_arguments(tensors))
        d_projection, dtype = None, d_gates.dtype
        if made["d_projected"] is not None:
            d_projection = ms.flatten(0, 1).t() @ made["d_projected"].flatten(0, 1)
        return (
            d_gates, made["d_c0"], made["d_h0"], made["d_reset_c"], made["d_reset_h"], d_weight,
            over_rows(made["d_peephole"], dtype), d_projection, over_rows(made.get("d_norms"), dtype),
        )  # fmt: skip

    def again(self, tensors: Tensors) -> Tensors:
        """Outputs, c and h by the reference, whose inputs are the products."""
        x_gates, c0, h0, fresh_c, fresh_h, weight, peephole, projection, norms = tensors
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
        fresh = None if fresh_c is None else (fresh_c, fresh_h)
        out, state, states = lstm_sequence(run_of_products(self._call, cell, products, (c0, h0), weights, fresh))
        return out, *state, *states


OP = TritonOp("lstm", LSTMLoop, _weights, lstm_layout)
define_triton_ops(OP)
TRITON = Backend("triton", _refuses, runner(OP), remarks=_remarks)
