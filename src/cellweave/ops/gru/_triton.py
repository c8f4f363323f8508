"""The gated recurrent unit as Triton kernels on CUDA devices."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple, cast

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
from cellweave.ops.gru import _triton_steps as by_steps
from cellweave.ops.gru._native import gru_layout
from cellweave.ops.gru._reference import gru_sequence, gru_split_weights
from cellweave.specs import GRU_NORM_NAMES, GRUSpec, RunSpec

_KERNELS = "cellweave.ops.gru._triton_kernels"
#: In the order in which the kernels count them.
_NORM_NAMES = tuple(GRU_NORM_NAMES[part] for part in "ruch")


def schedules(
    spec: GRUSpec, rows: int, itemsize: int, device: torch.device | None = None
) -> tuple[Schedule | None, Schedule | None]:
    """Of the forward and the backward kernel; None where nothing fits the device."""
    H = spec.units
    forward = (Product(H, 2 * H, 2), Product(H, H, 1))
    backward = (Product(2 * H, H, 1), Product(H, H, 1))
    return (
        plan_programs(H, rows, forward, itemsize, chip(device), one_operand=spec.reset_after),
        plan_programs(H, rows, backward, itemsize, chip(device)),
    )


def _refuses(spec: RunSpec, context: RunContext) -> str | None:
    return triton_refuses(spec, context) or activation_refused(cast(GRUSpec, spec.cell))


def _remarks(spec: RunSpec, context: RunContext) -> str | None:
    cell = cast(GRUSpec, spec.cell)
    return steps_remark(schedules(cell, context.B, context.dtype.itemsize), spec, context)


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
    norms = stacked_norms(call.weights, _norm_names(spec), spec.units) if spec.layer_norm else None
    return [packed.from_x, packed.bias, packed.gates, packed.candidate, packed.from_h, norms]


def _norm_names(spec: GRUSpec) -> tuple[str, ...]:
    """As `spec.norms()`, which a trace cannot call."""
    return _NORM_NAMES if spec.reset_after else _NORM_NAMES[:3]


class GRULoop:
    """The time loop of one call: from input products `[T, B, 3H]`, states, recurrent weights to outputs and state."""

    def __init__(self, call: LayerCall) -> None:
        self._call, self._spec = call, cast(GRUSpec, call.spec.cell)
        rows, units = call.x.shape[1], self._spec.units
        widths = dict.fromkeys(("h", "output", "zone_h"), units) | {"gate_h": units * self._spec.gate_count}
        self.columns = by_steps.columns(units)
        self._around, self._masks = surroundings(call), mask_table(inner_masks(call), rows, widths, call.x)

    @functools.cached_property
    def schedules(self) -> tuple[Schedule | None, Schedule | None]:
        """Of the forward and the backward kernel; None where single steps run."""
        if only_by_steps(self._call.spec):
            return None, None
        x = self._call.x
        return schedules(self._spec, x.shape[1], x.dtype.itemsize, x.device)

    def forward(self, tensors: Tensors, *, save: bool, gates: bool = True) -> tuple[Tensors, Tensors]:
        """Outputs and h; and operands, gates and candidates."""
        if self.schedules[0] is not None:
            launch, results, saved = self.forward_launch(tensors, save=save, gates=gates)
            launch.run()
            return results, saved
        made = self._forward_made(tensors[0], save=save, gates=gates, exchanged=False)
        h = by_steps.forward(tensors, made, {**self._step_arguments(tensors), "SAVE": save})
        return self._results(made, h), self._saved(made) if save else ()

    def backward(self, tensors: Tensors, saved: Tensors, upstream: Tensors) -> Tensors:
        """Gradients of the loop's tensors."""
        hs, rhs, gates = saved[:3]
        if gates is None:
            saved = (hs, rhs, *by_steps.gates_again(tensors, hs, rhs, self._step_arguments(tensors)))
        if self.schedules[1] is not None:
            launch, made = self.backward_launch(tensors, saved, upstream)
            launch.run()
        else:
            made = self._backward_made(tensors)
            given = {**self._step_arguments(tensors), **self._backward_given(saved, upstream)}
            by_steps.backward(tensors, made, upstream, given)
        return self._gradients(tensors, saved, made)

    def unfilled(self, products: torch.Tensor, *, save: bool) -> tuple[Tensors, Tensors]:
        """What `forward` gives for such input products, with undefined contents."""
        made, state = self._forward_made(products, save=save, gates=True, exchanged=False), self._call.state[0]
        return self._results(made, state.new_empty(state.shape)), self._saved(made) if save else ()

    def forward_launch(self, tensors: Tensors, *, save: bool, gates: bool = True) -> tuple[Launch, Tensors, Tensors]:
        """The forward kernel's launch for the whole sequence, its results and what it leaves for backward."""
        x_gates, h0, fresh, gates_weight, candidate, bias, _ = tensors
        schedule, h = cast(Schedule, self.schedules[0]), torch.empty_like(h0)
        made = self._forward_made(x_gates, save=save, gates=gates, exchanged=True)
        k1, k2 = schedule.sides[1]
        arguments = {
            "x_gates": x_gates, "weight": gates_weight, "candidate": candidate, "bias": bias, "h0": h0,
            "reset_h": fresh, "h_last": h, "SAVE": save, "BIAS": bias is not None, **made,
            **self._arguments(x_gates), **loop_arguments(schedule, x_gates), "K1": k1, "K2": k2,
        }  # fmt: skip
        launch = Launch(_KERNELS, "gru_fwd_persistent", schedule.grid, arguments)
        return launch, self._results(made, h), self._saved(made) if save else ()

    def backward_launch(self, tensors: Tensors, saved: Tensors, upstream: Tensors) -> tuple[Launch, dict[str, Any]]:
        """The backward kernel's launch for the whole sequence, and what it makes."""
        schedule, made = cast(Schedule, self.schedules[1]), self._backward_made(tensors)
        (m1, m2), (k1, k2) = schedule.sides
        arguments = {
            "weight": tensors[3], "candidate": tensors[4], "d_h_last": upstream[1], **made,
            **self._backward_given(saved, upstream), **self._arguments(tensors[0]),
            **loop_arguments(schedule, tensors[0]), "K1": k1, "K2": k2, "M1": m1, "M2": m2,
        }  # fmt: skip
        return Launch(_KERNELS, "gru_bwd_exchange", schedule.grid, arguments), made

    def _forward_made(
        self, x_gates: torch.Tensor, *, save: bool, gates: bool, exchanged: bool
    ) -> dict[str, torch.Tensor | None]:
        """What forward fills; operands of all steps also where programs exchange them."""
        (T, B), H, after = x_gates.shape[:2], self._spec.units, self._spec.reset_after
        out, kept, gates = x_gates.new_empty(T, B, H), save or exchanged, save and gates
        return {
            "out": out, "hs": torch.empty_like(out) if kept else None,
            "rhs": torch.empty_like(out) if kept and not after else None,
            "gates": x_gates.new_empty(T, B, 2 * H) if gates else None,
            "values": torch.empty_like(out) if gates else None,
            "from_h": torch.empty_like(out) if gates and after else None,
            **states_as(("all_h",), (torch.empty_like(out),) if self._call.spec.all_states else ()),
        }  # fmt: skip

    def _results(self, made: dict[str, Any], h: torch.Tensor) -> Tensors:
        return (made["out"], h, *((made["all_h"],) if self._call.spec.all_states else ()))

    def _saved(self, made: dict[str, Any]) -> Tensors:
        return tuple(made[name] for name in ("hs", "rhs", "gates", "values", "from_h"))

    def _backward_made(self, tensors: Tensors) -> dict[str, Any]:
        x_gates, h0, fresh = tensors[:3]
        return {
            "d_gates": x_gates, "d_h0": torch.empty_like(h0),
            "d_reset_h": None if fresh is None else torch.zeros_like(fresh),
            "d_from_h": x_gates.new_empty(*x_gates.shape[:2], h0.shape[1]) if self._spec.reset_after else None,
        }  # fmt: skip

    def _backward_given(self, saved: Tensors, upstream: Tensors) -> dict[str, Any]:
        hs, _, gates, values, from_h = saved
        states = states_as(("d_all_h",), upstream[2:])
        return {"hs": hs, "gates": gates, "values": values, "from_h": from_h, "d_out": upstream[0], **states}

    def _arguments(self, x_gates: torch.Tensor) -> dict[str, Any]:
        return call_arguments(self._call, self._around, self._masks, x_gates) | {
            "AFTER": self._spec.reset_after,
            "GATE_ACTIVATION": ACTIVATIONS[cast(str, self._spec.recurrent_activation)],
        }

    def _step_arguments(self, tensors: Tensors) -> dict[str, Any]:
        x_gates, norms = tensors[0], tensors[6]
        return self._arguments(x_gates) | step_arguments(self._call.spec, norms, x_gates.dtype)

    def _gradients(self, tensors: Tensors, saved: Tensors, made: dict[str, Any]) -> Tensors:
        hs, rhs, H, given = saved[0], saved[1], self._spec.units, self._step_arguments(tensors)
        d_gates, d_from_h = made["d_gates"].flatten(0, 1), made["d_from_h"]
        d_weight = recurrent_weight_gradient(hs, d_gates[:, H:], by_steps.gate_columns(H), given)
        operand, d_value = (hs, d_from_h.flatten(0, 1)) if rhs is None else (rhs, d_gates[:, :H])
        d_candidate = recurrent_weight_gradient(operand, d_value, by_steps.candidate_columns(H), given)
        d_bias = None if tensors[5] is None else d_from_h.sum((0, 1))
        d_norms = over_rows(made.get("d_norms"), d_gates.dtype)
        return made["d_gates"], made["d_h0"], made["d_reset_h"], d_weight, d_candidate, d_bias, d_norms

    def again(self, tensors: Tensors) -> Tensors:
        """Outputs and h by the reference, whose inputs are the products."""
        x_gates, h0, fresh, gates_weight, candidate, bias, norms = tensors
        H = self._spec.units

        def unpacked(gates: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
            r, u = gates.view(*gates.shape[:-1], H, 2).unbind(-1)
            return torch.cat([r, u, last], dim=-1)

        products = unpacked(x_gates[..., H:].contiguous(), x_gates[..., :H])
        weights = {
            "kernel": same(products), "recurrent_kernel": unpacked(gates_weight, candidate),
            **norm_weights(norms, _norm_names(self._spec)),
        }  # fmt: skip
        if bias is not None:
            none = products.new_zeros(3 * H)
            weights["bias"] = torch.stack([none, torch.cat([none[: 2 * H], bias])])
        cell = dataclasses.replace(
            self._spec, gate_order="ruc", joined_kernel=False, use_bias=bias is not None, transposed=False
        )
        start = None if fresh is None else (fresh,)
        out, state, states = gru_sequence(run_of_products(self._call, cell, products, (h0,), weights, start))
        return out, *state, *states


OP = TritonOp("gru", GRULoop, _weights, gru_layout)
define_triton_ops(OP)
TRITON = Backend("triton", _refuses, runner(OP), remarks=_remarks)
