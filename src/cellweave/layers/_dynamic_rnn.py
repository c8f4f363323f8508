"""dynamic_rnn."""

from __future__ import annotations

from typing import Any

import torch

from cellweave import _nest
from cellweave._errors import ArgumentTypeError
from cellweave._types import DTypeLike, Nest
from cellweave.cells import require_rnn_cell
from cellweave.layers._sequence import (
    as_lengths,
    check_inputs,
    first_state,
    open_scope,
    run_for_variables,
    step_with_lengths,
    steps_to_run,
    take_back_late_steps,
    without_padding,
    zero_outputs,
)
from cellweave.scopes import VariableScope, recordable, running_loop


@recordable
def dynamic_rnn(
    cell: Any,
    inputs: Nest,
    sequence_length: Any = None,
    initial_state: Nest = None,
    dtype: DTypeLike = None,
    parallel_iterations: int | None = None,
    swap_memory: bool = False,
    time_major: bool = False,
    scope: str | VariableScope | None = None,
) -> tuple[Any, Any]:
    """Run a cell over a sequence.

    Rows past their length give zero outputs and keep their state, so the final state is that of the last valid step.
    Random masks are drawn for `min(T, max(1, longest row))` steps, in time order; one call is one session run.

    Args:
        cell: Any recurrent cell.
        inputs: `[B, T, ...]`, or `[T, B, ...]` if `time_major`; or a structure of such tensors.
        sequence_length: Steps per row, `[B]`, on any device; floats are truncated, values outside 0..T act as 0 or T.
            Default: every row has T steps.
        initial_state: State in the cell's structure, each leaf `[B, size]`; default: zeros of `dtype`.
        dtype: Dtype of the zero state; required without `initial_state`.
        parallel_iterations, swap_memory: Accepted for TF1 callers, without effect.
        time_major: Layout of inputs and outputs.
        scope: Variable scope; default "rnn".
    Returns:
        outputs, laid out as the inputs, `[B, T, output_size]`, and the final state.
    Raises:
        ArgumentTypeError: no cell; `initial_state` of another structure. ArgumentError: neither `initial_state` nor
            `dtype`, or a state of several dtypes. ShapeError: inputs of fewer than three axes, lengths or states that
            do not fit.
    Source: TF1 `tf.nn.dynamic_rnn`.
    """
    require_rnn_cell("dynamic_rnn", cell)
    if parallel_iterations is not None and not hasattr(parallel_iterations, "__index__"):
        raise ArgumentTypeError(f"dynamic_rnn: expected parallel_iterations as an int, got {parallel_iterations!r}.")
    steps, rows = check_inputs(inputs, "dynamic_rnn", time_major=time_major)
    device = _nest.flatten(inputs)[0].device
    lengths = as_lengths(sequence_length, rows, "dynamic_rnn")
    state = first_state(cell, initial_state, dtype, inputs, rows, "dynamic_rnn")
    if not time_major:
        inputs = _nest.map_structure(lambda leaf: leaf.transpose(0, 1), inputs)
    with open_scope(scope, "rnn"):
        outputs, state = _unroll(cell, inputs, state, lengths, steps, rows, device)
    if not time_major:
        outputs = _nest.map_structure(lambda leaf: leaf.transpose(0, 1), outputs)
    return outputs, state


def _unroll(
    cell: Any, inputs: Nest, state: Nest, lengths: torch.Tensor | None, steps: int, rows: int, device: torch.device
) -> tuple[Any, Any]:
    """Step by step over time-major inputs; outputs are time-major."""
    ran = steps_to_run(steps, lengths, at_least=1)
    active: torch.Tensor | None = None
    if lengths is not None:
        active = torch.arange(steps, device=device)[:, None] < lengths.to(device, non_blocking=True)
        inputs = without_padding(inputs, active)
    by_step = [leaf.unbind(0) for leaf in _nest.flatten(inputs)]
    columns: list[list[torch.Tensor]] = []
    structure: Any = None
    with running_loop(ran) as loop:
        for step in range(ran):
            loop.next_step()
            now = _nest.pack(inputs, [leaf[step] for leaf in by_step])
            here = None if active is None else active[step]
            structure, state = step_with_lengths(cell, now, state, here, "dynamic_rnn")
            columns.append(_nest.flatten(structure))
        take_back_late_steps(loop, steps, ran, lengths)
    if not columns:
        empty = _nest.map_structure(lambda leaf: leaf.new_zeros(leaf.shape[1:]), inputs)
        run_for_variables(cell, empty, state)
        return zero_outputs(cell, (0, rows), _nest.flatten(inputs)[0]), state
    stacked = [torch.stack(column) for column in zip(*columns, strict=True)]
    if ran < steps:
        stacked = [torch.cat([leaf, leaf.new_zeros(steps - ran, *leaf.shape[1:])]) for leaf in stacked]
    return _nest.pack(structure, stacked), state
