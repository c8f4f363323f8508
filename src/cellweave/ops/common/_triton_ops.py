"""The Triton loops as operators of `torch.library`, which compilers see as a whole.

What stands around a loop and needs no random numbers (its weights in the kernels' order) is left to the compiler.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from cellweave.ops.common._autocast import without_autocast
from cellweave.ops.common._calls import LayerCall, LayerResult
from cellweave.ops.common._gate_masks import foldable, folded
from cellweave.ops.common._native_layout import NativeLayout, gate_places
from cellweave.ops.common._op_arguments import flat_tensors, masks_of_streams, nested_tensors
from cellweave.ops.common._records import Backend, RunContext
from cellweave.ops.common._run_text import RunText, run_from_text
from cellweave.ops.common._sequence import without_padding
from cellweave.ops.common._triton_autograd import (
    Tensors,
    dense_tensors,
    loop_gradients,
    run_loop,
    with_products,
)
from cellweave.ops.common._triton_backend import inputs_gradient, steps_remark, triton_refuses, used_inputs
from cellweave.ops.common._triton_loop import KernelLoop, Schedules
from cellweave.specs import CellSpec, RunSpec

_LIBRARY: Any = torch.library.Library("cellweave", "FRAGMENT")  # type: ignore[no-untyped-call]
#: A call's tensors by role: `weights` are the loop's own that there are, `slots` 1 for each of them and 0 for one that
#: there is not; masks as `masks_of_streams` takes them.
_CALL = (
    "Tensor x, Tensor from_x, Tensor? bias, Tensor[] state, Tensor[]? fresh, Tensor[] weights, Tensor? lengths, "
    "Tensor? resets, Tensor? streams, Tensor? keeps, Tensor[]? noise, str run, int[] whole, float[] real, int[] slots"
)
#: Arguments in _CALL, how many of them are tensors or lists of tensors, and how many of those gradients flow to.
_ROLES, _TENSORS, _SOURCES = 15, 11, 6

Arguments = Sequence[Any]


@dataclass(frozen=True)
class TritonOp:
    """A recurrence in Triton.

    Attributes:
        name: "rnn", "gru" or "lstm".
        loop: The time loop of a call.
        weights: Of a call, in the kernels' order: those of its inputs and their bias, then the loop's own.
        layout: Where the weights of a cell lie.
    """

    name: str
    loop: Callable[[LayerCall], KernelLoop]
    weights: Callable[[LayerCall], list[torch.Tensor | None]]
    layout: Callable[[CellSpec], NativeLayout]

    def loop_of(self, call: LayerCall) -> tuple[KernelLoop, list[torch.Tensor | None]]:
        """The time loop of a call and what `run_loop` takes; there must be steps and rows."""
        if foldable(call.spec):
            call = folded(call, gate_places(self.layout(call.spec.cell), call.x.shape[2]))
        from_x, bias, *weights = self.weights(call)
        fresh = call.reset_state or [None] * len(call.state)
        return self.loop(call), [used_inputs(call), from_x, bias, *call.state, *fresh, *weights]


def triton_backend(op: TritonOp, schedules: Schedules) -> Backend:
    """The Triton backend of a recurrence, whose operators are registered here."""
    _define_ops(op)

    def remarks(spec: RunSpec, context: RunContext) -> str | None:
        return steps_remark(schedules(spec.cell, context.B, context.dtype.itemsize, None), spec, context)

    def run(call: LayerCall) -> LayerResult:
        steps, rows = call.x.shape[:2]
        if steps == 0 or rows == 0:
            out, rest = call.x.new_zeros(steps, rows, call.spec.cell.output_size), list(call.state)
            if call.spec.all_states:
                rest += [leaf.new_zeros(steps, *leaf.shape) for leaf in call.state]
        else:
            loop, tensors = op.loop_of(call)
            out, *rest = run_loop(loop, tensors)
        return _result(call, [out, *rest])

    return Backend("triton", triton_refuses, run, remarks=remarks)


def _result(call: LayerCall, results: Tensors) -> LayerResult:
    """What a call gives, from what its loop gives."""
    out, last = results[0], 1 + len(call.state)
    if call.spec.residual:
        out = without_padding(call.x, call.lengths) + out
    return LayerResult(out, tuple(results[1:last]), tuple(results[last:]))


_ops: dict[str, TritonOp] = {}


def _define_ops(op: TritonOp) -> None:
    """Register `cellweave::<name>_triton_forward` and `cellweave::<name>_triton_backward`."""
    tags = (torch.Tag.pt2_compliant_tag,)
    forward, backward = f"{op.name}_triton_forward", f"{op.name}_triton_backward"
    _LIBRARY.define(f"{forward}({_CALL}, bool save) -> (Tensor[] results, Tensor[] saved)", tags=tags)
    _LIBRARY.define(f"{backward}({_CALL}, Tensor[] saved, Tensor?[] upstream, bool[] needed) -> Tensor[]", tags=tags)
    for device in ("CPU", "CUDA"):  # on the CPU Triton's interpreter runs them
        _LIBRARY.impl(forward, lambda *call: _uncast(_forward, op, call), device)
        _LIBRARY.impl(backward, lambda *call: _uncast(_backward, op, call), device)
    torch.library.register_fake(f"cellweave::{forward}", lambda *call: _forward_shapes(op, *call), lib=_LIBRARY)
    torch.library.register_fake(f"cellweave::{backward}", lambda *call: _backward_shapes(*call), lib=_LIBRARY)
    torch.library.register_autograd(
        f"cellweave::{forward}",
        lambda ctx, *grads: _backward_of(op, ctx, *grads),
        setup_context=lambda ctx, inputs, output: _setup(ctx, inputs, output),
        lib=_LIBRARY,
    )
    _ops[op.name] = op


def run_triton_in_graph(
    name: str,
    call: LayerCall,
    text: RunText,
    streams: torch.Tensor | None,
    keeps: torch.Tensor | None,
    noise: list[torch.Tensor] | None,
) -> LayerResult:
    """Run a call by its operator.

    Args:
        name: "rnn", "gru" or "lstm". call: Without masks. text: Its spec. streams, keeps, noise: Its masks.
    """
    from_x, bias, *weights = _ops[name].weights(call)
    fresh = [] if call.reset_state is None else list(call.reset_state)
    own = [weight for weight in weights if weight is not None]
    given = [call.x, from_x, *([] if bias is None else [bias]), *call.state, *fresh, *own]
    save = torch.is_grad_enabled() and any([tensor.requires_grad for tensor in given])  # type: ignore[union-attr]  # noqa: C419
    results, _ = getattr(torch.ops.cellweave, f"{name}_triton_forward")(
        call.x, from_x, bias, list(call.state), fresh if len(fresh) > 0 else None, own, call.lengths, call.resets,
        streams, keeps, noise, text.text, text.whole, text.real, [int(w is not None) for w in weights], save,
    )  # fmt: skip
    return _result(call, results)


def _unpack(arguments: Arguments, *, masks: bool = True) -> tuple[LayerCall, list[torch.Tensor | None]]:
    """The call, without weights; and what a loop takes behind its inputs."""
    x, from_x, bias, state, fresh, weights, lengths, resets, streams, keeps, noise, *text, slots = arguments
    spec, given = run_from_text(*text), iter(weights)
    bound = tuple(masks_of_streams(spec, streams, keeps, noise)) if masks else ()
    call = LayerCall(spec, x, tuple(state), {}, bound, lengths, resets, tuple(fresh) if fresh else None)
    own = [next(given) if there else None for there in slots]
    return call, [from_x, bias, *state, *(fresh or [None] * len(state)), *own]


def _uncast(implementation: Callable[..., Any], op: TritonOp, arguments: Arguments) -> Any:
    with without_autocast(arguments[0].device.type):
        return implementation(op, *arguments)


def _forward(op: TritonOp, *arguments: Any) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    save: bool = arguments[_ROLES]
    call, rest = _unpack(arguments[:_ROLES])
    loop = op.loop(call)
    products = with_products(loop, dense_tensors([used_inputs(call), *rest]))
    if call.x.shape[0] and call.x.shape[1]:
        results, saved = loop.forward(products, save=save)
    else:
        (out, *last), saved = loop.unfilled(products[0], save=save)
        results = [out, *[_dense_copy(leaf) for leaf in call.state], *last[len(call.state) :]]
    return list(results), [tensor for tensor in saved if tensor is not None]


def _forward_shapes(op: TritonOp, *arguments: Any) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    call, (from_x, *_) = _unpack(arguments[:_ROLES], masks=False)
    products = call.x.new_empty(*call.x.shape[:2], from_x.shape[1])  # type: ignore[union-attr]
    results, saved = op.loop(call).unfilled(products, save=arguments[_ROLES])
    return list(results), [tensor for tensor in saved if tensor is not None]


def _setup(ctx: Any, inputs: Arguments, output: Any) -> None:
    flat, ctx.sizes = flat_tensors(inputs[:_TENSORS])
    ctx.count, ctx.rest = len(flat), inputs[_TENSORS:_ROLES]
    ctx.save_for_backward(*flat, *output[1])
    ctx.set_materialize_grads(False)


def _backward_of(op: TritonOp, ctx: Any, upstream: list[Any], _: list[Any]) -> tuple[Any, ...]:
    """Autograd's backward: one gradient for each argument, lists for lists."""
    kept = list(ctx.saved_tensors)
    tensors = nested_tensors(kept, ctx.sizes)
    asked = flat_tensors(ctx.needs_input_grad[:_SOURCES])[0]
    there = flat_tensors(tensors[:_SOURCES])[0]
    needed = [bool(asks) and tensor is not None for asks, tensor in zip(asked, there, strict=True)]
    backward = getattr(torch.ops.cellweave, f"{op.name}_triton_backward")
    given = iter(backward(*tensors, *ctx.rest, kept[ctx.count :], upstream, needed))
    found = nested_tensors([next(given) if asks else None for asks in needed], ctx.sizes[:_SOURCES])
    noise = None if tensors[_TENSORS - 1] is None else [None] * len(tensors[_TENSORS - 1])
    # An empty list of numbers counts as one of tensors.
    numbers: list[Any] = [[] if value == [] else None for value in ctx.rest]
    return (*found, None, None, None, None, noise, *numbers, None)


def _backward(op: TritonOp, *arguments: Any) -> list[torch.Tensor]:
    saved, upstream, needed = arguments[_ROLES:]
    call, rest = _unpack(arguments[:_ROLES])
    if not (call.x.shape[0] and call.x.shape[1]):
        return _without_steps(arguments, upstream, needed)
    loop, tensors = op.loop(call), dense_tensors([used_inputs(call), *rest])
    results, kept = loop.unfilled(call.x.new_empty(*call.x.shape[:2], tensors[1].shape[1], device="meta"), save=True)
    given = iter(saved)
    whole = [None if tensor is None else next(given) for tensor in kept]
    dense = [
        torch.zeros(like.shape, dtype=like.dtype, device=call.x.device) if d is None else d.contiguous()
        for d, like in zip(upstream, results, strict=True)
    ]
    d_used, *found = loop_gradients(loop, tensors, whole, dense, _asked(arguments, needed))
    d_x = None if d_used is None else inputs_gradient(call, d_used)
    return [d for d in (d_x, *found) if d is not None]


def _asked(arguments: Arguments, needed: Sequence[bool]) -> list[bool]:
    """Whether a gradient is needed of each tensor that a loop takes, those left out that there are not."""
    first = flat_tensors(arguments[:4])[0]
    fresh, slots, flags = arguments[4], arguments[_ROLES - 1], iter(needed)
    asked = [next(flags) for _ in first]
    of_fresh = [next(flags) for _ in fresh or (None,)]  # in the place of none stands a None
    own = [bool(there) and next(flags) for there in slots]
    return [*asked, *(of_fresh if fresh else [False] * len(arguments[3])), *own]


def _without_steps(arguments: Arguments, upstream: Tensors, needed: Sequence[bool]) -> list[torch.Tensor]:
    """Gradients where the state stays what it was."""
    sources, first = flat_tensors(arguments[:_SOURCES])[0], 3
    found = [None if source is None else source.new_zeros(source.shape) for source in sources]
    for number, d in enumerate(upstream[1 : 1 + len(arguments[3])], start=first):
        found[number] = found[number] if d is None else _dense_copy(d)
    return [d for d, asks in zip(found, needed, strict=True) if asks and d is not None]


def _dense_copy(tensor: torch.Tensor) -> torch.Tensor:
    """Laid out as the operators' fake kernels say, however the tensor is."""
    return tensor.clone(memory_format=torch.contiguous_format)


def _backward_shapes(*arguments: Any) -> list[torch.Tensor]:
    sources = flat_tensors(arguments[:_SOURCES])[0]
    return [
        t.new_empty(tuple(t.shape)) for t, asked in zip(sources, arguments[-1], strict=True) if asked and t is not None
    ]
