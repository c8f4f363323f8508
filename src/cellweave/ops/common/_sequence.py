"""A layer over a whole sequence as a loop over its step function: what every backend must agree with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from cellweave.ops.common._calls import LayerCall, LayerResult
from cellweave.ops.common._masks import BoundMask
from cellweave.specs import ZONES

#: Inputs `[B, I]` and a state to the new state, whose last item is also the output.
Step = Callable[[torch.Tensor, tuple[torch.Tensor, ...]], tuple[torch.Tensor, ...]]


def reference_sequence(step: Step, call: LayerCall) -> LayerResult:
    """Run a call step by step, differentiably to any order.

    At each step: the state is replaced where `resets` says so, input masks act, the step runs, zoneout puts elements
    of the state that the step started from into the new c and h, masks act on the new c and h and on the output; rows
    past their length then give zeros and keep their state. The run's own inputs, zeros past a row's end, are added last
    where the spec is residual. With `reverse`, each row counts its steps backwards from its end.

    Args:
        step: One step of the recurrence.
        call: The run with its tensors.
    Returns:
        outputs `[T, B, O]`, the state after each row's last step, and those after all steps if the spec asks for them.
    """
    lengths, state = call.lengths, call.state
    x = without_padding(call.x, lengths)
    steps, rows = x.shape[:2]
    if steps == 0:
        return LayerResult(x.new_zeros(0, rows, state[-1].shape[1]), state, no_states(call))
    active = None if lengths is None else within(lengths, steps)
    resets = None if call.resets is None else _meant(call.resets, active)
    order = reading_order(lengths, steps, x.device) if call.spec.reverse else None
    masks = _Masks(call, x)
    by_step = masks.on_inputs(read_in_order(x, order)).unbind(0)
    if resets is not None:
        resets = read_in_order(resets, order)
    fresh = _fresh_state(call)
    outputs, states = [], []
    for s in range(steps):
        if resets is not None:
            state = _rows(resets[s], fresh, state)
        new = masks.zone_out(step(by_step[s], state), state, s)
        output = masks.act("output", new[-1], s)
        new = masks.on_state(new, s)
        if active is not None:
            output = torch.where(active[s, :, None], output, torch.zeros((), dtype=output.dtype, device=output.device))
            new = _rows(active[s], new, state)
        state = new
        outputs.append(output)
        states.append(state)
    whole = read_in_order(torch.stack(outputs), order)
    kept: tuple[torch.Tensor, ...] = ()
    if call.spec.all_states:
        kept = tuple(read_in_order(torch.stack(leaf), order) for leaf in zip(*states, strict=True))
    return LayerResult(x + whole if call.spec.residual else whole, state, kept)


def no_states(call: LayerCall) -> tuple[torch.Tensor, ...]:
    """All states of a call without steps."""
    return tuple(leaf.new_zeros(0, *leaf.shape) for leaf in call.state) if call.spec.all_states else ()


def within(lengths: torch.Tensor, steps: int) -> torch.Tensor:
    """`[T, B]` bool: the step belongs to the row."""
    return torch.arange(steps, device=lengths.device)[:, None] < lengths


def without_padding(x: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
    """`[T, B, N]` with zeros past each row's end, so that nothing that stands there reaches a result or gradient."""
    if lengths is None:
        return x
    zero = torch.zeros((), dtype=x.dtype, device=x.device)
    return torch.where(within(lengths, x.shape[0])[:, :, None], x, zero)


def state_past_ends(states: torch.Tensor, last: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
    """States `[T, B, N]` with the last one `[B, N]` past each row's end."""
    return states if lengths is None else torch.where(within(lengths, states.shape[0])[:, :, None], states, last)


def reading_order(lengths: torch.Tensor | None, steps: int, device: torch.device) -> torch.Tensor:
    """Memory index of each row's step when it is read backwards, `[T, B]` or `[T, 1]`; past its end as it is."""
    forwards = torch.arange(steps, device=device)[:, None]
    if lengths is None:
        return forwards.flip(0)
    return torch.where(forwards < lengths, lengths - 1 - forwards, forwards)


def read_in_order(value: torch.Tensor, order: torch.Tensor | None) -> torch.Tensor:
    """`[T, B, ...]` with each row's steps in this order; a reading order undoes itself."""
    if order is None:
        return value
    return value[order, torch.arange(value.shape[1], device=value.device)]


def _meant(resets: torch.Tensor, active: torch.Tensor | None) -> torch.Tensor:
    return resets if active is None else resets & active


def _fresh_state(call: LayerCall) -> tuple[torch.Tensor, ...]:
    if call.reset_state is not None:
        return call.reset_state
    return tuple(torch.zeros((), dtype=leaf.dtype, device=leaf.device) for leaf in call.state)


def _rows(
    chosen: torch.Tensor, values: Sequence[torch.Tensor], others: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, ...]:
    return tuple(torch.where(chosen[:, None], a, b) for a, b in zip(values, others, strict=True))


class _Masks:
    """The masks of a call with the noise of all their steps."""

    def __init__(self, call: LayerCall, x: torch.Tensor) -> None:
        steps, rows, depth = x.shape
        widths = {"input": depth, "c": call.state[0].shape[1], "h": call.state[-1].shape[1]}
        widths |= {"output": widths["h"], "zone_c": widths["c"], "zone_h": widths["h"]}
        self._drawn: list[tuple[BoundMask, torch.Tensor]] = [
            (mask, mask.draws(steps, rows, widths[mask.spec.place], x)) for mask in call.masks
        ]

    def on_inputs(self, x: torch.Tensor) -> torch.Tensor:
        for mask, noise in self._drawn:
            if mask.spec.place == "input":
                x = mask.apply(x, noise)
        return x

    def zone_out(
        self, new: tuple[torch.Tensor, ...], old: tuple[torch.Tensor, ...], step: int
    ) -> tuple[torch.Tensor, ...]:
        """The new state with elements of the old one; h was made from the whole new c."""
        for mask, noise in self._drawn:
            if mask.spec.place in ZONES:
                share = mask.new_share(noise[step] if mask.spec.per_step else noise)
                leaf = 0 if mask.spec.place == "zone_c" else -1
                mixed = share * new[leaf] + (1 - share) * old[leaf]
                new = (mixed, *new[1:]) if leaf == 0 else (*new[:-1], mixed)
        return new

    def act(self, place: str, value: torch.Tensor, step: int) -> torch.Tensor:
        for mask, noise in self._drawn:
            if mask.spec.place == place:
                value = mask.apply(value, noise[step] if mask.spec.per_step else noise)
        return value

    def on_state(self, state: tuple[torch.Tensor, ...], step: int) -> tuple[torch.Tensor, ...]:
        h = self.act("h", state[-1], step)
        return (h,) if len(state) == 1 else (self.act("c", state[0], step), h)
