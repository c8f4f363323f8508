"""The forward pass of a layer on the native core."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch

from cellweave.ops.common._library import LSTM, SequenceStruct, core
from cellweave.ops.common._native_call import PACKED, POOL, WORKSPACES, NativeCall, input_places

#: Where input products are made ahead of the loop and nothing is saved, the sequence runs in parts whose gates take
#: about this many bytes, so that they stay in cache.
PART_BYTES = 6 << 20
#: Below so many rows the products of one step do not fill the processor, so those of inputs are made for all steps at
#: once; up to the second number also where the input weights, of this many bytes, would not stay in its caches.
_FEW_ROWS, _SOME_ROWS, _LARGE_WEIGHTS = 4, 32, 16 << 20

State = tuple[torch.Tensor, ...]


class Saved(NamedTuple):
    """What backward needs beside the inputs. `hs` is the very tensor of outputs where the two are equal.

    Attributes:
        gates: Activated gates, as the layout's groups say.
        hs: Recurrent operands of later steps, `[T, B, P]`.
        cs: The same for c, `[T, B, H]`. LSTM only.
        raw: The projected h before its clip, `[T, B, P]`. LSTM only.
        norms: What the layer normalizations keep of each row, `[T, B, n]`; the gates are normalized ones then.
    """

    gates: torch.Tensor
    hs: torch.Tensor
    cs: torch.Tensor | None
    raw: torch.Tensor | None
    norms: torch.Tensor | None


class Results(NamedTuple):
    """What the core gives.

    Attributes:
        out: `[T, B, P]`.
        last: The state after the last step.
        states: The states after each step, if they are asked for; without h where the outputs recur.
        saved: What backward needs; good for something only if it was to be saved.
    """

    out: torch.Tensor
    last: State
    states: State
    saved: Saved


def native_forward(call: NativeCall, *, save: bool) -> Results:
    """Run the call; with `save` so that it can be differentiated."""
    layout, dtype, T, B = call.layout, call.dtype, call.T, call.B
    columns, ahead = layout.columns if save else layout.forward_columns, multiplies_ahead(call)
    steps = T if save or not ahead else _steps_of_part(call, columns)
    out = torch.empty((T, B, call.P), dtype=dtype, device="cpu")
    hs, cs, states = _operands(call, out, save=save)
    raw = POOL.empty((T, B, call.P), dtype) if save and layout.clips_projection else None
    # zeros past a row's end, which the loop leaves out: operators must save the same numbers each time
    norms = torch.zeros((T, B, layout.norm_numbers), dtype=dtype, device="cpu") if save and layout.norms else None
    gates = _buffer("gates", (steps * B * columns * call.H if save or ahead else 0,), dtype, save=save)
    s = call.struct(save=save, gates=gates if save or ahead else None, rows=steps * B, state=call.start)
    s.hs, s.cs, s.proj_raw, s.norm_kept = hs.data_ptr(), _address(cs), _address(raw), _address(norms)
    held = point_to_inputs(call, s, ahead=ahead)
    commit = None if save else _point_to_packed(call, s)
    scratch: torch.Tensor | None = None
    state = call.start
    for first, last in _parts(T, steps, call.frame.spec.reverse):
        held.x = _inputs_of_part(call, s, first, last, ahead=ahead)
        state = _enter_part(call, s, first, last, out, state)
        _point_to_states(call, s, first, hs, cs, states)
        if scratch is None:  # the first part is the longest
            s.scratch_bytes = core().scratch_bytes(s, backward=False)
            scratch = _buffer("scratch", (s.scratch_bytes,), torch.uint8, save=save)
            s.scratch = scratch.data_ptr()
        new = tuple([torch.empty_like(leaf) for leaf in state])
        s.h_last, s.c_last = new[-1].data_ptr(), new[0].data_ptr()
        core().forward(s)
        if commit is not None:
            commit()
            commit, s.packed_ready = None, 1
        state = new
    del held
    return Results(out, state, states[:-1] if call.plain else states, Saved(gates, hs, cs, raw, norms))


def _operands(call: NativeCall, out: torch.Tensor, *, save: bool) -> tuple[torch.Tensor, torch.Tensor | None, State]:
    """Buffers of the operands h and c, and of the states after each step where they are asked for.

    Where no reset stands between, a step's operand is the state after the step before.
    """
    T, B, is_lstm, wanted = call.T, call.B, call.layout.op == LSTM, call.frame.spec.all_states

    def operand(use: str, width: int) -> torch.Tensor:
        if wanted and call.resets is None:  # callers get it: none of the pool's
            return torch.empty((T, B, width), dtype=call.dtype, device="cpu")
        return _buffer(use, (T if save else 2, B, width), call.dtype, save=save)

    hs = out if call.plain else operand("hs", call.P)
    cs = operand("cs", call.H) if is_lstm else None
    if not wanted:
        return hs, cs, ()
    h, c = hs, cs
    if call.resets is not None:
        h = torch.empty((T, B, call.P), dtype=call.dtype, device="cpu")
        c = torch.empty((T, B, call.H), dtype=call.dtype, device="cpu") if is_lstm else None
    return hs, cs, (h,) if c is None else (c, h)


def _point_to_states(
    call: NativeCall, s: SequenceStruct, first: int, hs: torch.Tensor, cs: torch.Tensor | None, states: State
) -> None:
    """Where a part writes the states after each of its steps."""
    if not states:
        return
    h, c = states[-1], states[0]
    s.h_states = h.data_ptr() + first * call.B * call.P * call.size
    if h is hs:
        s.hs = s.h_states
    if cs is not None:
        s.c_states = c.data_ptr() + first * call.B * call.H * call.size
        if c is cs:
            s.cs = s.c_states


def _buffer(use: str, shape: tuple[int, ...], dtype: torch.dtype, *, save: bool) -> torch.Tensor:
    """Undefined contents; bytes that are this call's only as long as it runs, unless something is saved."""
    return POOL.empty(shape, dtype) if save else WORKSPACES.take(use, math.prod(shape) * dtype.itemsize)


def _address(tensor: torch.Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _point_to_packed(call: NativeCall, s: SequenceStruct) -> Callable[[], None] | None:
    """Use packed weights of an earlier call, or give memory for them; returns what keeps them once they are there."""
    layout = call.layout
    numbers = layout.kernels if layout.projection is None else (*layout.kernels, layout.projection)
    weights = [call.weights[number] for number in numbers]
    if call.T == 0 or call.B == 0:
        return None
    found = PACKED.find((layout, call.I, s.ahead, call.by_gate, core().isa_number), weights, call.frame.threads)
    if found is None:
        return None
    packed = found.packed
    s.x = call.x.data_ptr()  # that there are inputs decides what is packed
    if packed is None:
        packed = POOL.empty((core().packed_bytes(s),), torch.uint8)
    s.packed, s.held_packed = packed.data_ptr() or None, packed
    if found.packed is not None:
        s.packed_ready = 1
        return None
    return functools.partial(PACKED.keep, found, packed) if packed.numel() else None


def _steps_of_part(call: NativeCall, columns: int) -> int:
    row: int = call.B * columns * call.H * call.size
    return call.T if row * call.T <= PART_BYTES or not call.may_cut() else max(1, PART_BYTES // row)


def _parts(T: int, steps: int, reverse: bool) -> Iterable[tuple[int, int]]:
    """First and last (excluded) memory index of each part, in the order in which they run; the first is the longest."""
    if steps >= T:
        return ((0, T),)
    if reverse:
        return ((max(0, last - steps), last) for last in range(T, 0, -steps))
    return ((first, min(first + steps, T)) for first in range(0, T, steps))


def _enter_part(call: NativeCall, s: SequenceStruct, first: int, last: int, out: torch.Tensor, state: State) -> State:
    """Point to what a part reads and writes; returns the operands of its first step."""
    s.T = last - first
    s.out = out.data_ptr() + first * call.B * call.P * call.size
    if call.plain:
        s.hs = s.out
    else:
        lengths = s.held_lengths = call.lengths_from(first, s.T)
        s.lengths = _address(lengths)
        if call.resets is not None:
            s.resets = call.resets.data_ptr() + first * call.B
            step, start = (last - 1, call.T - 1) if call.frame.spec.reverse else (first, 0)
            if step != start:  # the resets before a call's first step are the caller's
                state = call.after_resets(call.resets[step][:, None], state)
    # Without a step there are no inputs, and no masks on them.
    masks = call.loop_masks if s.ahead or s.T == 0 else call.loop_masks + call.input_masks
    if masks:
        s.use_masks([mask.struct(call.steps_before(first, s.T)) for mask in masks])
    if state is not call.start:
        s.h0, s.c0 = state[-1].data_ptr(), state[0].data_ptr()
    return state


def _input_biases(call: NativeCall) -> list[torch.Tensor | None]:
    """The bias of each input product; the state's biases of r and u meet those of the inputs before the time loop."""
    layout = call.layout
    if layout.row_biases is None:
        return [None if product.bias is None else call.weights[product.bias] for product in layout.inputs]
    from_x, from_h = call.weights[layout.row_biases].unbind(0)
    both = from_x + from_h
    candidate = slice(layout.gates[2] * call.H, (layout.gates[2] + 1) * call.H)
    both[candidate] = from_x[candidate]
    return [both]


class _Held:
    """What the core reads while the call runs."""

    x: torch.Tensor
    biases: list[torch.Tensor | None]


def multiplies_ahead(call: NativeCall) -> bool:
    """Input products are made for all steps ahead of the loop, not step by step in it."""
    if call.B < _FEW_ROWS or call.by_gate or call.of_gates:
        return True
    large: bool = call.I * call.H * call.layout.forward_columns * call.size > _LARGE_WEIGHTS
    return call.B < _SOME_ROWS and large


def point_to_inputs(call: NativeCall, s: SequenceStruct, *, ahead: bool) -> _Held:
    """Weights and biases of the inputs."""
    held, layout = _Held(), call.layout
    held.biases = _input_biases(call)
    s.I, s.ahead = call.I, ahead
    block, row = call.H * call.size, call.I if layout.transposed else 1
    for weight, bias, number, column, _ in input_places(layout):
        setattr(s, weight, call.weights[layout.inputs[number].kernel].data_ptr() + column * row * block)
        given = held.biases[number]
        if given is not None:
            setattr(s, bias, given.data_ptr() + column * block)
    if layout.transposed:
        s.wx_unit0 = s.wx_unit1 = s.wx_unit2 = s.wx_unit3 = call.I
    return held


def _inputs_of_part(call: NativeCall, s: SequenceStruct, first: int, last: int, *, ahead: bool) -> torch.Tensor:
    """The inputs of the steps `first .. last - 1`; masked here where the loop does not see them."""
    x = call.x if last - first == call.T else call.x[first:last]
    s.x_gate = 0
    if call.of_gates:
        s.x_gate, given = x.numel(), x
        x = POOL.empty((len(call.of_gates), *given.shape), call.dtype)
        for masked, masks in zip(x, call.of_gates, strict=True):
            call.mask_inputs(given, masked, first, call.input_masks + masks, zero_padding=True)
    elif ahead and call.input_masks:
        x = call.masked_inputs(x, first)
    s.x = x.data_ptr()
    return x
