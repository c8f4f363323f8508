"""What a module runs: one whole-sequence run for each layer and direction, and what runs it."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from cellweave.nn._additions import Additions
from cellweave.ops.common import RunContext
from cellweave.specs import CellSpec, GRUSpec, LSTMSpec, MaskPlace, MaskSpec, RNNSpec, RunSpec
from cellweave.weave import REFERENCE, Choice, choose, choose_in_graph, with_remark

#: Modules and their options that one process has plans for; more start the table anew.
_MOST_PLANS = 1024
#: What a layer normalization adds to a row's variance. Source: `torch.nn.LayerNorm`.
EPSILON = 1e-5


class Facts(NamedTuple):
    """Of a module, what its runs rest on."""

    mode: str
    input_size: int
    hidden_size: int
    proj_size: int
    num_layers: int
    bias: bool
    bidirectional: bool
    single: bool
    additions: Additions
    training: bool


def facts_of(module: Any) -> Facts:
    """The facts of a module as it is now."""
    return Facts(
        module.mode, module.input_size, module.hidden_size, module.proj_size, module.num_layers, module.bias,
        module.bidirectional, isinstance(module, torch.nn.RNNCellBase), module.additions, module.training,
    )  # fmt: skip


class Options(NamedTuple):
    """Of a call."""

    lengths: bool
    resets: bool
    all_states: bool = False


@dataclass(frozen=True, eq=False)
class Place:
    """One layer in one direction.

    Attributes:
        kind: "rnn", "gru" or "lstm".
        suffix: Of its parameters' names, such as "_l0_reverse".
        spec: What runs.
        depth: Columns of its inputs.
        keeps: Of each mask, the probability to keep an element.
        expected: Its masks are the expected ones: nothing is drawn.
        row_biases: The biases stay two, the inputs' and the state's; else their sum is the bias.
        shapes: Of the weights, by their names in the spec.
    """

    kind: str
    suffix: str
    spec: RunSpec
    depth: int
    keeps: tuple[float, ...]
    expected: bool
    row_biases: bool
    shapes: tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True, eq=False)
class StackPlan:
    """A module's runs.

    Attributes:
        places: Layer by layer, the reverse direction after the forward one.
        sums: Of each layer, whether its inputs are added to its outputs outside of its runs.
        masks: How many masks a call draws a seed for.
        sizes: Widths of h and c (LSTM), or of h.
        weight_dropout: Probability of dropping a recurrent weight.
        draws: A call draws random numbers, those between layers not counted.
    """

    places: tuple[Place, ...]
    sums: tuple[bool, ...]
    masks: int
    sizes: tuple[int, ...]
    weight_dropout: float
    draws: bool


@functools.lru_cache(maxsize=_MOST_PLANS)
def stack_plan(facts: Facts, options: Options) -> StackPlan:
    """The runs of a module in a call with these options."""
    kind, cell = _cell(facts)
    directions = 2 if facts.bidirectional else 1
    masks = _masks(facts)
    places, sums = [], []
    depth = facts.input_size
    for layer in range(facts.num_layers):
        adds = facts.additions.residual and depth == cell.output_size * directions
        inside = adds and directions == 1
        sums.append(adds and not inside)
        for direction in range(directions):
            spec = RunSpec(
                cell, tuple(mask for mask, _ in masks), inside, options.lengths, options.resets, direction == 1,
                options.all_states,
            )  # fmt: skip
            suffix = "" if facts.single else f"_l{layer}" + ("_reverse" if direction else "")
            keeps = tuple(keep for _, keep in masks)
            row_biases = kind == "gru" and facts.additions.reset_after
            shapes = tuple((weight.name, weight.shape) for weight in cell.weights(depth))
            places.append(Place(kind, suffix, spec, depth, keeps, not facts.training, row_biases, shapes))
        depth = cell.output_size * directions
    dropout = facts.additions.weight_dropout if facts.training else 0.0
    sizes = (cell.output_size, cell.units) if kind == "lstm" else (cell.units,)
    drawn = len(masks) * len(places) * facts.training
    return StackPlan(tuple(places), tuple(sums), drawn, sizes, dropout, drawn > 0 or dropout > 0)


def _cell(facts: Facts) -> tuple[str, CellSpec]:
    units = facts.hidden_size
    layout: dict[str, Any] = {"joined_kernel": False, "use_bias": facts.bias, "transposed": True}
    norm: dict[str, Any] = {"layer_norm": True, "norm_epsilon": EPSILON} if facts.additions.layer_norm else {}
    if facts.mode == "LSTM":
        return "lstm", LSTMSpec(units, gate_order="ifjo", projection=facts.proj_size or None, **layout, **norm)
    if facts.mode == "GRU":
        return "gru", GRUSpec(units, reset_after=facts.additions.reset_after, **layout, **norm)
    return "rnn", RNNSpec(units, "relu" if facts.mode == "RNN_RELU" else "tanh", **layout, **norm)


def _masks(facts: Facts) -> list[tuple[MaskSpec, float]]:
    """The masks of each place with their keep probabilities, in the order in which a call draws their seeds."""
    given = facts.additions
    zone_h, zone_c = given.zoneout_pair()
    zones: tuple[tuple[MaskPlace, float], ...] = (
        ("zone_h", zone_h), ("zone_c", zone_c if facts.mode == "LSTM" else 0.0),
    )  # fmt: skip
    found = [(MaskSpec(place, True, True), 1.0 - rate) for place, rate in zones if rate > 0]
    if not facts.training:
        return found
    rates: tuple[tuple[MaskPlace, float], ...] = (
        ("input", given.input_dropout), ("output", given.output_dropout), ("h", given.state_dropout),
    )  # fmt: skip
    drops = [
        (MaskSpec(p, not given.variational, given.mask_per_row, given.mask_per_gate and p != "output"), 1.0 - rate)
        for p, rate in rates
        if rate > 0
    ]
    return found + drops


class Surroundings(NamedTuple):
    """What decides beside the runs which backend takes them."""

    dtype: torch.dtype
    device_type: str
    rows: int
    needs_grad: bool
    transforms: bool
    plain: bool
    autocast: bool
    asked: str | None
    only_steps: str
    threads: int


@functools.lru_cache(maxsize=_MOST_PLANS)
def choices_for(facts: Facts, options: Options, around: Surroundings) -> tuple[Choice, ...]:
    """What runs each place."""
    return tuple(_choice(place, around) for place in stack_plan(facts, options).places)


def _choice(place: Place, around: Surroundings) -> Choice:
    """As the weave chooses; where only single steps are left, torch's own layer comes first, as it does in torch.nn."""
    context = _context(place, around)
    if around.only_steps:
        steps = choose(place.spec, context, REFERENCE)
        return Choice(REFERENCE, steps.backend, 1, around.only_steps)
    found = choose(place.spec, context, around.asked, autocast=around.autocast)
    if around.asked is None and found.name == REFERENCE:
        fused = choose(place.spec, context, "torch")
        if fused.backend is not None:
            return Choice("torch", fused.backend, 1, f"{found.why.split('; torch:')[0]}; as torch.nn runs it")
    return with_remark(found, place.spec, context)


def choice_in_graph(place: Place, choice: Choice, around: Surroundings) -> Choice:
    """What runs a place in a graph, where outside of graphs it would be this."""
    return choose_in_graph(choice, place.spec, _context(place, around), around.asked)


def _context(place: Place, around: Surroundings) -> RunContext:
    return RunContext(
        around.dtype, around.device_type, 2, around.rows, place.depth, around.needs_grad, around.transforms,
        around.plain,
    )  # fmt: skip
