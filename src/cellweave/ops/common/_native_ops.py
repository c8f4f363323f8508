"""The native layers as operators of `torch.library`, which compilers and exporters see as a whole."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from cellweave.ops.common._autocast import without_autocast
from cellweave.ops.common._calls import LayerCall
from cellweave.ops.common._library import LSTM
from cellweave.ops.common._masks import BoundMask
from cellweave.ops.common._native_autograd import SAVED, differentiable_gradients
from cellweave.ops.common._native_backward import native_backward
from cellweave.ops.common._native_call import NativeCall
from cellweave.ops.common._native_forward import Saved, native_forward
from cellweave.ops.common._native_frame import Frame, NativeOp, recurs_on_outputs
from cellweave.ops.common._op_arguments import draw_bits, flat_tensors, masks_of_streams, nested_tensors
from cellweave.ops.common._run_text import run_from_text, run_to_text
from cellweave.specs import RunSpec

_LIBRARY: Any = torch.library.Library("cellweave", "DEF")  # type: ignore[no-untyped-call]
#: What may be empty is an optional list: machine code that inductor makes ahead of time hands no empty list on.
#: The call's tensors by role; `streams` has a row for each mask, `keeps` its probability, `noise` what was given,
#: `bits` those of its draws (`draw_bits`).
_CALL = (
    "Tensor x, Tensor[] state, Tensor[]? fresh, Tensor[] weights, Tensor? lengths, Tensor? resets, "
    "Tensor? streams, Tensor? keeps, Tensor[]? noise, str run, int[] whole, float[] real, int threads, "
    "bool bfloat16, int bits"
)
_ROLES, _TENSORS = 15, 9  # arguments in _CALL, and how many of them are tensors or lists of tensors

Tensors = list[torch.Tensor]
#: What goes in for `_CALL`.
Arguments = tuple[Any, ...]


def define_native_ops(op: NativeOp) -> None:
    """Register `cellweave::<name>_forward` and `cellweave::<name>_backward`."""
    tags = (torch.Tag.pt2_compliant_tag,)
    _LIBRARY.define(f"{op.name}_forward({_CALL}, bool save) -> (Tensor out, Tensor[] last, Tensor[] saved)", tags=tags)
    _LIBRARY.define(
        f"{op.name}_backward({_CALL}, Tensor[] saved, Tensor? d_out, Tensor?[] d_last, bool[] needed) -> Tensor[]",
        tags=tags,
    )
    forward, backward = f"cellweave::{op.name}_forward", f"cellweave::{op.name}_backward"
    _LIBRARY.impl(f"{op.name}_forward", lambda *call: _forward(op, *call), "CPU")
    _LIBRARY.impl(f"{op.name}_backward", lambda *call: _backward(op, *call), "CPU")
    torch.library.register_fake(forward, lambda *call: _forward_shapes(op, *call), lib=_LIBRARY)
    torch.library.register_fake(backward, lambda *call: _backward_shapes(op, *call), lib=_LIBRARY)
    torch.library.register_autograd(
        forward,
        lambda ctx, *grads: _backward_of(op, ctx, *grads),
        setup_context=lambda ctx, inputs, output: _setup(ctx, inputs, output),
        lib=_LIBRARY,
    )


def run_operator(name: str, arguments: Arguments) -> tuple[torch.Tensor, Tensors]:
    """Outputs; the last state, and behind it states after each step; by the registered operator."""
    x, state, fresh, weights = arguments[:4]
    sources = [x, *state, *(fresh or ()), *weights]
    save = torch.is_grad_enabled() and any([source.requires_grad for source in sources])  # noqa: C419
    out, last, _ = getattr(torch.ops.cellweave, f"{name}_forward")(*arguments, save)
    return out, last


def arguments_of(name: str, call: LayerCall) -> Arguments:
    """What an operator takes for a call, in plain Python that torch.compile can trace.

    Args:
        name: "rnn", "gru" or "lstm".
    """
    weights = [call.weights[weight.name] for weight in call.spec.cell.weights(1)]
    masks, device = call.masks, call.x.device
    streams = keeps = None
    if masks:
        rows = [
            [_signed(m.seed), _signed(m.seed2), _signed(m.block), m.stride, _rule(m), int(m.noise is not None)]
            for m in masks
        ]
        streams = torch.tensor(rows, dtype=torch.int64, device=device)
        keeps = torch.tensor([mask.keep for mask in masks], dtype=torch.float64, device=device)
    noise = [mask.noise for mask in masks if mask.noise is not None]
    text, whole, real = run_to_text(name, call.spec)
    fresh = list(call.reset_state) if call.reset_state else None
    return (
        call.x, list(call.state), fresh, weights, call.lengths, call.resets, streams, keeps,
        noise if len(noise) > 0 else None, text, whole, real, call.threads, call.bfloat16,
        draw_bits(masks[0].dtype) if masks else 0,
    )  # fmt: skip


def _rule(mask: BoundMask) -> int:
    """How a mask is drawn, as one number: 0, 1 by floor, 2 and 3 not at all."""
    return int(mask.by_floor) + 2 * int(mask.expected)


def _signed(value: int) -> int:
    """`signed64` for symbols too."""
    return value - (1 << 64) if value >= (1 << 63) else value


def _unpack(op: NativeOp, arguments: Arguments) -> tuple[Frame, list[torch.Tensor | None]]:
    """The frame of a call, and its sources and constants."""
    x, state, fresh, weights, lengths, resets, streams, keeps, noise, *text, threads, bfloat16, bits = arguments
    run, fresh = run_from_text(*text), fresh or ()
    masks = masks_of_streams(run, streams, keeps, noise, bits)
    noises = [mask.noise for mask in masks]
    plain = tuple([mask if mask.noise is None else dataclasses.replace(mask, noise=None) for mask in masks])
    frame = Frame(op, op.layout_of(run.cell), run, plain, threads, len(state), len(fresh), bfloat16, {})
    return frame, [x, *state, *fresh, *weights, lengths, resets, *noises]


def _forward(op: NativeOp, *arguments: Any) -> tuple[torch.Tensor, Tensors, Tensors]:
    save: bool = arguments[_ROLES]
    frame, tensors = _unpack(op, arguments[:_ROLES])
    with without_autocast():
        out, last, states, saved = native_forward(NativeCall(frame, tensors), save=save)
    given = [out, *states]  # of which nothing is saved a second time
    kept = [t for t in saved if t is not None and not any(t is other for other in given)] if save else []
    return out, [*last, *states], kept


def _forward_shapes(op: NativeOp, *arguments: Any) -> tuple[torch.Tensor, Tensors, Tensors]:
    x, state = arguments[0], arguments[1]
    run = _run_of(arguments)
    layout, (steps, rows, _) = op.layout_of(run.cell), x.shape
    out = x.new_empty((steps, rows, layout.width))
    last = [x.new_empty(tuple(leaf.shape)) for leaf in state]
    plain, given = _is_plain(arguments), _gives_operands(arguments)
    if run.all_states:
        widths = [layout.units, layout.width] if layout.op == LSTM else [layout.width]
        last += [x.new_empty((steps, rows, width)) for width in (widths[:-1] if plain else widths)]
    if not arguments[_ROLES]:
        return out, last, []
    saved = [x.new_empty((steps * rows * layout.columns * layout.units,))]
    if not plain and not given:
        saved.append(x.new_empty((steps, rows, layout.width)))
    if layout.op == LSTM and not given:
        saved.append(x.new_empty((steps, rows, layout.units)))
    if layout.clips_projection:
        saved.append(x.new_empty((steps, rows, layout.width)))
    if layout.norms:
        saved.append(x.new_empty((steps, rows, layout.norm_numbers)))
    return out, last, saved


def _run_of(arguments: Arguments) -> RunSpec:
    return run_from_text(*arguments[_TENSORS : _TENSORS + 3])


def _is_plain(arguments: Arguments) -> bool:
    """The outputs are what later steps multiply."""
    return recurs_on_outputs(_run_of(arguments), arguments[4], arguments[5])


def _gives_operands(arguments: Arguments) -> bool:
    """The states after each step are asked for and are the operands of the steps after them."""
    return _run_of(arguments).all_states and arguments[5] is None


def _saved_again(arguments: Arguments, kept: Tensors, out: torch.Tensor, states: Tensors) -> Tensors:
    """All that was saved, what was given anyway included, in the order of `Saved`."""
    gates, *rest = kept
    given = list(states) if _gives_operands(arguments) else []
    hs = out if _is_plain(arguments) else given.pop() if given else rest.pop(0)
    if len(arguments[1]) == 1:  # no c
        return [gates, hs, *rest]
    return [gates, hs, given.pop() if given else rest.pop(0), *rest]


def _setup(ctx: Any, inputs: Arguments, output: Any) -> None:
    out, last, kept = output
    states = last[len(inputs[1]) :]
    flat, ctx.sizes = flat_tensors(inputs[:_TENSORS])
    ctx.count, ctx.rest = len(flat), inputs[_TENSORS:_ROLES]
    ctx.states = len(states)
    ctx.save_for_backward(*flat, *kept, out, *states)
    ctx.set_materialize_grads(False)


def _backward_of(op: NativeOp, ctx: Any, d_out: Any, d_last: list[Any], _: list[Any]) -> Arguments:
    """Autograd's backward: one gradient for each argument, lists for lists."""
    kept = list(ctx.saved_tensors)
    tensors = nested_tensors(kept, ctx.sizes)
    kept = kept[ctx.count :]
    arguments = (*tensors, *ctx.rest)
    states = [kept.pop() for _ in range(ctx.states)][::-1]
    kept = _saved_again(arguments, kept[:-1], kept[-1], states)
    lists = [asks for asks, part in zip(ctx.needs_input_grad[1:4], tensors[1:4], strict=True) if part is not None]
    needed = [ctx.needs_input_grad[0], *[asked for asks in lists for asked in asks]]
    upstream = [d_out, *d_last]
    if torch.is_grad_enabled():
        frame, call = _unpack(op, arguments)
        grads = iter(differentiable_gradients(frame, [*call, *[None] * SAVED], upstream, needed))
    else:
        backward = getattr(torch.ops.cellweave, f"{op.name}_backward")
        given = iter(backward(*arguments, kept, d_out, d_last, needed))
        grads = iter([next(given) if asked else None for asked in needed])
    x, found = next(grads), [None if part is None else [next(grads) for _ in part] for part in tensors[1:4]]
    # An empty list of numbers counts as one of tensors.
    numbers: list[Any] = [[] if value == [] else None for value in ctx.rest]
    noise = None if tensors[8] is None else [None] * len(tensors[8])
    return (x, *found, None, None, None, None, noise, *numbers, None)


def _backward(op: NativeOp, *arguments: Any) -> Tensors:
    frame, tensors = _unpack(op, arguments[:_ROLES])
    kept, d_out, d_last, needed = arguments[_ROLES:]
    gates, hs, *rest = kept
    cs = rest.pop(0) if frame.layout.op == LSTM else None
    raw = rest.pop(0) if frame.layout.clips_projection else None
    saved = Saved(gates, hs, cs, raw, rest.pop(0) if frame.layout.norms else None)
    with without_autocast():
        found = native_backward(NativeCall(frame, tensors), saved, [d_out, *d_last], needed, keep=True)
    return [grad for grad in found if grad is not None]


def _backward_shapes(op: NativeOp, *arguments: Any) -> Tensors:
    x, state, fresh, weights = arguments[:4]
    needed = arguments[-1]
    sources = [x, *state, *(fresh or ()), *weights]
    return [x.new_empty(tuple(t.shape)) for t, asked in zip(sources, needed, strict=True) if asked]
