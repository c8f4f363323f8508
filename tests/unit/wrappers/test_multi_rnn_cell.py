"""MultiRNNCell."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

import cellweave as cw
from helpers import nest

X = torch.linspace(-1.0, 1.0, 8).reshape(2, 4)
H = torch.linspace(-0.4, 0.4, 6).reshape(2, 3)
PAIR = cw.LSTMStateTuple(H, -H)


def _multi(**kwargs: Any) -> cw.MultiRNNCell:
    return cw.MultiRNNCell([cw.GRUCell(3), cw.LSTMCell(5, num_proj=2), cw.BasicRNNCell(4)], **kwargs)


def _state() -> Any:
    return (H, cw.LSTMStateTuple(torch.ones(2, 5), torch.ones(2, 2)), torch.ones(2, 4))


def test_cells_run_on_top_of_each_other() -> None:
    multi = _multi()
    out, state = multi(X, _state())
    a, s0 = multi.cells[0](X, _state()[0])
    b, s1 = multi.cells[1](a, _state()[1])
    c, s2 = multi.cells[2](b, _state()[2])
    assert torch.equal(out, c) and type(state) is tuple
    for got, want in zip(nest.flatten(state), nest.flatten((s0, s1, s2)), strict=True):
        assert torch.equal(got, want)
    assert nest.picture(state) == "(*, LSTMStateTuple(c=*, h=*), *)"


def test_sizes() -> None:
    assert _multi().state_size == (3, cw.LSTMStateTuple(5, 2), 4) and _multi().output_size == 4
    joined = cw.MultiRNNCell([cw.GRUCell(3), cw.LSTMCell(5, num_proj=2, state_is_tuple=False)], state_is_tuple=False)
    assert joined.state_size == 10 and joined.output_size == 2


@pytest.mark.parametrize("form", [tuple, list])
def test_a_direct_call_takes_lists_too(form: Any) -> None:
    multi = _multi()
    out, state = multi(X, form(_state()))
    assert torch.equal(out, multi(X, _state())[0]) and type(state) is tuple
    assert torch.equal(multi(X, form([*_state(), "ignored"]))[0], out)
    with pytest.raises(IndexError):
        multi(X, form(_state()[:2]))


def test_one_tensor_as_state() -> None:
    cells = [cw.GRUCell(3), cw.BasicLSTMCell(2, state_is_tuple=False)]
    joined, parted = cw.MultiRNNCell(cells, state_is_tuple=False), cw.MultiRNNCell(copy.deepcopy(cells))
    state = torch.linspace(-1, 1, 14).reshape(2, 7)
    out, new = joined(X, state)
    parted(X, (state[:, :3], state[:, 3:]))
    for mine, other in zip(cells, parted.cells, strict=True):
        other.set_weights(mine.get_weights())
    want, want_new = parted(X, (state[:, :3], state[:, 3:]))
    assert torch.equal(out, want) and torch.equal(new, torch.cat(want_new, dim=1))
    assert joined.zero_state(2, "float32").shape == (2, 7)
    with pytest.raises(cw.ShapeError, match=r"MultiRNNCell: expected state \[B, 7\], got \[2, 6\]"):
        joined(X, state[:, :6])
    with pytest.raises(cw.ShapeError, match=r"MultiRNNCell: expected state \[B, 7\], got tuple"):
        joined(X, (state[:, :3], state[:, 3:]))


def test_zero_state_asks_each_cell() -> None:
    class Sevens(cw.GRUCell):
        def zero_state(self, batch_size: Any, dtype: Any) -> Any:
            return super().zero_state(batch_size, dtype) + 7

    state = cw.MultiRNNCell([cw.LSTMCell(2), Sevens(3)]).zero_state(2, "float64")
    assert nest.picture(state) == "(LSTMStateTuple(c=*, h=*), *)" and type(state) is tuple
    assert (state[1] == 7).all() and not state[0].c.any() and state[1].dtype == torch.float64
    assert (cw.MultiRNNCell([Sevens(3)]).get_initial_state(X)[0] == 7).all()


def test_the_same_cell_twice_shares_its_weights() -> None:
    cell = cw.GRUCell(4)
    multi = cw.MultiRNNCell([cell, cell])
    multi(X, (torch.zeros(2, 4), torch.zeros(2, 4)))
    assert len(multi.weights) == 8 and multi.weights[0] is multi.weights[4]
    assert len(list(multi.parameters())) == 4
    assert list(cw.variable_names(multi)) == [
        f"multi_rnn_cell/cell_0/gru_cell/{suffix}"
        for suffix in ("gates/kernel", "gates/bias", "candidate/kernel", "candidate/bias")
    ]
    other = copy.deepcopy(multi)
    assert other.cells[0] is other.cells[1] is not cell


def test_the_same_cell_twice_with_another_depth() -> None:
    cell = cw.GRUCell(3)
    with pytest.raises(ValueError, match="4.*3|3.*4"):
        cw.MultiRNNCell([cell, cell])(X, (H, H))


def test_names_nest() -> None:
    inner = cw.MultiRNNCell([cw.BasicRNNCell(3), cw.DropoutWrapper(cw.BasicRNNCell(3))])
    multi = cw.MultiRNNCell([cw.ResidualWrapper(cw.BasicRNNCell(4)), inner])
    _out, state = cw.dynamic_rnn(multi, X[None], dtype="float32")
    paths = [
        "cell_0/basic_rnn_cell",
        "cell_1/multi_rnn_cell/cell_0/basic_rnn_cell",
        "cell_1/multi_rnn_cell/cell_1/basic_rnn_cell",
    ]
    expected = [f"rnn/multi_rnn_cell/{path}/{w}" for path in paths for w in ("kernel", "bias")]
    assert list(cw.variable_names(multi)) == expected
    assert multi.scope_name == "rnn/multi_rnn_cell" and nest.picture(state) == "(*, (*, *))"


def test_a_name_is_a_scope() -> None:
    multi = cw.MultiRNNCell([cw.BasicRNNCell(3)], name="stack")
    multi(X, (H,))
    assert list(cw.variable_names(multi)) == ["stack/cell_0/basic_rnn_cell/kernel", "stack/cell_0/basic_rnn_cell/bias"]
    assert multi.name == "stack" and multi.get_config() == {"name": "stack", "trainable": True, "dtype": multi.dtype}


def test_build_and_call_make_the_same() -> None:
    built, called = _multi(), _multi()
    built.build([None, 4])
    called(X, _state())
    for multi in (built, called):
        assert multi.built and multi.dtype == "float32"
        assert multi.count_params() == sum(w.numel() for w in multi.parameters())
    assert [tuple(w.shape) for w in built.weights] == [tuple(w.shape) for w in called.weights]
    assert cw.variable_names(built).keys() == cw.variable_names(called).keys()
    before = built.weights
    built(X, _state())
    assert all(a is b for a, b in zip(before, built.weights, strict=True))


def test_unbuilt() -> None:
    multi = _multi()
    assert not multi.built and multi.weights == [] and multi.dtype is None
    with pytest.raises(cw.ScopeError, match="MultiRNNCell.count_params"):
        multi.count_params()


def test_dtype_is_handed_to_the_cells() -> None:
    multi = _multi(dtype="float64")
    multi.build([None, 4])
    assert {w.dtype for w in multi.weights} == {torch.float64} and multi.dtype == "float64"


def test_dtype_follows_the_module() -> None:
    multi = _multi()
    multi.build([None, 4])
    multi.double()
    assert multi.dtype == "float64" == multi.cells[0].dtype


def test_weights_cell_by_cell_trainable_first() -> None:
    multi = cw.MultiRNNCell([cw.BasicRNNCell(3, trainable=False), cw.BasicRNNCell(3)])
    multi(X, (H, H))
    frozen, free = (list(cell.weights) for cell in multi.cells)
    expected = {"trainable_weights": free, "non_trainable_weights": frozen, "weights": [*free, *frozen]}
    for what, wanted in expected.items():
        got = getattr(multi, what)
        assert len(got) == len(wanted) and all(a is b for a, b in zip(got, wanted, strict=True))
    other = cw.MultiRNNCell([cw.BasicRNNCell(3)], trainable=False)
    other(X, (H,))
    assert other.trainable_weights == [] and len(other.non_trainable_weights) == 2


def test_weights_inside_v1_wrappers_are_not_its_own() -> None:
    """TF1's wrappers own nothing, and so neither does a stack of them; the parameters are there all the same."""
    multi = cw.MultiRNNCell([cw.DropoutWrapper(cw.BasicRNNCell(3)), cw.BasicRNNCell(3)])
    multi(X, (H, H))
    assert len(multi.weights) == 2 and len(list(multi.parameters())) == 4 and len(cw.variable_names(multi)) == 4


def test_set_weights_goes_to_the_cells() -> None:
    multi = _multi()
    multi(X, _state())
    multi.set_weights([torch.full_like(w, 0.5) for w in multi.weights])
    assert all((w == 0.5).all() for cell in multi.cells for w in cell.weights)


def test_state_dict_keys_and_round_trip() -> None:
    multi, other = _multi(), _multi()
    out, _ = multi(X, _state())
    assert "cells.1.projection_kernel" in multi.state_dict()
    other.load_state_dict(multi.state_dict())
    assert torch.equal(other(X, _state())[0], out)


def test_constructor_takes_any_list() -> None:
    for cells in ([cw.GRUCell(3)], (cw.GRUCell(3),), torch.nn.ModuleList([cw.GRUCell(3)])):
        assert cw.MultiRNNCell(cells).state_size == (3,)
    with pytest.raises(cw.ArgumentTypeError, match="MultiRNNCell.*GRUCell"):
        cw.MultiRNNCell(cw.GRUCell(3))
    with pytest.raises(cw.ArgumentError, match="MultiRNNCell: expected at least one cell"):
        cw.MultiRNNCell([])


def test_the_list_may_change_afterwards() -> None:
    cells = [cw.GRUCell(3)]
    multi = cw.MultiRNNCell(cells)
    cells.append(cw.GRUCell(9))
    assert multi.state_size == (3,)


def test_a_residual_of_another_width_in_the_middle() -> None:
    """What really reaches a cell decides its weights, whatever output sizes are reported."""
    wide = cw.ResidualWrapper(cw.GRUCell(3), lambda x, y: torch.cat([x, y], dim=1))
    multi = cw.MultiRNNCell([wide, cw.GRUCell(2)])
    multi(X, (H, torch.zeros(2, 2)))
    assert multi.cells[1].gates_kernel.shape == (7 + 2, 4)


@pytest.mark.parametrize("nothing", [None, [], (), {}, "", 0], ids=repr)
def test_nothing_at_all_is_no_cell(nothing: Any) -> None:
    with pytest.raises(cw.ArgumentError, match="MultiRNNCell: expected at least one cell"):
        cw.MultiRNNCell(nothing)


def test_a_frozen_stack_lists_what_its_cells_train_first() -> None:
    stack = cw.MultiRNNCell([cw.GRUCell(3, trainable=False), cw.LSTMCell(2)])
    stack.build([None, 4])
    stack.trainable = False
    gru, lstm = (cell.weights for cell in stack.cells)
    assert [id(weight) for weight in stack.weights] == [id(weight) for weight in (*lstm, *gru)]


@pytest.mark.parametrize("thing", [torch.nn.GRUCell(3, 3), cw.GRUCell, None])
def test_only_cells(thing: Any) -> None:
    with pytest.raises(cw.ArgumentTypeError, match=r"^MultiRNNCell cells\[1\]: expected a recurrent cell, got"):
        cw.MultiRNNCell([cw.GRUCell(3), thing])
