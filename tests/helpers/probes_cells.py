"""Error probes of cells, MultiRNNCell and the base layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import cellweave as cw
from helpers.probes import probe

X = torch.ones(2, 4)


def _state(width: int = 3, batch: int = 2) -> torch.Tensor:
    return torch.zeros(batch, width)


def _pair(width: int = 3) -> cw.LSTMStateTuple:
    return cw.LSTMStateTuple(_state(width), _state(width))


@probe("abstract_state_size")
def _() -> Any:
    return cw.RNNCell().state_size


@probe("abstract_output_size")
def _() -> Any:
    return cw.RNNCell().output_size


@probe("multi_empty", says="MultiRNNCell")
def _() -> Any:
    return cw.MultiRNNCell([])


@probe("multi_not_list", says="MultiRNNCell.*GRUCell")
def _() -> Any:
    return cw.MultiRNNCell(cw.GRUCell(3))


@probe("multi_tuple_state_concat", says="MultiRNNCell.*state_is_tuple")
def _() -> Any:
    return cw.MultiRNNCell([cw.LSTMCell(3)], state_is_tuple=False)


@probe("multi_tensor_state")
def _() -> Any:
    return cw.MultiRNNCell([cw.GRUCell(3), cw.GRUCell(3)])(X, _state(6))


@probe("multi_short_state")
def _() -> Any:
    return cw.MultiRNNCell([cw.GRUCell(3), cw.GRUCell(3)])(X, (_state(),))


@probe("multi_list_state")
def _() -> None:
    out, state = cw.MultiRNNCell([cw.GRUCell(3), cw.GRUCell(3)])(X, [_state(), _state()])
    assert type(state) is tuple and len(state) == 2
    assert state[1] is out or torch.equal(state[1], out)


@probe("lstm_plain_tuple_state")
def _() -> None:
    cell = cw.LSTMCell(3)
    out, state = cell(X, (_state() + 1, _state()))
    assert isinstance(state, cw.LSTMStateTuple)
    again, _ = cell(X, cw.LSTMStateTuple(_state() + 1, _state()))
    assert torch.equal(out, again)


@probe("lstm_state_mixed_dtype_prop", says="float32.*float64")
def _() -> Any:
    return cw.LSTMStateTuple(_state(), _state().double()).dtype


@probe("gru_wrong_state_width", says=r"\[2, 3\].*\[2, 4\]")
def _() -> Any:
    return cw.GRUCell(3)(X, _state(4))


@probe("gru_wrong_batch", says=r"\[2, 3\].*\[5, 3\]")
def _() -> Any:
    return cw.GRUCell(3)(X, _state(batch=5))


@probe("cell_rank3_input", says=r"\[2, 5, 4\]")
def _() -> Any:
    return cw.LSTMCell(3)(torch.ones(2, 5, 4), _pair())


@probe("cell_unknown_depth")
def _() -> Any:
    with cw.Graph():
        return cw.LSTMCell(3)(cw.Input((2, None)), cw.LSTMStateTuple(cw.Input((2, 3)), cw.Input((2, 3))))


@probe("cell_int_input", says="int32")
def _() -> Any:
    ints = _state().int()
    return cw.LSTMCell(3)(X.int(), cw.LSTMStateTuple(ints, ints))


@probe("cell_int_dtype", says="int32")
def _() -> Any:
    return cw.LSTMCell(3, dtype="int32")


@probe("cell_mixed_dtypes", says="float32.*float64")
def _() -> Any:
    return cw.LSTMCell(3)(X, cw.LSTMStateTuple(_state().double(), _state().double()))


@probe("cell_bad_activation", says="no_such_function")
def _() -> Any:
    return cw.GRUCell(3, activation="no_such_function")


@probe("zero_state_none", says="None")
def _() -> Any:
    return cw.GRUCell(3).zero_state(None, "float32")


@probe("zero_state_matrix", says=r"\[1, 1\]|rank 2")
def _() -> Any:
    return cw.GRUCell(3).zero_state(torch.tensor([[2]]), "float32")


@probe("zero_state_vector")
def _() -> None:
    assert cw.GRUCell(3).zero_state(torch.tensor([2]), "float32").shape == (2, 3)
    assert cw.GRUCell(3).zero_state(torch.tensor([2, 5]), "float32").shape == (2, 5, 3)


@probe("initial_state_nothing")
def _() -> Any:
    return cw.GRUCell(3).get_initial_state()


@probe("initial_state_no_dtype", says="dtype")
def _() -> Any:
    return cw.GRUCell(3).get_initial_state(batch_size=2)


@probe("initial_state_batch_mismatch", says="(?s)4.*5|5.*4")
def _() -> Any:
    return cw.GRUCell(3).get_initial_state(inputs=torch.ones(4, 2), batch_size=5)


@probe("initial_state_dtype_mismatch", says="float64.*float32|float32.*float64")
def _() -> Any:
    return cw.GRUCell(3).get_initial_state(inputs=torch.ones(4, 2).double(), dtype="float32")


@probe("count_params_unbuilt", says="count_params")
def _() -> Any:
    return cw.GRUCell(3).count_params()


@probe("scope_name_unused", says="scope_name")
def _() -> Any:
    return cw.GRUCell(3).scope_name


def _built() -> cw.GRUCell:
    cell = cw.GRUCell(3)
    cell(X, _state())
    return cell


@probe("set_weights_wrong_count", says="expected 4 arrays, got 0")
def _() -> Any:
    return _built().set_weights([])


@probe("set_weights_wrong_shape", says=r"\[7, 6\].*\[1\]")
def _() -> Any:
    return _built().set_weights([np.zeros(1, np.float32)] * 4)


@probe("cell_reuse_true_missing", says="gru_cell/gates/kernel.*reuse=True")
def _() -> Any:
    return cw.GRUCell(3, reuse=True)(X, _state())
