"""The native backend's record: what it refuses, and how it runs a call."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch

from cellweave._errors import BackendError
from cellweave._types import dtype_name
from cellweave.ops.common._autocast import autocast_rounds, without_autocast
from cellweave.ops.common._by_length import by_length, together
from cellweave.ops.common._calls import LayerCall, LayerResult, aligned
from cellweave.ops.common._gate_masks import foldable, folded
from cellweave.ops.common._library import DTYPE_CODES, core, missing_reason
from cellweave.ops.common._native_autograd import NativeFunction
from cellweave.ops.common._native_call import NativeCall
from cellweave.ops.common._native_forward import native_forward
from cellweave.ops.common._native_frame import NativeOp, flatten, recurs_on_outputs
from cellweave.ops.common._native_halves import HALVES, HalfStep, in_dtype, in_float32
from cellweave.ops.common._native_layout import NativeLayout, gate_places
from cellweave.ops.common._native_ops import arguments_of, define_native_ops, run_operator
from cellweave.ops.common._native_step import NativeStep
from cellweave.ops.common._records import Backend, RunContext
from cellweave.ops.common._sequence import state_past_ends, without_padding
from cellweave.specs import CellSpec, GRUSpec, RunSpec


def native_backend(
    name: str, layout_of: Callable[[CellSpec], NativeLayout], reference: Callable[[LayerCall], LayerResult]
) -> Backend:
    """The native backend of a recurrence.

    Args:
        name: Such as "lstm". layout_of: Where a cell's weights and gates lie. reference: Runs a call step by step.
    """
    op = NativeOp(name, layout_of, reference)
    define_native_ops(op)

    def refuses(spec: RunSpec, context: RunContext) -> str | None:
        return _refuses(layout_of, spec, context)

    def run(call: LayerCall) -> LayerResult:
        return _run(op, call)

    def step(call: LayerCall) -> NativeStep | HalfStep:
        dtype = call.x.dtype
        return HalfStep(NativeStep(op, in_float32(call)), dtype) if dtype in HALVES else NativeStep(op, aligned(call))

    return Backend("native", refuses, run, step, _remarks)


def _remarks(spec: RunSpec, context: RunContext) -> str | None:
    """How a layer in half precision is computed."""
    if context.dtype not in HALVES:
        return None
    if context.dtype == torch.bfloat16 and core().has_bfloat16:
        return "products in bfloat16 on the processor's tiles, sums and states in float32"
    return "computed in float32"


def _refuses(layout_of: Callable[[CellSpec], NativeLayout], spec: RunSpec, context: RunContext) -> str | None:
    missing = missing_reason()
    if missing is not None:
        return missing
    if context.device_type != "cpu":
        return f"runs on the CPU, not on {context.device_type}"
    if context.dtype not in DTYPE_CODES and context.dtype not in HALVES:
        return f"computes in float64, float32, bfloat16 and float16, not in {dtype_name(context.dtype)}"
    if context.transforms:
        return "knows no torch.func transforms and no forward-mode gradients"
    if not context.plain:
        return "needs ordinary dense tensors"
    if context.I == 0:
        return "needs inputs with at least one column"  # empty ones have no address, which the core takes for gates
    return _refuses_cell(layout_of, spec, context)


def _refuses_cell(layout_of: Callable[[CellSpec], NativeLayout], spec: RunSpec, context: RunContext) -> str | None:
    cell = spec.cell
    if isinstance(cell, GRUSpec) and cell.joined_kernel and cell.reset_after:
        return "a reset after the product needs a recurrent kernel of its own"
    layout = layout_of(cell)
    for code, field in ((layout.activation, "activation"), (layout.gate_activation, "recurrent_activation")):
        if code < 0:
            kind = getattr(cell, field)
            return f"has no activation {kind}" if isinstance(kind, str) else f"{field} is a function of the caller's"
    if spec.residual and cell.output_size != context.I:
        return f"the residual sum needs inputs as wide as the outputs, {cell.output_size}, got {context.I}"
    return None


def _run(op: NativeOp, call: LayerCall) -> LayerResult:
    """Run a call; its gradients are the core's, its second derivatives the reference's."""
    if torch.is_autocast_enabled("cpu"):
        call = _in_dtype_of_weights(call)
    dtype = call.x.dtype
    if dtype in HALVES:
        return in_dtype(_run_in_own(op, in_float32(call, _packed_weights(op, call))), dtype)
    return _run_in_own(op, call)


def _packed_weights(op: NativeOp, call: LayerCall) -> tuple[str, ...]:
    """Names of the weights that stay packed between calls like this one."""
    if torch.compiler.is_compiling() or torch.is_grad_enabled() or foldable(call.spec):
        return ()
    layout = op.layout_of(call.spec.cell)
    names = tuple([layout.names[number] for number in layout.packed])
    # their addresses stand for them, which must be some of float32 numbers
    return names if all([call.weights[name].data_ptr() % 4 == 0 for name in names]) else ()  # noqa: C419


def _run_in_own(op: NativeOp, call: LayerCall) -> LayerResult:
    """Run a call of a dtype that the core has."""
    if torch.compiler.is_compiling():
        return native_result(call, *run_operator(op.name, arguments_of(op.name, call)))
    if foldable(call.spec):
        call = folded(call, gate_places(op.layout_of(call.spec.cell), call.x.shape[2]))
    try:
        return _run_grouped(op, call)
    except BackendError:  # nothing is computed then; addresses are too rarely odd to look at them before each call
        copied = aligned(call)
        if copied is call:
            raise
    return _run_grouped(op, copied)


def _run_grouped(op: NativeOp, call: LayerCall) -> LayerResult:
    """Run a call outside of graphs; rows of unequal lengths in groups."""
    groups = None if call.lengths is None else by_length(call)
    if groups is None:
        return native_result(call, *_run_eagerly(op, call))
    return together(call, groups, [native_result(part, *_run_eagerly(op, part)) for part in groups.calls])


def native_result(call: LayerCall, out: torch.Tensor, given: Sequence[torch.Tensor]) -> LayerResult:
    """What a call gives, from what its operator gives: outputs; the last state, behind it states after each step."""
    leaves = len(call.state)
    state, states = tuple(given[:leaves]), tuple(given[leaves:])
    if call.spec.all_states:
        states = _all_states(call, out, state, states)
    if call.spec.residual:
        out = without_padding(call.x, call.lengths) + out
    return LayerResult(out, state, states)


def _run_eagerly(op: NativeOp, call: LayerCall) -> tuple[torch.Tensor, Sequence[torch.Tensor]]:
    """Outputs; the last state, and behind it states after each step."""
    frame, sources, constants = flatten(op, call)
    if torch.is_grad_enabled() and any(source.requires_grad for source in sources):
        out, *given = NativeFunction.apply(frame, constants, *sources)  # type: ignore[no-untyped-call]
        return out, given
    with without_autocast():
        out, last, states, _ = native_forward(NativeCall(frame, [*sources, *constants]), save=False)
    return out, [*last, *states]


def _all_states(
    call: LayerCall, out: torch.Tensor, last: tuple[torch.Tensor, ...], states: tuple[torch.Tensor, ...]
) -> tuple[torch.Tensor, ...]:
    """The states after each step, from those that the core gives.

    A loop that reads backwards meets a row's padding first, and leaves there the state that the row starts from.
    """
    if recurs_on_outputs(call.spec, call.lengths, call.resets):
        return (*states, out)
    if not call.spec.reverse:
        return states
    return tuple([state_past_ends(every, leaf, call.lengths) for every, leaf in zip(states, last, strict=True)])


def _in_dtype_of_weights(call: LayerCall) -> LayerCall:
    """Under autocast inputs and states may come in another dtype than the weights, in which the layer runs.

    Products of float32 layers may be autocast's.
    """
    dtype = next(iter(call.weights.values())).dtype
    fresh = None if call.reset_state is None else tuple(leaf.to(dtype) for leaf in call.reset_state)
    state = tuple(leaf.to(dtype) for leaf in call.state)
    return dataclasses.replace(
        call, x=call.x.to(dtype), state=state, reset_state=fresh, bfloat16=autocast_rounds(dtype)
    )
