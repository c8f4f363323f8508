"""stack_bidirectional_rnn."""

from __future__ import annotations

from typing import Any

from cellweave._types import DTypeLike
from cellweave.layers._bidirectional_rnn import check_layers, static_bidirectional_rnn
from cellweave.layers._graph_breaks import runs_outside_graphs
from cellweave.layers._sequence import open_scope
from cellweave.scopes import VariableScope, recordable, session_run, variable_scope


@runs_outside_graphs
@recordable
def stack_bidirectional_rnn(
    cells_fw: Any,
    cells_bw: Any,
    inputs: Any,
    initial_states_fw: Any = None,
    initial_states_bw: Any = None,
    dtype: DTypeLike = None,
    sequence_length: Any = None,
    scope: str | VariableScope | None = None,
) -> tuple[list[Any], tuple[Any, ...], tuple[Any, ...]]:
    """Stack bidirectional layers over a list of steps: `static_bidirectional_rnn` on `static_bidirectional_rnn`.

    Args:
        cells_fw, cells_bw: Lists of cells, one per layer, of equal lengths.
        inputs: A list of T tensors `[B, D]`.
        initial_states_fw, initial_states_bw: Lists of states, one per layer; default: zeros of `dtype`.
        dtype, sequence_length: As `static_bidirectional_rnn`.
        scope: Variable scope; default "stack_bidirectional_rnn", with "cell_<layer>/fw|bw" inside.
    Returns:
        A list of T outputs `[B, fw + bw]` of the last layer, and the final states per direction: tuples, one state a
        layer.
    Raises:
        As `stack_bidirectional_dynamic_rnn`.
    Source: TF1 `tf.contrib.rnn.stack_bidirectional_rnn`.
    """
    where = "stack_bidirectional_rnn"
    layers = check_layers(where, cells_fw, cells_bw, initial_states_fw, initial_states_bw)
    states_fw: list[Any] = []
    states_bw: list[Any] = []
    with session_run(), open_scope(scope, where):
        for layer in range(layers):
            with variable_scope(f"cell_{layer}") as layer_scope:
                inputs, state_fw, state_bw = static_bidirectional_rnn(
                    cells_fw[layer],
                    cells_bw[layer],
                    inputs,
                    None if initial_states_fw is None else initial_states_fw[layer],
                    None if initial_states_bw is None else initial_states_bw[layer],
                    dtype,
                    sequence_length,
                    layer_scope,
                )
            states_fw.append(state_fw)
            states_bw.append(state_bw)
    return inputs, tuple(states_fw), tuple(states_bw)
