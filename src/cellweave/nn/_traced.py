"""Modules in compiled and exported code: plain steps that a trace can follow, one operator for each layer.

Imported when a trace comes by.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing
from torch.nn.utils.rnn import PackedSequence

from cellweave._errors import ModeError
from cellweave.nn._additions import Additions
from cellweave.nn._cell_masks import next_draws
from cellweave.nn._entry import Extras, enter, leave
from cellweave.nn._masks import STRIDE, draw_seeds
from cellweave.nn._plans import (
    Facts,
    Options,
    Place,
    StackPlan,
    Surroundings,
    choice_in_graph,
    choices_for,
    facts_of,
    stack_plan,
)
from cellweave.nn._run import Feed, Ran, States, options_of, run_eagerly, through_layers
from cellweave.nn._weights import given_weights, weights_of
from cellweave.ops.common import LayerCall, LayerResult
from cellweave.ops.common._in_graphs import run_in_graph
from cellweave.ops.common._run_text import RunText, run_to_text
from cellweave.weave import IN_GRAPHS, Choice, asked_backend, graph_obstacle, is_transformed

#: The backends whose layers are operators, in which random masks act.
_OPERATORS = ("native", "triton")
#: What torch.compile says where a graph ends.
_NO_PLACE = "cellweave: what runs this module here has no place in a graph"
_STREAMS = "cellweave: a Stream keeps its state outside of graphs"
#: Rows of a batch that the number of threads is chosen for: a trace does not know its own.
_ROWS = 16


@dataclass(eq=False)
class TracedPlace:
    """One place in constants.

    Attributes:
        place: As it runs outside of traces.
        choice: What runs it.
        weights: Their names, in the order in which operators take them.
        text: The run's spec.
        first_mask, last_mask: Its rows among the drawn seeds, the last not included.
    """

    place: Place
    choice: Choice
    weights: list[str]
    text: RunText
    first_mask: int
    last_mask: int


@dataclass(eq=False)
class TracedStack:
    """A module's runs in constants.

    Attributes:
        keeps: Its masks' keep probabilities.
        reason: Why no trace can have it; "" where one can.
        obstacle: Why dynamo's cannot, while an export that runs the code can.
    """

    plan: StackPlan
    places: list[TracedPlace]
    keeps: list[float]
    reason: str = ""
    obstacle: str = ""


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _traced_stack(
    facts: tuple[Any, ...],
    additions: Additions,
    training: bool,
    options: tuple[bool, ...],
    dtype: torch.dtype,
    device: torch.device,
    grad: bool,
) -> TracedStack:
    with unset_fake_temporarily(), disable_proxy_modes_tracing():
        known, call = Facts._make((*facts, additions, training)), Options._make(options)
        plan = stack_plan(known, call)
        around = Surroundings(
            dtype, device.type, _ROWS, grad, is_transformed(), True, False, asked_backend(), "", torch.get_num_threads()
        )  # fmt: skip
        places: list[TracedPlace] = []
        keeps: list[float] = []
        for place, choice in zip(plan.places, choices_for(known, call, around), strict=True):
            first = len(keeps)
            keeps += place.keeps
            names = [weight.name for weight in place.spec.cell.weights(1)]
            text = run_to_text(place.kind, place.spec)
            places.append(TracedPlace(place, choice_in_graph(place, choice, around), names, text, first, len(keeps)))
    obstacles = [graph_obstacle(traced.choice, traced.place.spec, dtype) for traced in places]
    return TracedStack(plan, places, keeps, _untraceable(places), next(filter(None, obstacles), ""))


def _untraceable(places: list[TracedPlace]) -> str:
    for traced in places:
        if traced.choice.backend is None:
            return traced.choice.why
        if traced.place.keeps and traced.choice.name not in _OPERATORS:
            return f"random masks do not act in graphs on the backend {traced.choice.name}: {traced.choice.why}"
    return ""


@torch.compiler.disable(reason=_NO_PLACE)  # type: ignore[untyped-decorator, no-untyped-call]
def run_outside(module: Any, feed: Feed, reason: str) -> Ran:
    """Run a module that no trace can have, outside of graphs.

    Raises:
        ModeError: an export, which has no outside.
    """
    if torch.compiler.is_exporting():
        where = type(module).__name__
        raise ModeError(f"{where}: expected a module that a graph can have, got one that cannot: {reason}.")
    return run_eagerly(module, feed)


@torch.compiler.disable(reason=_STREAMS)  # type: ignore[untyped-decorator, no-untyped-call]
def feed_outside(feed: Callable[..., torch.Tensor], inputs: torch.Tensor, **resets: Any) -> torch.Tensor:
    """Feed a stream outside of graphs."""
    return feed(inputs, **resets)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def run_packed(module: Any, inputs: PackedSequence, hx: Any, extras: Extras) -> Any:
    """Run a module on packed inputs, whose sizes no trace knows, outside of graphs, as torch.nn does.

    Raises:
        ModeError: an export, which has no outside.
    """
    if torch.compiler.is_exporting():
        where = type(module).__name__
        raise ModeError(f"{where}: expected padded inputs in an export, got packed ones. Give the module lengths.")
    feed, layout = enter(module, inputs, hx, extras)
    return leave(module, run_eagerly(module, feed), layout)


def run_traced(module: Any, feed: Feed) -> Ran:
    """Run all layers of a module in a trace."""
    x, facts, options = feed.x, facts_of(module), options_of(feed)
    stack = _traced_stack(
        tuple(facts[:-2]), facts.additions, facts.training, tuple(options), x.dtype, x.device, torch.is_grad_enabled()
    )  # fmt: skip
    reason = stack.reason
    if reason == "" and torch.compiler.is_dynamo_compiling():
        reason = stack.obstacle
    if reason != "":
        outside: Ran = run_outside(module, feed, reason)
        return outside
    held = next_draws(module, stack.plan, x) if facts.single and stack.plan.draws else None
    dropped = None if held is None else held.dropped
    given, rate = given_weights(module), stack.plan.weight_dropout
    weights = [weights_of(module, traced.place, given, rate, dropped) for traced in stack.places]
    streams, keeps = None, None
    if len(stack.keeps) > 0:
        rule = 0 if module.training else 2  # in evaluation a mask is the expected one, and nothing is drawn
        count = len(stack.keeps)
        if held is not None:
            seeds = held.seeds
        else:
            seeds = draw_seeds(count) if module.training else torch.zeros(count, dtype=torch.int64, device="cpu")
        rest = torch.tensor([[0, 0, STRIDE, rule, 0] for _ in stack.keeps], dtype=torch.int64, device="cpu")
        if held is not None:  # where its steps draw: at the block of their number
            moves = [STRIDE * mask.per_step for traced in stack.places for mask in traced.place.spec.masks]
            blocks = held.step * torch.tensor(moves, dtype=torch.int64, device="cpu")
            rest = torch.cat([rest[:, :1], blocks[:, None], rest[:, 2:]], dim=1)
        streams = torch.cat([seeds[:, None], rest], dim=1)
        keeps = torch.tensor(list(stack.keeps), dtype=torch.float64, device="cpu")

    def run_place(
        number: int, x: torch.Tensor, state: States, fresh: States | None, resets: torch.Tensor | None
    ) -> LayerResult:
        traced = stack.places[number]
        call = LayerCall(
            traced.place.spec, x, state, weights[number], (), feed.lengths, resets, fresh, traced.choice.threads
        )
        if traced.choice.name not in IN_GRAPHS:
            found: LayerResult = traced.choice.backend.run(call)
            return found
        mine, kept = None, None
        if streams is not None and keeps is not None and traced.first_mask < traced.last_mask:
            mine, kept = streams[traced.first_mask : traced.last_mask], keeps[traced.first_mask : traced.last_mask]
        return run_in_graph(traced.choice.name, traced.place.kind, call, traced.weights, traced.text, mine, kept, None)

    return through_layers(module, stack.plan, feed, run_place)
