"""An unroll as a program of whole-sequence runs, where that gives what single steps give."""

from __future__ import annotations

from collections import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from cellweave import _nest
from cellweave._errors import BackendError
from cellweave._types import Nest, dtype_name
from cellweave.layers._autocast import in_dtype_of_weights
from cellweave.layers._readiness import has_variables, is_ready
from cellweave.layers._sequence import reverse_sequence, run_for_variables, take_back_late_steps, without_padding
from cellweave.layers._stepping import Task, padded, step_through
from cellweave.scopes import is_probing, running_loop, session_run
from cellweave.weave import (
    NOTHING,
    REFERENCE,
    Binding,
    Choice,
    Feed,
    LayerRun,
    Mapping,
    Plan,
    PlanRow,
    Program,
    StaticBinding,
    Stepping,
    asked_backend,
    autocast_is_on,
    choice_for,
    first_sites,
    is_transformed,
    needs_steps,
    plan_of,
    program_of,
    run_program,
    spec_of,
    static_program,
)
from cellweave.wrappers import preparing_streams

#: Ordinary tensors.
PLAIN = (torch.Tensor, torch.nn.Parameter)


@dataclass(frozen=True, eq=False)
class Survey:
    """What an unroll would do.

    Attributes:
        program: Its stages; None where the tensors themselves forbid one.
        reason: Why all of it runs step by step; "" where it does not.
        ready: All variables exist.
        feed: What the program would run on.
        choices: What runs each layer.
    """

    program: Program | None
    reason: str
    ready: bool = True
    feed: Feed | None = None
    choices: tuple[Choice, ...] = ()


def run_woven(cell: Any, task: Task, asked: str | None) -> tuple[Any, Any] | None:
    """Outputs `[T, B, O]` and final state by a program; None where only single steps can have it.

    Args:
        cell: Any recurrent cell.
        task: Its arguments.
        asked: The backend that has to run it; None: whichever is best.
    Raises:
        BackendError: the backend asked for cannot run a layer.
    """
    if is_probing() or not task.ran or not task.rows:
        return None
    task = in_dtype_of_weights(cell, task)
    return run_surveyed(cell, task, asked, survey(cell, task, asked))


def run_surveyed(cell: Any, task: Task, asked: str | None, found: Survey) -> tuple[Any, Any] | None:
    """As `run_woven`, of what was surveyed."""
    if asked is not None:
        _check_asked(task.where, asked, found)
    program, feed = found.program, found.feed
    if program is None or feed is None or found.reason:
        return None
    if task.static:
        return _run_static(cell, program, task, feed, asked, found)
    if found.ready and not program.loops:
        if not program.sites:
            return _run(program, task, feed, found.choices, None)
        with session_run():
            return _run(program, task, feed, found.choices, _bound(program, task, feed))
    with running_loop(task.ran) as loop:
        loop.next_step()
        if not found.ready:
            with preparing_streams():
                run_for_variables(cell, task.inputs[0], task.state)
            loop.next_step()
        outputs, state = _run(program, task, feed, found.choices, _bound(program, task, feed))
        take_back_late_steps(loop, task.steps, task.ran, task.lengths)
        return outputs, state


def survey(cell: Any, task: Task, asked: str | None) -> Survey:
    """What an unroll would do. Nothing is run, made or moved."""
    reason = obstacle(task)
    if reason:
        return Survey(None, reason)
    x, leaves = task.inputs, _nest.flatten(task.state)
    program = program_of(cell, x, leaves)
    ready = is_ready(cell) or (program.steps and has_variables(cell))
    reason = program.refusal or state_misfit(program, cell, task.state, task.rows)
    if reason:
        return Survey(program, reason, ready)
    if task.static:
        program = static_program(program)
        if program.steps:
            return Survey(program, next(s.reason for s in program.stages if isinstance(s, Stepping)), ready)
    if not ready and program.steps:
        return Survey(program, "its first call makes the variables of a layer that only runs step by step", ready)
    return survey_layers(program, task, leaves, asked, ready=ready)


def survey_layers(
    program: Program, task: Task, leaves: list[torch.Tensor], asked: str | None, *, ready: bool
) -> Survey:
    """What runs each layer of a program that may run."""
    x = task.inputs
    grad = torch.is_grad_enabled()
    if ready:
        wanted = x.requires_grad or any(isinstance(stage, Mapping) for stage in program.stages)
        for run in program.runs:
            weights = program.modules[run.node]().named_weights()
            reason = misfit(program.names[run.node], run, weights, x.dtype, x.device)
            if reason:
                return Survey(program, reason, ready)
            wanted = wanted or any(weight.requires_grad for weight in weights.values())
        fresh = () if task.reset_state is None else _nest.flatten(task.reset_state)
        grad = grad and (wanted or any(leaf.requires_grad for leaf in (*leaves, *fresh)))
    feed = _feed(program, task, leaves, grad, is_transformed())
    choices = tuple([choice_for(run, feed, asked) for run in program.runs])
    only = "" if any(choice.name != REFERENCE for choice in choices) else choices[0].why
    return Survey(program, only, ready, feed, choices)


def state_misfit(program: Program, cell: Any, state: Nest, rows: int) -> str:
    """Why the state that a cell has made in a way of its own is none that layers take; "" where they do."""
    if program.start_widths is not None:
        return ""  # zeros, or a state that was given and is checked
    made, sized = _nest.describe(state), _nest.describe(cell.state_size)
    if made != sized:
        return f"the state that it starts from is {made}, by its state_size {sized}"
    leaves = _nest.flatten(state)
    for run in program.runs:
        for piece in run.states:
            leaf, wanted = leaves[piece.leaf], (rows, program.leaf_widths[piece.leaf])
            if leaf is None or leaf.shape != wanted:
                got = None if leaf is None else list(leaf.shape)
                return f"the state that it starts from has a leaf {got}, by its state_size {list(wanted)}"
    return ""


def misfit(
    name: str, run: LayerRun, weights: abc.Mapping[str, torch.Tensor], dtype: torch.dtype, device: torch.device
) -> str:
    """Why a layer's weights are not those that its spec speaks of; "" where they are."""
    for weight, shape in run.weights:
        value = weights.get(weight)
        if value is None:
            return f"named_weights() of {name} has no {weight}"
        if value.shape != shape:
            return f"{weight} of {name} is {list(value.shape)}, by its spec {list(shape)}"
        if value.dtype != dtype or value.device != device:
            return f"{weight} of {name} differs from the inputs in dtype or device"
        if not (type(value) in PLAIN or torch.compiler.is_compiling()) or value.layout != torch.strided:
            return f"{weight} of {name} is not an ordinary dense tensor"
    return ""


def _feed(program: Program, task: Task, leaves: list[torch.Tensor], grad: bool, transforms: bool) -> Feed:
    x, ran, lengths = task.inputs, task.ran, task.lengths
    if lengths is not None:
        lengths = lengths.clamp(0, ran).to(x.device, non_blocking=True)
    turned = task.reverse and not all(isinstance(stage, LayerRun) for stage in program.stages)
    if lengths is not None and len(program.stages) > 1:
        x = without_padding(x, torch.arange(task.steps, device=x.device)[:, None] < lengths)
    if ran < task.steps:
        x = x[:ran]
    if turned:
        x = reverse_sequence(x, lengths)
    return Feed(
        x, leaves, lengths, None if task.resets is None else task.resets[:ran].to(x.device),
        None if task.reset_state is None else _nest.flatten(task.reset_state),
        task.reverse and not turned, grad, transforms, autocast_is_on(x.device.type),
    )  # fmt: skip


def _check_asked(where: str, asked: str, found: Survey) -> None:
    """Raise unless the backend asked for can run every layer."""
    reasons = [found.reason] if found.reason and not found.choices else []
    if found.program is not None and not reasons:
        chosen = iter(found.choices)
        for stage in found.program.stages:
            if isinstance(stage, Stepping):
                reasons.append(f"{found.program.names[stage.node]}: {stage.reason}")
            elif isinstance(stage, LayerRun):
                choice = next(chosen)
                if choice.backend is None:
                    reasons.append(f"{found.program.names[stage.node]}: {choice.why}")
    if reasons:
        raise BackendError(f"{where}: expected layers that {asked} can run, got {'; '.join(reasons)}.")


def _bound(program: Program, task: Task, feed: Feed) -> Binding:
    binding = Binding(program, task.rows, feed.x.dtype, feed.x.device, task.ran)
    binding.draw(first_sites(program))
    return binding


def _run_static(
    cell: Any, program: Program, task: Task, feed: Feed, asked: str | None, found: Survey
) -> tuple[Any, Any] | None:
    with session_run() as run:
        if not found.ready:
            with run.rehearsal(), preparing_streams():
                run_for_variables(cell, task.inputs[0], task.state)
        binding = StaticBinding(program, task.rows, feed.x.dtype, feed.x.device, task.ran)
        held = any(site.held for site in program.sites)
        if held and (run.loop is not None or not binding.streams_are_alike()):
            if asked is not None:
                reason = "each step draws masks of its own"
                raise BackendError(f"{task.where}: expected layers that {asked} can run, got {reason}.")
            return None
        binding.draw()
        return _run(program, task, feed, found.choices, binding)


def _run(
    program: Program, task: Task, feed: Feed, choices: Sequence[Choice], binding: Binding | None
) -> tuple[Any, Any]:
    def step(stage: Stepping, x: torch.Tensor, state: Nest, after_first: Callable[[], None]) -> tuple[Any, Any]:
        fresh = task.reset_state
        if fresh is not None:
            leaves = _nest.flatten(fresh)
            fresh = _nest.map_structure(lambda piece: piece.of(leaves), stage.part)
        part = replace(task, inputs=x, state=state, steps=task.ran, reset_state=fresh, resets=feed.resets)
        return step_through(program.modules[stage.node](), part, after_first)

    outputs, leaves = run_program(program, feed, choices, binding, step)
    if task.reverse and not feed.reverse:
        outputs = reverse_sequence(outputs, feed.lengths)
    return padded(outputs, task.steps), program.packing.pack(leaves)


def plan_for(cell: Any, task: Task) -> Plan:
    """The plan of an unroll. Nothing is run, made or moved."""
    asked = asked_backend()
    task = in_dtype_of_weights(cell, task)
    found = survey(cell, task, None if asked == REFERENCE else asked)
    program, reason = found.program, found.reason
    if asked == REFERENCE:
        reason = "asked for by use_backend"
    stepped = REFERENCE if asked in (None, REFERENCE) else NOTHING
    if program is None:
        return Plan((PlanRow("1", type(cell).__name__, "", stepped, 1, reason),))
    runs = program.runs
    choices = found.choices
    if asked == REFERENCE or not choices:
        choices = tuple(Choice(stepped, None, 1, reason) for _ in runs)
    options = [name for name in ("lengths", "resets") if getattr(task, name) is not None]
    feed = found.feed or _feed(program, task, _nest.flatten(task.state), False, False)
    return plan_of(program, [spec_of(run, feed) for run in runs], choices, ", ".join(options), stepped)


def obstacle(task: Task) -> str:
    """Why no program may run on these tensors, whatever the cell; "" for nothing."""
    x = task.inputs
    if not isinstance(x, torch.Tensor) or x.dim() != 3 or not x.is_floating_point():
        return "its inputs are not one floating tensor [B, T, D]"
    for leaf in (x, *_nest.flatten(task.state), *_nest.flatten(task.reset_state)):
        if leaf is None:
            continue
        if type(leaf) not in PLAIN or leaf.layout != torch.strided:
            return "it runs on tensors that are not ordinary dense ones"
        if leaf.dtype != x.dtype or leaf.device != x.device:
            return "its inputs and states differ in dtype or device"
    if task.dtype not in (None, x.dtype) and not autocast_is_on(x.device.type):
        return f"its outputs have to be {dtype_name(task.dtype)}, other than its inputs"
    return surroundings(x.device.type)


def surroundings(device_type: str) -> str:
    """What goes on around the call that only single steps are sure to honour; "" for nothing."""
    reason = needs_steps(device_type)
    if reason:
        return reason
    if torch.nn.modules.module._has_any_global_hook():  # type: ignore[no-untyped-call]
        return "hooks stand on all modules"
    return ""
