"""Cells in TF1's oldest style: `__call__` written by hand, scopes opened inside, no call of the base constructor."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch

import cellweave as cw


class OldCell(cw.RNNCell):
    """As in code written before TF 1.2."""

    def __init__(self, units: int) -> None:
        self._units = units

    @property
    def state_size(self) -> int:
        return self._units

    @property
    def output_size(self) -> int:
        return self._units

    def __call__(self, inputs: Any, state: Any, scope: Any = None) -> Any:
        with cw.variable_scope(scope or type(self).__name__):
            kernel = cw.get_variable("Matrix", [inputs.shape[1] + self._units, self._units])
            with cw.variable_scope("Bias"):
                bias = cw.get_variable("b", [self._units], initializer=cw.initializers.ones_initializer())
        new = torch.tanh(torch.cat([inputs, state], 1) @ kernel + bias)
        return new, new


class Doubled(OldCell):
    """Calls the class above by hand."""

    def __call__(self, inputs: Any, state: Any, scope: Any = None) -> Any:
        output, new_state = super().__call__(inputs, state, scope)
        return 2 * output, new_state


NAMES = ["rnn/OldCell/Matrix", "rnn/OldCell/Bias/b"]


@pytest.mark.parametrize("in_store", [False, True])
def test_owns_its_variables_over_steps_and_runs(in_store: bool) -> None:
    with cw.VariableStore() if in_store else nullcontext():
        cell = OldCell(3)
        inputs = torch.randn(2, 4, 5)
        first, _ = cw.dynamic_rnn(cell, inputs, dtype="float32")
        again, _ = cw.dynamic_rnn(cell, inputs, dtype="float32")
    assert torch.equal(first, again)
    assert list(cw.variable_names(cell)) == NAMES
    assert [tuple(p.shape) for p in cell.parameters()] == [(8, 3), (3,)]
    first.sum().backward()
    assert all(p.grad is not None for p in cell.parameters())


def test_steps_by_the_written_equation() -> None:
    cell = OldCell(3)
    x, h = torch.randn(2, 5), torch.randn(2, 3)
    out, new = cell(x, h)
    kernel, bias = cell.parameters()
    torch.testing.assert_close(out, torch.tanh(torch.cat([x, h], 1) @ kernel + bias))
    assert out is new
    assert list(cw.variable_names(cell)) == ["OldCell/Matrix", "OldCell/Bias/b"]


def test_inside_wrappers_and_static_rnn() -> None:
    stack = cw.MultiRNNCell([cw.DropoutWrapper(OldCell(3), output_keep_prob=0.5), OldCell(3)])
    cw.static_rnn(stack, [torch.randn(2, 4)] * 3, dtype="float32")
    assert list(cw.variable_names(stack)) == [
        f"rnn/multi_rnn_cell/cell_{i}/OldCell/{suffix}" for i in (0, 1) for suffix in ("Matrix", "Bias/b")
    ]


def test_a_subclass_may_call_the_class_above() -> None:
    cell = Doubled(3)
    out, new = cell(torch.randn(2, 5), torch.zeros(2, 3))
    torch.testing.assert_close(out, 2 * new)
    assert list(cw.variable_names(cell)) == ["Doubled/Matrix", "Doubled/Bias/b"]


def test_two_such_cells_in_one_scope_of_a_store_collide() -> None:
    with cw.VariableStore():
        cw.dynamic_rnn(OldCell(3), torch.randn(2, 4, 5), dtype="float32")
        with pytest.raises(cw.ScopeError, match="rnn/OldCell/Matrix"):
            cw.dynamic_rnn(OldCell(3), torch.randn(2, 4, 5), dtype="float32")


def test_recorded_in_a_graph() -> None:
    with cw.Graph():
        inputs = cw.Input((None, 4, 5))
        cell = OldCell(3)
        outputs, _ = cw.dynamic_rnn(cell, inputs, dtype="float32")
        model = cw.Model(inputs, outputs)
    x = torch.randn(2, 4, 5)
    torch.testing.assert_close(model(x), cw.dynamic_rnn(cell, x, dtype="float32")[0])
    assert list(cw.variable_names(cell)) == NAMES


def test_a_failing_first_call_leaves_nothing() -> None:
    cell = OldCell(3)
    with pytest.raises(RuntimeError):
        cell(torch.randn(2, 5), torch.zeros(1, 3))
    assert list(cell.parameters()) == []
    cell(torch.randn(2, 6), torch.zeros(2, 3))
    assert next(cell.parameters()).shape == (9, 3)


def test_a_failing_call_restores_the_counts_of_the_store_that_it_saw() -> None:
    """Also where a layer inside was called in a store of its own, which is closed again when the call fails."""
    inner_store = cw.VariableStore()

    class Outer(cw.RNNCell):
        state_size = output_size = 3

        def call(self, inputs: Any, state: Any) -> Any:
            with inner_store:
                cw.GRUCell(3)(inputs, state)
            raise ValueError("after the inner call")

    with cw.VariableStore() as store:
        cw.GRUCell(3)(torch.randn(2, 5), torch.zeros(2, 3))
        counts = dict(store.scope_counts)
        with pytest.raises(ValueError, match="after the inner call"):
            Outer()(torch.randn(2, 5), torch.zeros(2, 3))
        assert store.scope_counts == counts
    assert inner_store.variables == {}
    assert inner_store.scope_counts == {}
