"""Running a program: its stages one after another, each over the whole sequence."""

from __future__ import annotations

from collections import abc
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from cellweave import _nest
from cellweave._errors import BackendError
from cellweave.ops.common import LayerCall, RunContext, apply_mask, without_padding
from cellweave.specs import RunSpec
from cellweave.weave._binder import Binding
from cellweave.weave._choice import Choice, choose
from cellweave.weave._remarks import with_remark
from cellweave.weave._stages import Adding, LayerRun, Mapping, Masking, Program, Stepping
from cellweave.weave._state_parts import Piece

#: Runs a layer step by step: (stage, its inputs, its state, what to do after the first step) -> (outputs, state).
StepRunner = Callable[[Stepping, torch.Tensor, Any, Callable[[], None]], tuple[Any, Any]]
#: Choices that are kept per layer; more sizes than this in one process start the table anew.
_MOST_CHOICES = 256


class Feed(NamedTuple):
    """What a program runs on, time major.

    Attributes:
        x: Inputs `[T, B, I]`.
        leaves: The state's.
        lengths: Steps per row, `[B]` int32 on x's device, each in 0..T.
        resets: `[T, B]` bool; with `reset_leaves` (None: zeros) as the state's leaves.
        reverse: Rows are read backwards.
        needs_grad: A gradient may be asked for.
        transforms: A transform of `torch.func` or forward-mode differentiation is active.
        autocast: `torch.autocast` is on for x's device.
    """

    x: torch.Tensor
    leaves: Sequence[torch.Tensor]
    lengths: torch.Tensor | None = None
    resets: torch.Tensor | None = None
    reset_leaves: Sequence[torch.Tensor] | None = None
    reverse: bool = False
    needs_grad: bool = False
    transforms: bool = False
    autocast: bool = False


def spec_of(run: LayerRun, feed: Feed) -> RunSpec:
    """The run's spec with the options of this call."""
    key = (feed.lengths is not None, feed.resets is not None, feed.reverse)
    found = run.variants.get(key)
    if found is None:
        found = run.variants[key] = spec_with(run, *key)
    return found


def spec_with(run: LayerRun, lengths: bool, resets: bool, reverse: bool) -> RunSpec:
    """The run's spec with the options of a call."""
    return RunSpec(run.spec.cell, tuple(m.spec for m in run.masks), run.spec.residual, lengths, resets, reverse)


def choice_for(run: LayerRun, feed: Feed, asked: str | None) -> Choice:
    """What runs a layer in this call."""
    x = feed.x
    steps, rows, _ = x.shape
    key = (
        x.dtype, x.device.type, steps, rows, feed.needs_grad, feed.transforms, feed.autocast, asked,
        feed.lengths is None, feed.resets is None, feed.reverse, torch.get_num_threads(),
    )  # fmt: skip
    found: Choice | None = run.choices.get(key)
    if found is None:
        if len(run.choices) >= _MOST_CHOICES:
            run.choices.clear()
        context = RunContext(x.dtype, x.device.type, steps, rows, run.depth, feed.needs_grad, feed.transforms)
        spec = spec_of(run, feed)
        found = run.choices[key] = with_remark(choose(spec, context, asked, autocast=feed.autocast), spec, context)
    return found


def run_program(
    program: Program, feed: Feed, choices: Sequence[Choice], binding: Binding | None, step: StepRunner
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Run all stages.

    Args:
        program: The composition.
        feed: What it runs on.
        choices: What runs each layer, in the order of the program's layers.
        binding: Its masks; None where it has none. Sites behind a layer that runs step by step are drawn after that
            layer's first step.
        step: Runs such a layer.
    Returns:
        outputs `[T, B, O]` and the leaves of the new state.
    """
    sequences: dict[int, torch.Tensor] = {0: feed.x}
    leaves = list(feed.leaves)
    parts: dict[Piece, torch.Tensor] = {}

    def keep(pieces: Sequence[Piece], values: Sequence[torch.Tensor]) -> None:
        for piece, value in zip(pieces, values, strict=True):
            if piece.whole:
                leaves[piece.leaf] = value
            else:
                parts[piece] = value

    chosen = iter(choices)
    target = 0
    for stage in program.stages:
        target = stage.target
        if isinstance(stage, LayerRun):
            sequences[target], state = run_layer(program, stage, sequences[stage.source], feed, next(chosen), binding)
            keep(stage.states, state)
        elif isinstance(stage, Stepping):
            after = _drawing(program, stage, binding)
            state = _nest.map_structure(lambda piece: piece.of(feed.leaves), stage.part)
            sequences[target], state = step(stage, sequences[stage.source], state, after)
            keep(_nest.flatten(stage.part), _nest.flatten(state))
        elif isinstance(stage, Adding):
            sequences[target] = sequences[stage.source] + sequences[stage.other]
        elif isinstance(stage, Mapping):
            sequences[target] = _mapped(program, stage, sequences, feed)
        else:
            sequences[target] = _masked(stage, sequences[stage.source], binding)
    if parts:
        for number, pieces in enumerate(program.leaf_pieces):
            if not pieces[0].whole:
                leaves[number] = torch.cat([parts[piece] for piece in pieces], dim=1)
    return sequences[target], leaves


def run_layer(
    program: Program,
    run: LayerRun,
    x: torch.Tensor,
    feed: Feed,
    choice: Choice,
    binding: Binding | None,
    weights: abc.Mapping[str, torch.Tensor] | None = None,
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """Outputs `[T, B, O]` of one of a program's layers, and its state as `run.states` has it.

    Args:
        weights: The layer's `named_weights()`; None: ask for them.
    """
    masks = () if binding is None else binding.masks(run.masks)
    fresh = feed.reset_leaves
    call = LayerCall(
        spec_of(run, feed), x, tuple([piece.of(feed.leaves) for piece in run.states]),
        program.modules[run.node]().named_weights() if weights is None else weights, masks, feed.lengths, feed.resets,
        None if fresh is None else tuple([piece.of(fresh) for piece in run.states]), choice.threads,
        choice.memo,
    )  # fmt: skip
    if choice.backend is None:
        raise BackendError(f"weave: expected a backend for {program.names[run.node]}, got none. {choice.why}.")
    found = choice.backend.run(call)
    return found.outputs, found.state


def first_sites(program: Program) -> int:
    """How many mask sites are drawn before anything runs: those before the first layer that runs step by step."""
    return next((stage.events for stage in program.stages if isinstance(stage, Stepping)), len(program.sites))


def _drawing(program: Program, stage: Stepping, binding: Binding | None) -> Callable[[], None]:
    """Draws the sites behind a layer that runs step by step, up to the next such layer."""
    behind = program.stages[program.stages.index(stage) + 1 :]
    sites = next((other.events for other in behind if isinstance(other, Stepping)), None)
    return lambda: None if binding is None else binding.draw(sites)


def _mapped(program: Program, stage: Mapping, sequences: dict[int, torch.Tensor], feed: Feed) -> torch.Tensor:
    """The wrapper's map over all steps; zeros past a row's end, as single steps give."""
    module, x = program.modules[stage.node](), sequences[stage.source]
    y = module.map_inputs(x) if stage.other is None else module.map_outputs(sequences[stage.other], x)
    return without_padding(y, feed.lengths)


def _masked(stage: Masking, x: torch.Tensor, binding: Binding | None) -> torch.Tensor:
    for mask in () if binding is None else binding.masks(stage.masks):
        x = apply_mask(x, mask)
    return x
