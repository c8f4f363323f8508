"""The forward pass of a layer on the native core."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch

from cellweave.ops.common._library import LSTM, SequenceStruct, core
from cellweave.ops.common._native_call import PACKED, POOL, WORKSPACES, NativeCall
from cellweave.ops.common._native_form import Pass
from cellweave.ops.common._packed_weights import Packing

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
    kind = call.form.saving if save else call.form.bare
    out = torch.empty((T, B, call.P), dtype=dtype, device="cpu")
    hs, cs, states = _operands(call, out, save=save)
    found = None if save else _find_packed(call)
    if found is None or found.packed is None:
        call.widen()
    # what nothing needs after the call lies in a block that the next one gets too
    gates = POOL.empty((kind.numbers,), dtype) if save else WORKSPACES.take("gates and rings", kind.rings[-1])
    s = call.struct(kind, gates)
    s.hs = gates.data_ptr() + kind.rings[0] if hs is None else hs.data_ptr()
    s.cs = gates.data_ptr() + kind.rings[1] if cs is None else cs.data_ptr()
    raw = norms = None
    if save and layout.clips_projection:
        raw = POOL.empty((T, B, call.P), dtype)
        s.proj_raw = raw.data_ptr()
    if save and layout.norms:
        # zeros past a row's end, which the loop leaves out: operators must save the same numbers each time
        norms = torch.zeros((T, B, layout.norm_numbers), dtype=dtype, device="cpu")
        s.norm_kept = norms.data_ptr()
    biases = point_to_row_biases(call, s)
    commit = None if found is None else _point_to_packed(call, s, found)
    scratch: torch.Tensor | None = None
    state = call.start
    for first, last in _parts(T, kind.steps, call.frame.spec.reverse):
        x = _inputs_of_part(call, s, first, last)
        state = _enter_part(call, s, first, last, out, state)
        if states:
            _point_to_states(call, s, first, hs, cs, states)
        if scratch is None:  # the first part is the longest
            scratch = WORKSPACES.take("scratch", scratch_bytes(call, kind, s))
            s.scratch = scratch.data_ptr()
        new = tuple([torch.empty_like(leaf) for leaf in state])
        s.h_last, s.c_last = new[-1].data_ptr(), new[0].data_ptr()
        core().forward(s)
        if commit is not None:
            commit()
            commit, s.packed_ready = None, 1
        state = new
    del x, biases  # which the core read
    saved = Saved(gates, out if hs is None else hs, cs, raw, norms)
    return Results(out, state, states[:-1] if call.plain else states, saved)


def scratch_bytes(call: NativeCall, kind: Pass, s: SequenceStruct) -> int:
    """How many bytes of scratch a pass takes; told to the struct, too."""
    size = None if s.n_masks else kind.scratch.get(s.packed is None)
    if size is None:
        size = core().scratch_bytes(s, backward=kind is call.form.back)
        if not s.n_masks:
            kind.scratch[s.packed is None] = size
    s.scratch_bytes = size
    return size


def _operands(
    call: NativeCall, out: torch.Tensor, *, save: bool
) -> tuple[torch.Tensor | None, torch.Tensor | None, State]:
    """Buffers of the operands h and c, and of the states after each step where they are asked for.

    Where no reset stands between, a step's operand is the state after the step before. None: a ring of two steps does.
    """
    is_lstm, wanted = call.layout.op == LSTM, call.frame.spec.all_states
    if not save and not wanted:
        return out if call.plain else None, None, ()
    T, B, dtype = call.T, call.B, call.dtype

    def states(width: int) -> torch.Tensor:
        return torch.empty((T, B, width), dtype=dtype, device="cpu")

    def operand(width: int) -> torch.Tensor | None:
        if wanted and call.resets is None:  # callers get it: none of the pool's
            return states(width)
        return POOL.empty((T, B, width), dtype) if save else None

    hs = out if call.plain else operand(call.P)
    cs = operand(call.H) if is_lstm else None
    if not wanted:
        return hs, cs, ()
    h = hs if call.resets is None else states(call.P)
    c = cs if call.resets is None or not is_lstm else states(call.H)
    return hs, cs, tuple([leaf for leaf in (c, h) if leaf is not None])


def _point_to_states(
    call: NativeCall, s: SequenceStruct, first: int, hs: torch.Tensor | None, cs: torch.Tensor | None, states: State
) -> None:
    """Where a part writes the states after each of its steps."""
    h, c = states[-1], states[0]
    s.h_states = h.data_ptr() + first * call.B * call.P * call.size
    if h is hs:
        s.hs = s.h_states
    if len(states) == 2:
        s.c_states = c.data_ptr() + first * call.B * call.H * call.size
        if c is cs:
            s.cs = s.c_states


def _address(tensor: torch.Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _find_packed(call: NativeCall) -> Packing | None:
    """What is known of the call's packed weights; None where none are kept."""
    if call.T == 0 or call.B == 0:
        return None
    layout, form = call.layout, call.form
    kind = (layout, call.I, form.ahead, form.by_gate, form.rounds, core().isa_number)
    return PACKED.find(kind, [call.weights[number] for number in layout.packed], call.frame.threads)


def _point_to_packed(call: NativeCall, s: SequenceStruct, found: Packing) -> Callable[[], None] | None:
    """Use packed weights of an earlier call, or give memory for them; returns what keeps them once they are there."""
    packed = found.packed
    s.x = call.x.data_ptr()  # that there are inputs decides what is packed
    if packed is None:
        packed = POOL.empty((core().packed_bytes(s),), torch.uint8)
    s.packed, s.held_packed = packed.data_ptr() or None, packed
    if found.packed is not None:
        s.packed_ready = 1
        return None
    return functools.partial(PACKED.keep, found, packed) if packed.numel() else None


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
    masks = call.loop_masks
    if call.input_masks and last > first and not call.form.ahead:
        masks = masks + call.input_masks
    if masks:
        s.use_masks([mask.struct(call.steps_before(first, last - first)) for mask in masks])
    s.h0, s.c0 = state[-1].data_ptr(), state[0].data_ptr()
    return state


def point_to_row_biases(call: NativeCall, s: SequenceStruct) -> torch.Tensor | None:
    """Of a bias in two rows: the state's biases of r and u meet those of the inputs before the time loop.

    Returns what the struct points to then.
    """
    layout, block = call.layout, call.H * call.size
    if layout.row_biases is None:
        return None
    rows = call.weights[layout.row_biases]
    both = rows.sum(0)
    from_x, from_both = rows.data_ptr(), both.data_ptr()
    r, u, c = layout.gates[:3]
    s.bias0, s.bias1, s.bias2 = from_both + r * block, from_both + u * block, from_x + c * block
    return both


def _inputs_of_part(call: NativeCall, s: SequenceStruct, first: int, last: int) -> torch.Tensor:
    """The inputs of the steps `first .. last - 1`; masked here where the loop does not see them."""
    x = call.x if last - first == call.T else call.x[first:last]
    if call.of_gates:
        s.x_gate, given = x.numel(), x
        x = POOL.empty((len(call.of_gates), *given.shape), call.dtype)
        for masked, masks in zip(x, call.of_gates, strict=True):
            call.mask_inputs(given, masked, first, call.input_masks + masks, zero_padding=True)
    elif call.input_masks and call.form.ahead:
        x = call.masked_inputs(x, first)
    s.x = x.data_ptr()
    return x
