"""A first call or build that fails leaves nothing half-made: no weights, scope, store entries, counts or dtype."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

import cellweave as cw

N = 3
X = torch.linspace(-1.0, 1.0, 8).reshape(2, 4)
H = torch.zeros(2, N)
SEQUENCE = X[:, None].expand(2, 5, 4)
SUFFIXES = ["gates/kernel", "gates/bias", "candidate/kernel", "candidate/bias"]


class Failing(cw.RNNCell):
    """Makes one variable, then fails as long as it is told to."""

    state_size = output_size = N
    error: BaseException | None = None

    def call(self, inputs: torch.Tensor, state: torch.Tensor) -> Any:
        w = cw.get_variable("w", [inputs.shape[1], N])
        if self.error is not None:
            raise self.error
        return inputs @ w + cw.get_variable("b", [N]) + state, state


def _bad_initializer(shape: Any, dtype: Any) -> torch.Tensor:
    raise KeyError("initializer")


FAILURES: dict[str, tuple[Callable[[], Any], Callable[[Any], Any], type[BaseException]]] = {
    "rank": (lambda: cw.GRUCell(N), lambda cell: cell(X[None], H), cw.ShapeError),
    "state width": (lambda: cw.GRUCell(N), lambda cell: cell(X, torch.zeros(2, 7)), cw.ShapeError),
    "state dtype": (lambda: cw.GRUCell(N), lambda cell: cell(X, H.double()), cw.DTypeError),
    "dtype": (lambda: cw.GRUCell(N), lambda cell: cell(X.long(), H), cw.ArgumentError),
    "build": (lambda: cw.GRUCell(N), lambda cell: cell.build([2, None]), cw.ShapeError),
    "scope": (lambda: cw.GRUCell(N), lambda cell: cell(X, H, scope=5), cw.ArgumentTypeError),
    "second weight": (
        lambda: cw.GRUCell(N, bias_initializer=_bad_initializer),
        lambda cell: cell(X, H),
        KeyError,
    ),
    "in call": (lambda: _failing(KeyError()), lambda cell: cell(X, H), KeyError),
    "interrupt": (lambda: _failing(KeyboardInterrupt()), lambda cell: cell(X, H), KeyboardInterrupt),
}


def _failing(error: BaseException) -> Any:
    cell = Failing()
    cell.error = error
    return cell


def _mend(cell: Any) -> Any:
    cell.error = None
    cell._bias_initializer = None
    return cell


def _assert_untouched(cell: Any) -> None:
    assert list(cell.parameters()) == cell.weights == []
    assert list(cell.state_dict()) == []
    assert (cell.built, cell.dtype) == (False, None)
    with pytest.raises(cw.ScopeError):
        _ = cell.scope_name


@pytest.mark.parametrize("kind", FAILURES)
class TestOneCell:
    def test_without_a_store(self, kind: str) -> None:
        make, fail, error = FAILURES[kind]
        cell = make()
        for _ in range(2):
            with pytest.raises(error), cw.variable_scope("first"):
                fail(cell)
            _assert_untouched(cell)
        assert cw.get_variable_scope().name == ""
        with cw.variable_scope("second"):
            _mend(cell)(X, H)
        assert cell.dtype == "float32"
        assert all(name.startswith(f"second/{cell.name[:-2]}/") for name in cw.variable_names(cell))

    def test_in_a_store(self, kind: str) -> None:
        make, fail, error = FAILURES[kind]
        with cw.VariableStore() as store:
            cell = make()
            with pytest.raises(error):
                fail(cell)
            assert store.variables == {}
            _assert_untouched(cell)
            _mend(cell)(X, H)
            assert cell.scope_name == cell.name[:-2]  # no `_1`: the failed call took no name
            assert list(store.variables) == list(cw.variable_names(cell))

    def test_another_cell_takes_the_name(self, kind: str) -> None:
        make, fail, error = FAILURES[kind]
        with cw.VariableStore() as store:
            cell = make()
            with pytest.raises(error):
                fail(cell)
            other = type(cell)(N) if not isinstance(cell, Failing) else Failing()
            other(X, H)
            assert not any("_1/" in name for name in store.variables)


def test_the_dtype_of_a_failed_call_is_forgotten() -> None:
    cell = cw.GRUCell(N)
    with pytest.raises(cw.ShapeError):
        cell(X, torch.zeros(2, 7))
    cell(X.double(), H.double())
    assert cell.dtype == "float64"


class TestStacks:
    """An error above cells that had succeeded already."""

    @pytest.mark.parametrize("store", [False, True])
    def test_cells_below_the_failing_one(self, store: bool) -> None:
        stack = cw.MultiRNNCell([cw.GRUCell(N), cw.DropoutWrapper(cw.GRUCell(N)), cw.GRUCell(N)])
        with cw.VariableStore() as variables:
            pass
        with variables if store else cw.VariableStore():
            with pytest.raises(IndexError):
                stack(X, (H, H))
            assert list(stack.parameters()) == []
            assert variables.variables == {}
            cw.dynamic_rnn(stack, SEQUENCE, dtype="float32")
        heads = [f"rnn/multi_rnn_cell/cell_{index}/gru_cell" for index in range(3)]
        assert list(cw.variable_names(stack)) == [f"{head}/{suffix}" for head in heads for suffix in SUFFIXES]

    def test_a_layer_below_a_users_failing_cell(self) -> None:
        class Outer(cw.RNNCell):
            state_size = output_size = N
            fail = True

            def __init__(self) -> None:
                super().__init__()
                self.inner = cw.GRUCell(N)

            def call(self, inputs: torch.Tensor, state: torch.Tensor) -> Any:
                out, state = self.inner(inputs, state)
                if self.fail:
                    raise KeyError
                return out * cw.get_variable("w", [N]), state

        cell = Outer()
        with pytest.raises(KeyError):
            cell(X, H)
        assert list(cell.parameters()) == []
        cell.fail = False
        cw.dynamic_rnn(cell, SEQUENCE, dtype="float32")
        assert all(name.startswith("rnn/outer/") for name in cw.variable_names(cell))

    def test_built_cells_stay_built(self) -> None:
        """What was there before the failing call is kept."""
        ready = cw.GRUCell(N)
        ready(X, H)
        weights = list(ready.weights)
        stack = cw.MultiRNNCell([ready, cw.GRUCell(N)])
        with pytest.raises(IndexError):
            stack(X, (H,))
        assert all(a is b for a, b in zip(ready.weights, weights, strict=True))
        assert ready.scope_name == "gru_cell"

    def test_a_failing_build(self) -> None:
        stack = cw.MultiRNNCell([cw.GRUCell(N), cw.GRUCell(N, kernel_initializer=_bad_initializer)])
        with cw.VariableStore() as store:
            with pytest.raises(KeyError):
                stack.build([None, 4])
            assert store.variables == {}
        assert list(stack.parameters()) == []
        assert not stack.built

    def test_loaded_weights_wait_for_a_call_that_succeeds(self) -> None:
        stacks = [cw.MultiRNNCell([cw.GRUCell(N), cw.GRUCell(N)]) for _ in range(2)]
        stacks[0](X, (H, H))
        stacks[1].load_state_dict(stacks[0].state_dict())
        with pytest.raises(IndexError):
            stacks[1](X, (H,))
        assert torch.equal(stacks[1](X, (H, H))[0], stacks[0](X, (H, H))[0])


class TestGraphs:
    def test_a_failing_recorded_call(self) -> None:
        with cw.Graph() as graph:
            cell = cw.GRUCell(N)
            with pytest.raises(cw.ShapeError):
                cell(cw.Input((None, None)), cw.Input((None, N)))
            with pytest.raises(cw.ShapeError):
                cell(cw.Input((None, 4)), cw.Input((None, N + 1)))
            assert cell.inbound_nodes == []
            assert graph.store.variables == {}
            _assert_untouched(cell)
            cell(cw.Input((None, 4)), cw.Input((None, N)))
            assert cell.scope_name == "gru_cell"
            assert len(cell.inbound_nodes) == 1

    @pytest.mark.parametrize("batch", [None, 7])
    def test_a_failing_recorded_unroll(self, batch: int | None) -> None:
        """An unknown depth is an error: no depth may be guessed from other sizes around."""
        with cw.Graph() as graph:
            cell = cw.GRUCell(N)
            with pytest.raises(cw.ShapeError):
                cw.dynamic_rnn(cell, cw.Input((None, None, None)), initial_state=cw.Input((batch, N)))
            assert graph.store.variables == {}
            assert list(cell.parameters()) == []
            cw.dynamic_rnn(cell, cw.Input((None, None, 4)), dtype="float32")
            assert list(graph.store.variables) == [f"rnn/gru_cell/{suffix}" for suffix in SUFFIXES]


def test_an_error_in_one_thread_leaves_the_others_alone() -> None:
    good, found = cw.GRUCell(N), []

    def run() -> None:
        with pytest.raises(cw.ShapeError):
            cw.GRUCell(N)(X, torch.zeros(2, 7))
        found.append(cw.get_variable_scope().name)

    with cw.VariableStore() as store, cw.variable_scope("a"):
        thread = threading.Thread(target=run)
        thread.start()
        thread.join(10)
        good(X, H)
    assert found == [""]
    assert list(store.variables) == [f"a/gru_cell/{suffix}" for suffix in SUFFIXES]
