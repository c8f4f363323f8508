"""Running a module's layers, place by place, each over the whole sequence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F

from cellweave._errors import BackendError
from cellweave.nn._cell_masks import next_draws
from cellweave.nn._masks import bound_masks, draw_seeds
from cellweave.nn._plans import Options, StackPlan, Surroundings, choices_for, facts_of, stack_plan
from cellweave.nn._weights import given_weights, weights_of
from cellweave.ops.common import LayerCall, LayerResult, within, without_padding
from cellweave.weave import asked_backend, autocast_is_on, is_transformed, needs_steps

States = tuple[torch.Tensor, ...]
_PLAIN = (torch.Tensor, torch.nn.Parameter)


class Feed(NamedTuple):
    """What a module runs on, time major.

    Attributes:
        x: Inputs `[T, B, I]`.
        state: `(h,)` or `(h, c)`, each `[L * D, B, size]`; None: zeros.
        lengths: Steps per row, `[B]` int32 on x's device.
        resets: `[T, B]` bool: the row starts anew at that step.
        fresh: The state that it starts from then, as `state`; None: zeros.
        packed: Dropout between layers acts on packed sequences, as torch.nn's does.
        all_states: The state after every step is asked for.
    """

    x: torch.Tensor
    state: States | None
    lengths: torch.Tensor | None
    resets: torch.Tensor | None
    fresh: States | None
    packed: bool
    all_states: bool


class Ran(NamedTuple):
    """What a run gives.

    Attributes:
        outputs: `[T, B, D * P]`.
        state: As `Feed.state`.
        states: After every step, `[L * D, T, B, size]`, if asked for; else `()`.
        first: What the run started from, as `state`; `()` unless `states` are asked for.
    """

    outputs: torch.Tensor
    state: States
    states: States
    first: States


#: Runs one place: its number, inputs, state (c before h), state after a reset, resets.
PlaceRunner = Callable[[int, torch.Tensor, States, "States | None", "torch.Tensor | None"], LayerResult]


def run_stack(module: Any, feed: Feed) -> Ran:
    """Run all layers of a module."""
    if torch.compiler.is_compiling():
        from cellweave.nn._traced import run_traced

        return run_traced(module, feed)
    return run_eagerly(module, feed)


def run_eagerly(module: Any, feed: Feed) -> Ran:
    """Run all layers of a module outside of traces."""
    facts, options = facts_of(module), options_of(feed)
    plan = stack_plan(facts, options)
    held = next_draws(module, plan, feed.x) if facts.single and plan.draws else None
    dropped = None if held is None else held.dropped
    given = given_weights(module)
    weights = [weights_of(module, place, given, plan.weight_dropout, dropped) for place in plan.places]
    choices = choices_for(facts, options, surroundings_of(feed, weights))
    seeds: list[int] = []
    if plan.masks:
        seeds = (draw_seeds(plan.masks) if held is None else held.seeds).tolist()
    step = 0 if held is None else int(held.step)

    def run_place(
        number: int, x: torch.Tensor, state: States, fresh: States | None, resets: torch.Tensor | None
    ) -> LayerResult:
        place, choice = plan.places[number], choices[number]
        if choice.backend is None:
            raise BackendError(f"{type(module).__name__}: expected a backend that can run it, got none. {choice.why}.")
        masks = bound_masks(place, seeds[number * len(place.keeps) :], step)
        call = LayerCall(
            place.spec, x, state, weights[number], masks, feed.lengths, resets, fresh, choice.threads, choice.memo
        )
        return choice.backend.run(call)

    return through_layers(module, plan, feed, run_place)


def options_of(feed: Feed) -> Options:
    """The options of a call."""
    return Options(feed.lengths is not None, feed.resets is not None, feed.all_states)


def through_layers(module: Any, plan: StackPlan, feed: Feed, run_place: PlaceRunner) -> Ran:
    """All layers one after another."""
    x, directions = feed.x, 2 if module.bidirectional else 1
    backward = None if feed.resets is None or directions == 1 else _read_backwards(feed.resets, feed.lengths)
    zeros = _zeros(plan, x) if feed.state is None else None
    found: list[States] = []
    every: list[States] = []
    for layer, adds in enumerate(plan.sums):
        outputs = []
        for direction in range(directions):
            number = layer * directions + direction
            state = _at(feed.state, number) if zeros is None else zeros
            fresh = None if feed.fresh is None else _at(feed.fresh, number)
            ran = run_place(number, x, state, fresh, backward if direction else feed.resets)
            outputs.append(ran.outputs)
            found.append(ran.state)
            every.append(ran.states)
        y = outputs[0] if directions == 1 else torch.cat(outputs, dim=2)
        if adds:
            y = without_padding(x, feed.lengths) + y
        if layer < module.num_layers - 1 and module.training and module.dropout > 0:
            y = _dropped(y, module.dropout, feed.lengths if feed.packed else None)
        x = y
    last = _stacked(found)
    if not feed.all_states:
        return Ran(x, last, (), ())
    if len(every) == 1 and every[0][-1] is x:
        every = [(*every[0][:-1], x.clone())]  # callers may write into the outputs
    first = _stacked([zeros] * len(found)) if zeros is not None else feed.state or ()
    return Ran(x, last, _stacked(every), first)


def _zeros(plan: StackPlan, x: torch.Tensor) -> States:
    return tuple([x.new_zeros((x.shape[1], size)) for size in reversed(plan.sizes)])


def _at(states: States | None, number: int) -> States:
    """The state of one place: c before h, which torch has the other way round."""
    return tuple([leaf[number] for leaf in reversed(states or ())])


def _stacked(states: list[States]) -> States:
    """States of all places, c before h, as one of each, h before c."""
    leaves = [[state[leaf] for state in states] for leaf in reversed(range(len(states[0])))]
    return tuple([leaf[0].unsqueeze(0) if len(leaf) == 1 else torch.stack(leaf) for leaf in leaves])


def _dropped(y: torch.Tensor, rate: float, packed_lengths: torch.Tensor | None) -> torch.Tensor:
    """Torch's own dropout; of a packed sequence torch.nn draws a mask for its steps alone, in their packed order."""
    if packed_lengths is None:
        return F.dropout(y, rate)
    there = within(packed_lengths, y.shape[0])
    return torch.zeros_like(y).masked_scatter(there[:, :, None], F.dropout(y[there], rate))


def _read_backwards(resets: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
    """Where the reverse direction starts anew: it enters a piece that ends before step t at step t - 1."""
    if lengths is not None:
        resets = resets & within(lengths, resets.shape[0])
    # As numbers, for inductor makes no C++ of booleans that are padded; exports take a dynamic number of steps so.
    return F.pad(resets.to(torch.uint8), (0, 0, 0, 1))[1:].to(torch.bool)


def surroundings_of(feed: Feed, weights: list[dict[str, torch.Tensor]]) -> Surroundings:
    """What decides beside the runs which backend takes them."""
    x = feed.x
    dtype, device = x.dtype, x.device
    autocast, only_steps = autocast_is_on(device.type), needs_steps(device.type)
    rows = 1 if only_steps else x.shape[1]  # a mode of torch may have put a symbol there
    tensors = [x, *(feed.state or ()), *(feed.fresh or ())]
    for group in weights:
        tensors += group.values()
    plain, needs_grad = True, False
    for tensor in tensors:
        needs_grad = needs_grad or tensor.requires_grad
        if (
            type(tensor) not in _PLAIN
            or tensor.layout != torch.strided
            or tensor.device != device
            or (tensor.dtype != dtype and not autocast)
        ):
            plain = False
    return Surroundings(
        weights[0]["kernel"].dtype, device.type, rows, needs_grad and torch.is_grad_enabled(),
        is_transformed(), plain, autocast, asked_backend(),
        "there are no rows" if rows == 0 else only_steps, torch.get_num_threads(),
    )  # fmt: skip
