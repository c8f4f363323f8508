"""Gradients of a layer on the native core: the core's own, and differentiable ones by the reference."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from cellweave._errors import OrderError
from cellweave.ops.common._autocast import without_autocast
from cellweave.ops.common._native_backward import native_backward
from cellweave.ops.common._native_call import NativeCall
from cellweave.ops.common._native_forward import Saved, native_forward
from cellweave.ops.common._native_frame import Frame, MaybeTensors, recurs_on_outputs

#: The fields of `Saved` follow the call's own tensors.
SAVED = len(Saved._fields)


class NativeFunction(torch.autograd.Function):
    """A layer on the native core, as eager autograd runs it."""

    @staticmethod
    def forward(ctx: Any, frame: Frame, constants: MaybeTensors, *sources: torch.Tensor) -> Any:
        """Outputs, the leaves of the last state, and states after each step as the core gives them."""
        with without_autocast():
            out, last, states, saved = native_forward(NativeCall(frame, [*sources, *constants]), save=True)
        ctx.frame, ctx.unspent = frame, {"gates": True}
        ctx.save_for_backward(*sources, *constants, *saved)
        ctx.set_materialize_grads(False)
        return (out, *last, *states)

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor | None) -> Any:
        """Gradients of the sources that need one."""
        frame: Frame = ctx.frame
        keep = graph_is_kept()
        # A pass that does not keep the graph overwrites the gates, also if it fails behind this node. After such a one
        # saved tensors are not even looked at: perhaps torch frees them in another thread, halfway through its list,
        # where this one could come in because freeing a buffer of the pool runs Python.
        if not (ctx.unspent.get("gates") if keep else ctx.unspent.pop("gates", False)):
            raise OrderError(
                "native: expected one backward pass through a layer whose graph is not kept, got another: backward "
                "through the graph a second time. Run the forward pass again, or give retain_graph=True to the first."
            )
        tensors, needed = ctx.saved_tensors, ctx.needs_input_grad[2:]
        with without_autocast():
            if torch.is_grad_enabled() or _is_transformed(upstream):
                return (None, None, *differentiable_gradients(frame, tensors, upstream, needed))
            call, saved = NativeCall(frame, tensors[:-SAVED]), Saved(*tensors[-SAVED:])
            return (None, None, *native_backward(call, saved, upstream, needed, keep=keep))


def differentiable_gradients(
    frame: Frame, tensors: MaybeTensors, upstream: MaybeTensors, needed: Sequence[bool]
) -> list[torch.Tensor | None]:
    """The same gradients from the reference, run again so that they can be differentiated to any order.

    Args:
        frame, tensors: The call, and after its tensors those that the forward pass saved.
        upstream: Gradients of outputs, last state and states after each step as the core gives them; None: zeros.
        needed: Of each source.
    """
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        sources = list(tensors[: frame.sources])
        for number, asked in enumerate(needed):
            source = sources[number]
            if asked and source is not None:
                sources[number] = source.view_as(source)  # else a weight made from x would bring x's gradient twice
        call = frame.call([*sources, *tensors[frame.sources : -SAVED]])
        if call.spec.residual:
            call = dataclasses.replace(call, spec=dataclasses.replace(call.spec, residual=False))
        out, state, states = frame.op.reference(call)
        if recurs_on_outputs(call.spec, call.lengths, call.resets):
            states = states[:-1]
        values = (out, *state, *states)
        pairs = [(value, d) for value, d in zip(values, upstream, strict=True) if d is not None]
        asked_for = [source for source, asked in zip(sources, needed, strict=True) if asked and source is not None]
        grads = torch.autograd.grad(
            [value for value, _ in pairs], asked_for, [d for _, d in pairs],
            create_graph=create_graph, allow_unused=True,
        )  # fmt: skip
    found = iter(grads)
    return [next(found) if asked else None for asked in needed]


def _is_transformed(upstream: MaybeTensors) -> bool:
    """A gradient that a transform made, such as a batch of gradients, has no memory of its own."""
    return not all(d is None or torch._C._has_storage(d) for d in upstream)


def graph_is_kept() -> bool:
    """Backward may run again: `retain_graph=True`. True also where torch does not tell."""
    tell = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
    return True if tell is None else bool(tell())
