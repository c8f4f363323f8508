"""From a call's arguments, in any of torch.nn's layouts, to a feed; and back."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch.nn.utils.rnn import PackedSequence

from cellweave._checks import as_flags, refuse_nested
from cellweave._errors import ArgumentError, ArgumentTypeError, MemberError, MisfitError, ShapeError
from cellweave._types import dtype_name
from cellweave.nn._lengths import LeftPadding, checked_lengths
from cellweave.nn._run import Feed, Ran, States


class Layout(NamedTuple):
    """How the caller laid a call out.

    Attributes:
        batched: There is a batch axis.
        batch_first: It comes first.
        packed: The packed inputs.
        padding: Rows end at the last step.
    """

    batched: bool
    batch_first: bool
    packed: PackedSequence | None = None
    padding: LeftPadding | None = None


class Extras(NamedTuple):
    """What a call may have beside torch.nn's arguments."""

    lengths: Any
    padding_side: str
    resets: Any
    reset_state: Any
    all_states: bool


def enter(module: Any, inputs: Any, hx: Any, extras: Extras) -> tuple[Feed, Layout]:
    """The feed of a call, checked.

    Raises:
        As torch.nn: ShapeError (ValueError) for the number of axes, ValueError for the dtype, MisfitError and
        RuntimeError (RuntimeErrors) for sizes. Of what torch.nn does not have: see `LSTM`.
    """
    if extras.padding_side not in ("right", "left"):
        raise ArgumentError(f"{_name(module)}: expected padding_side 'right' or 'left', got {extras.padding_side!r}.")
    if extras.reset_state is not None and extras.resets is None:
        raise ArgumentError(f"{_name(module)}: expected resets beside reset_state, got none.")
    if isinstance(inputs, PackedSequence):
        return _enter_packed(module, inputs, hx, extras)
    require_tensor(module, inputs)
    if inputs.dim() not in (2, 3):
        raise ShapeError(f"{_name(module)}: expected inputs with 2 or 3 axes, got {list(inputs.shape)}.")
    batched, batch_first = inputs.dim() == 3, module.batch_first
    if not batched:
        inputs = inputs.unsqueeze(0 if batch_first else 1)
    state, fresh = (_batched_state(module, leaves, batched) for leaves in (hx, extras.reset_state))
    _check(module, inputs, state, fresh, None)
    x = inputs.transpose(0, 1) if batch_first else inputs
    steps, rows, device = x.shape[0], x.shape[1], x.device
    if steps == 0:
        raise MisfitError(f"{_name(module)}: expected at least one step, got inputs {list(inputs.shape)}.")
    resets = _resets(module, extras.resets, steps, rows, batched, device)
    lengths, padding = None, None
    if extras.lengths is not None:
        lengths = checked_lengths(_name(module), extras.lengths, steps, rows, device)
        if extras.padding_side == "left":
            padding = LeftPadding(lengths, steps)
            x = padding.to_left(x)
            resets = None if resets is None else padding.to_left(resets)
    return Feed(x, state, lengths, resets, fresh, False, extras.all_states), Layout(batched, batch_first, None, padding)


def _name(module: Any) -> str:
    return type(module).__name__


def require_tensor(module: Any, inputs: Any) -> None:
    """Raise MemberError (an AttributeError, as of torch.nn) unless inputs are a tensor, ShapeError for a nested one."""
    if not isinstance(inputs, torch.Tensor):
        raise MemberError(f"{_name(module)}: expected inputs as a tensor, got {type(inputs).__name__}.")
    refuse_nested(_name(module), inputs)


def check_kind(module: Any, what: str, tensors: States, like: torch.Tensor, whose: str) -> None:
    """Raise MisfitError (a RuntimeError, as of torch.nn) for another dtype or device than those of `like`."""
    for tensor in tensors:
        if tensor.device != like.device:
            raise MisfitError(
                f"{_name(module)}: expected {what} on {like.device} as the {whose} are, got {tensor.device}. "
                "Move one of them with .to(device)."
            )
        if tensor.dtype != like.dtype and not torch._C._is_any_autocast_enabled():
            wanted, got = dtype_name(like.dtype), dtype_name(tensor.dtype)
            raise MisfitError(
                f"{_name(module)}: expected {what} of {wanted} as the {whose} are, got {got}. Convert one of them."
            )


def state_leaves(module: Any, hx: Any) -> States | None:
    """A state as a tuple, `(h,)` or `(h, c)`; of an LSTM a tensor of two passes, whose axes come to light first.

    Raises:
        As torch.nn: of an LSTM, MisfitError (RuntimeError) for another number of tensors; of the others, MemberError
        (AttributeError) for a tuple.
    """
    if hx is None:
        return None
    if module.mode != "LSTM":
        if not isinstance(hx, torch.Tensor):
            raise MemberError(f"{_name(module)}: expected a state as one tensor, got {type(hx).__name__}.")
        return (hx,)
    if len(hx) != 2:
        raise MisfitError(f"{_name(module)}: expected a state (h, c), got {len(hx)} tensors.")
    return (hx[0], hx[1])


def refuse_one_tensor(module: Any, hx: Any) -> None:
    """Raise ArgumentTypeError (a TypeError, as of torch.nn) for an LSTM's state that is one tensor."""
    if module.mode == "LSTM" and isinstance(hx, torch.Tensor):
        raise ArgumentTypeError(f"{_name(module)}: expected a state (h, c), got one tensor {list(hx.shape)}.")


def _batched_state(module: Any, hx: Any, batched: bool) -> States | None:
    """A state as a tuple of leaves with a batch axis."""
    leaves = state_leaves(module, hx)
    if leaves is None:
        return None
    if any([leaf.dim() != (3 if batched else 2) for leaf in leaves]):  # noqa: C419  # a trace takes a list
        axes = "3 axes because the inputs have a batch" if batched else "2 axes because the inputs have no batch"
        raise MisfitError(
            f"{_name(module)}: expected a state with {axes}, got {[list(leaf.shape) for leaf in leaves]}."
        )
    refuse_one_tensor(module, hx)
    return leaves if batched else tuple([leaf.unsqueeze(1) for leaf in leaves])


def _check(module: Any, inputs: Any, state: States | None, fresh: States | None, sizes: Any) -> None:
    module.check_input(inputs, sizes)
    for leaves in (state, fresh):
        if leaves is not None:
            module.check_forward_args(inputs, leaves if module.mode == "LSTM" else leaves[0], sizes)
            check_kind(module, "a state", leaves, inputs, "inputs")


def _resets(
    module: Any, resets: Any, steps: int, rows: int, batched: bool, device: torch.device
) -> torch.Tensor | None:
    """Resets `[T, B]` on the inputs' device."""
    if resets is None:
        return None
    flags = as_flags(_name(module), resets)
    given = flags.shape
    if not batched and flags.dim() == 1:
        flags = flags[:, None]
    elif module.batch_first and flags.dim() == 2:
        flags = flags.transpose(0, 1)
    if tuple(flags.shape) != (steps, rows):
        layout = "[T]" if not batched else "[B, T]" if module.batch_first else "[T, B]"
        raise ShapeError(
            f"{_name(module)}: expected resets {layout} for {steps} steps of {rows} rows, got {list(given)}."
        )
    return flags.to(device)


def _enter_packed(module: Any, inputs: PackedSequence, hx: Any, extras: Extras) -> tuple[Feed, Layout]:
    if extras.lengths is not None:
        raise ArgumentError(f"{_name(module)}: expected no lengths because packed inputs have theirs, got some.")
    data, sizes = inputs.data, inputs.batch_sizes
    order = inputs.sorted_indices
    for given in (hx, extras.reset_state):
        refuse_one_tensor(module, given)
    state, fresh = (state_leaves(module, leaves) for leaves in (hx, extras.reset_state))
    _check(module, data, state, fresh, sizes)
    state, fresh = _reordered(state, order), _reordered(fresh, order)
    steps, rows = sizes.shape[0], int(sizes[0])
    resets = _resets(module, extras.resets, steps, rows, True, data.device)
    if resets is not None and order is not None:
        resets = resets.index_select(1, order)
    lengths = None
    if int(sizes[-1]) == rows:  # all rows are equally long
        x = data.reshape(steps, rows, data.shape[1])
    else:
        x, counts = torch._VF._pad_packed_sequence(data, sizes, False, 0.0, steps)
        lengths = counts.to(device=data.device, dtype=torch.int32)
    return Feed(x, state, lengths, resets, fresh, True, extras.all_states), Layout(True, module.batch_first, inputs)


def _reordered(leaves: States | None, order: torch.Tensor | None) -> States | None:
    if leaves is None or order is None:
        return leaves
    return tuple(leaf.index_select(1, order) for leaf in leaves)


def leave(module: Any, ran: Ran, layout: Layout) -> Any:
    """Outputs and last state as the caller laid them out."""
    outputs, state = ran.outputs, ran.state
    states = ran.states
    result: Any
    if layout.packed is not None:
        back = layout.packed.unsorted_indices
        result, state = _packed_like(outputs, layout.packed), _reordered(state, back) or ()
        if back is not None:
            states = tuple([every.index_select(2, back) for every in states])
    else:
        if layout.padding is not None:
            outputs, padding = layout.padding.to_right(outputs), layout.padding
            states = tuple(
                [padding.states_to_right(every, first) for every, first in zip(states, ran.first, strict=True)]
            )
        if not layout.batched:
            result, state = outputs.squeeze(1), tuple([leaf.squeeze(1) for leaf in state])
            states = tuple([every.squeeze(2) for every in states])
        else:
            result = outputs.transpose(0, 1) if layout.batch_first else outputs
    if layout.batched and layout.batch_first:
        states = tuple([every.transpose(1, 2) for every in states])
    pair = module.mode == "LSTM"
    last = state if pair else state[0]
    return (result, last, states if pair else states[0]) if len(states) > 0 else (result, last)


def _packed_like(outputs: torch.Tensor, packed: PackedSequence) -> PackedSequence:
    sizes = packed.batch_sizes
    steps, rows = outputs.shape[:2]
    if int(sizes[-1]) == rows:
        data = outputs.reshape(steps * rows, outputs.shape[2])
    else:
        lengths = (sizes[:, None] > torch.arange(rows, device="cpu")).sum(0)
        data, _ = torch._VF._pack_padded_sequence(outputs, lengths, False)
    return PackedSequence(data, sizes, packed.sorted_indices, packed.unsorted_indices)
