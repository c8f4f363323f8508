"""Plans for compiled code: what a trace has to know of a composition, in constants."""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass, field
from typing import Any, get_args

import torch
from torch import nn
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing

from cellweave import _nest
from cellweave.cells import cell_of_number
from cellweave.layers._readiness import is_ready
from cellweave.layers._weaving import misfit
from cellweave.ops.common import RunContext
from cellweave.ops.common._run_text import RunText, run_to_text
from cellweave.specs import CellSpec, GRUSpec, LSTMSpec, RunSpec
from cellweave.weave import (
    IN_GRAPHS,
    Adding,
    Choice,
    LayerRun,
    Placed,
    Program,
    asked_backend,
    choose,
    choose_in_graph,
    graph_obstacle,
    is_transformed,
    plan_program,
    spec_with,
)

#: Rows of a batch that the number of threads is chosen for: a trace does not know its own.
_ROWS = 16

Path = tuple[Any, ...]


@dataclass(eq=False)
class TracedLayer:
    """One layer, as `LayerRun` has it.

    Attributes:
        source, target: Numbers of the sequences read and written.
        path: From the composition to the cell: "cell", or the number of a stack's cell.
        kind: "rnn", "gru" or "lstm".
        spec: What runs; an object of its own, for dynamo sees a constant otherwise than what a module holds.
        choice: Whose backend runs it, in how many threads.
        weights: Their names, in the order in which operators take them.
        text: The run's spec.
        first_mask, last_mask: Its rows among the claimed masks, the last not included.
        noises: Path of a wrapper, and the name there, of each noise that a wrapper holds.
        states: (leaf, start, stop) of each state; start -1: the whole leaf.
    """

    source: int
    target: int
    path: Path
    kind: str
    spec: RunSpec
    choice: Choice
    weights: tuple[str, ...]
    text: RunText
    first_mask: int
    last_mask: int
    noises: tuple[tuple[Path, str], ...]
    states: tuple[tuple[int, int, int], ...]


@dataclass(eq=False)
class TracedPlan:
    """A composition.

    Attributes:
        number: By which the operator that claims masks finds it.
        reason: Why no trace can have it; "" where one can.
        dtype, device: Of its inputs.
        draws: Random masks act.
        depth: Columns of its inputs.
        widths: Of its state's leaves.
        starts_from_zeros: Without a state to start from, that is what it starts from.
        layers: In the order in which they run.
        sums: Before each layer, and after the last: (source, other, target) of sums of sequences.
        pieces: For each leaf of the new state, (layer, which of its states) of its columns, in order.
        result: Number of the sequence that is the output.
        program: What the layers were made of.
        masks: Where its masks act, layer after layer.
    """

    number: int = 0
    reason: str = ""
    dtype: torch.dtype = torch.float32
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    draws: bool = False
    depth: int = 0
    widths: list[int] = field(default_factory=list)
    starts_from_zeros: bool = False
    layers: list[TracedLayer] = field(default_factory=list)
    sums: list[list[tuple[int, int, int]]] = field(default_factory=list)
    pieces: list[list[tuple[int, int]]] = field(default_factory=list)
    result: int = 0
    program: Program | None = None
    masks: list[Placed] = field(default_factory=list)


_by_number: list[TracedPlan] = []


def plan_of_number(number: int) -> TracedPlan:
    """A plan that a trace was given."""
    return _by_number[number]


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def read_by_spec(number: int) -> tuple[tuple[str, Any], ...]:
    """Names and values of plain attributes that the code of a cell's `spec()` names: no trace need follow that code."""
    cell = cell_of_number(number)
    code = getattr(getattr(type(cell), "spec", None), "__code__", None)
    found = [(name, inspect.getattr_static(cell, name, None)) for name in (() if code is None else code.co_names)]
    return tuple((name, value) for name, value in found if isinstance(value, str | int | float))


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def traced_plan(
    facts: tuple[Any, ...], dtype: torch.dtype, device: torch.device, grad: bool, options: tuple[bool, bool, bool]
) -> TracedPlan:
    """The plan of a composition for a trace.

    Args:
        facts: What the trace read of each module, which it then guards: its number, mode and hooks; the root first.
        dtype, device: Of the inputs.
        grad: A gradient may be asked for.
        options: Lengths, resets, reverse.
    """
    with unset_fake_temporarily(), disable_proxy_modes_tracing():
        cell = cell_of_number(facts[0][0])
        if cell is None:
            return TracedPlan(reason="it is no cellweave cell")
        plan = _plan(cell, dtype, device, grad, options)
    plan.number = len(_by_number)
    _by_number.append(plan)
    return plan


def _plan(
    cell: Any, dtype: torch.dtype, device: torch.device, grad: bool, options: tuple[bool, bool, bool]
) -> TracedPlan:
    plan = TracedPlan(dtype=dtype, device=device, draws=draws_masks(cell))
    if not is_ready(cell):
        plan.reason = "its variables are not made yet: call it once before"
        return plan
    if asked_backend() not in (None, *IN_GRAPHS):
        plan.reason = f"use_backend asks for {asked_backend()}"
        return plan
    plan.depth = _depth_of(cell)
    if any(getattr(module, "has_own_visitor", False) for module in cell.modules()):
        plan.reason = "a visitor of the caller's looks at its states"
        return plan
    leaves = [None] * len(_nest.flatten(cell.state_size))
    program, _ = plan_program(cell, plan.depth, dtype, device, leaves)
    plan.program, plan.widths = program, program.leaf_widths
    plan.starts_from_zeros = program.start_widths is not None
    plan.reason = program.refusal or _untraceable(program)
    if not plan.reason:
        _add_layers(
            plan, program, cell, RunContext(dtype, device.type, 2, _ROWS, plan.depth, grad, is_transformed()), options
        )
    return plan


def draws_masks(cell: Any) -> bool:
    """Whether a wrapper in a composition draws random masks."""
    return any(any(module.acting()[:3]) for module in cell.modules() if hasattr(module, "acting"))


def _depth_of(cell: Any) -> int:
    """Columns of a composition's inputs, by the weights of the first cell that reads them; 0 where they do not tell."""
    inner = getattr(cell, "cells", None)
    if inner is not None:
        return _depth_of(inner[0])
    inner = getattr(cell, "cell", None)
    if inner is not None:
        return _depth_of(inner)
    if not callable(getattr(cell, "named_weights", None)) or not callable(getattr(cell, "spec", None)):
        return 0
    spec = cell.spec()
    if not isinstance(spec, get_args(CellSpec)):
        return 0
    rows = cell.named_weights()[spec.weights(1)[0].name].shape[0]
    return rows - (spec.output_size if spec.joined_kernel else 0)  # type: ignore[no-any-return]


def _untraceable(program: Program) -> str:
    for stage in program.stages:
        if not isinstance(stage, LayerRun | Adding):
            return getattr(stage, "reason", "a mask stands outside of its layers")
        if isinstance(stage, LayerRun) and any(placed.columns is not None for placed in stage.masks):
            return "a mask spans several states in one tensor"
    return ""


def _add_layers(
    plan: TracedPlan, program: Program, cell: Any, context: RunContext, options: tuple[bool, bool, bool]
) -> None:
    """Put the stages of a program into a plan; a reason, where a layer is not to be had."""
    paths = dict(_paths(cell, ()))
    plan.sums.append([])
    for stage in program.stages:
        plan.result = stage.target
        if isinstance(stage, Adding):
            plan.sums[-1].append((stage.source, stage.other, stage.target))
            continue
        if not isinstance(stage, LayerRun):
            continue
        module, spec = program.modules[stage.node](), spec_with(stage, *options)
        asked = asked_backend()
        choice = choose_in_graph(choose(spec, context, asked), spec, context, asked)
        reason = misfit(program.names[stage.node], stage, module.named_weights(), context.dtype, _device_of(module))
        plan.reason = reason or graph_obstacle(choice, spec, context.dtype)
        if plan.reason:
            return
        kind = "lstm" if isinstance(spec.cell, LSTMSpec) else "gru" if isinstance(spec.cell, GRUSpec) else "rnn"
        first = len(plan.masks)
        plan.masks += stage.masks
        plan.layers.append(
            TracedLayer(
                stage.source, stage.target, paths[id(module)], kind, copy.deepcopy(spec), choice,
                tuple(weight.name for weight in spec.cell.weights(1)), run_to_text(kind, spec),
                first, len(plan.masks), _noises(program, stage.masks, paths),
                tuple((p.leaf, -1 if p.whole else p.start or 0, p.stop or 0) for p in stage.states),
            )
        )  # fmt: skip
        plan.sums.append([])
    states = [(piece, (n, which)) for n, run in enumerate(program.runs) for which, piece in enumerate(run.states)]
    for parts in program.leaf_pieces:
        plan.pieces.append([place for part in parts for piece, place in states if piece == part])


def _device_of(module: Any) -> torch.device:
    return next(iter(module.named_weights().values())).device  # type: ignore[no-any-return]


def _noises(program: Program, masks: list[Placed], paths: dict[int, Path]) -> tuple[tuple[Path, str], ...]:
    """Where the noise of masks lies that wrappers drew when they were made."""
    found = []
    for placed in masks:
        site = program.sites[placed.site]
        wrapper = program.modules[program.occurrences[site.occurrence]]()
        if not site.per_step and getattr(wrapper, "shares_streams", False):
            found.append((paths[id(wrapper)], f"noise_{site.kind}_{site.index}"))
    return tuple(found)


def _paths(module: Any, path: Path) -> list[tuple[int, Path]]:
    """Ways from a composition to the modules in it."""
    found = [(id(module), path)]
    cells, cell = getattr(module, "cells", None), getattr(module, "cell", None)
    if isinstance(cells, nn.ModuleList):
        for number, inner in enumerate(cells):
            found += _paths(inner, (*path, number))
    elif isinstance(cell, nn.Module):
        found += _paths(cell, (*path, "cell"))
    return found
