"""Running a cuDNN layer: place by place over whole sequences, each woven where that can be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from cellweave._errors import ArgumentError
from cellweave.layers._bidirectional_rnn import check_within
from cellweave.layers._graph_breaks import runs_outside_graphs
from cellweave.layers._sequence import steps_to_run
from cellweave.layers._stepping import Task
from cellweave.layers._unroll import unroll
from cellweave.layers._weaving import plan_for
from cellweave.scopes import session_run
from cellweave.specs import LSTMStateTuple
from cellweave.weave import Plan, PlanRow

if TYPE_CHECKING:
    from cellweave.layers._cudnn_rnn import CudnnRNN

#: `(h, c)` or `(h,)`, each `[L * D, B, H]`.
States = tuple[torch.Tensor, ...]
Result = tuple[torch.Tensor, States]


def run_layers(
    layer: CudnnRNN, x: torch.Tensor, states: States, lengths: torch.Tensor | None, dropping: bool
) -> Result:
    """Outputs `[T, B, D * H]` and the final states.

    Args:
        layer: A built layer.
        x: `[T, B, I]`.
        states: To start from.
        lengths: Steps per row, `[B]` int32.
        dropping: Whether dropout acts between the layers.
    """
    if torch.compiler.is_compiling():
        traced = _run_traced(layer, x, states, lengths, dropping)
        if traced is not None:
            return traced
    return _run_layers(layer, x, states, lengths, dropping)


def _run_layers(
    layer: CudnnRNN, x: torch.Tensor, states: States, lengths: torch.Tensor | None, dropping: bool
) -> Result:
    check_within(lengths, x.shape[0], layer.where)

    def run(x: torch.Tensor, places: Sequence[int]) -> list[tuple[torch.Tensor, Any]]:
        return [unroll(layer.cell_at(p, dropping), _task(layer, x, _state_at(states, p), lengths, p)) for p in places]

    with session_run():
        return _through(layer, x, dropping, run)  # type: ignore[no-any-return]


_run_layers = runs_outside_graphs(_run_layers)


def _task(layer: CudnnRNN, x: torch.Tensor, state: Any, lengths: torch.Tensor | None, place: int) -> Task:
    steps, rows = x.shape[0], x.shape[1]
    ran = steps_to_run(steps, lengths, at_least=1)
    return Task(layer.where, x, state, steps, rows, ran, lengths, reverse=bool(place % layer.num_dirs))


def _state_at(states: States, place: int) -> Any:
    """The state of a place, as its cell has it."""
    h = states[0][place]
    return LSTMStateTuple(states[1][place], h) if len(states) == 2 else h


def _through(
    layer: CudnnRNN,
    x: torch.Tensor,
    dropping: bool,
    run: Callable[[torch.Tensor, Sequence[int]], list[tuple[torch.Tensor, Any]] | None],
) -> Any:
    """All layers one after another; None where `run` gives that of one."""
    found: list[Any] = []
    for number in range(layer.num_layers):
        first = number * layer.num_dirs
        ran = run(x, range(first, first + layer.num_dirs))
        if ran is None:
            return None
        x = ran[0][0] if len(ran) == 1 else torch.cat([outputs for outputs, _ in ran], dim=2)
        if dropping and layer.drops_all and number < layer.num_layers - 1:
            x = torch.zeros_like(x)
        found += [state for _, state in ran]
    if isinstance(found[0], LSTMStateTuple):
        return x, (torch.stack([state.h for state in found]), torch.stack([state.c for state in found]))
    return x, (torch.stack(found),)


def _run_traced(
    layer: CudnnRNN, x: torch.Tensor, states: States, lengths: torch.Tensor | None, dropping: bool
) -> Result | None:
    """The same in compiled and exported code; None where no trace can have it."""
    from cellweave.layers._compiled import run_traced

    def run(x: torch.Tensor, places: Sequence[int]) -> list[tuple[torch.Tensor, Any]] | None:
        directions = [
            (layer.cell_at(place, dropping), _state_at(states, place), place % layer.num_dirs == 1) for place in places
        ]
        return run_traced(layer.where, directions, x, lengths, None, True, checked=True)

    return _through(layer, x, dropping, run)  # type: ignore[no-any-return]


# Calls without gradients


class _Refused(torch.autograd.Function):
    """Hands values on whose gradient nobody may ask for."""

    generate_vmap_rule = True

    @staticmethod
    def forward(where: str, count: int, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The first `count` tensors; the others are what a gradient would go to."""
        return tuple(tensor.view_as(tensor) for tensor in tensors[:count])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Remember who to name."""
        ctx.where = inputs[0]

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Refuse."""
        raise ArgumentError(
            f"{ctx.where}: expected a gradient through a call with training=True, got one through training=False. "
            "Call the layer with training=True; .eval() turns its dropout off."
        )


def refusing_gradients(where: str, result: Result, sources: Iterable[torch.Tensor]) -> Result:
    """The same values; a gradient from them to any of the sources raises ArgumentError."""
    wanting = [source for source in sources if source.requires_grad]
    if not wanting or torch.compiler.is_compiling():
        return result
    out, *states = _Refused.apply(where, 1 + len(result[1]), result[0], *result[1], *wanting)  # type: ignore[no-untyped-call]
    return out, tuple(states)


# Plans


def plan_of_layers(
    layer: CudnnRNN, x: torch.Tensor, states: States, lengths: torch.Tensor | None, dropping: bool
) -> Plan:
    """What `run_layers` would do, one row for each place. Nothing is run."""
    rows: list[PlanRow] = []
    for place in range(layer.num_layers * layer.num_dirs):
        task = _task(layer, x if place < layer.num_dirs else _inner(layer, x), _state_at(states, place), lengths, place)
        plan = plan_for(layer.cell_at(place, dropping), task)
        name = f"{type(layer).__name__} {layer.num_units}"
        rows += [replace(row, layer=str(place + 1) if row.layer else "", cell=name) for row in plan.rows]
    return Plan(tuple(rows))


def _inner(layer: CudnnRNN, x: torch.Tensor) -> torch.Tensor:
    """What stands for the inputs of an upper layer."""
    return x.new_empty(1).expand(x.shape[0], x.shape[1], layer.num_dirs * layer.num_units)
