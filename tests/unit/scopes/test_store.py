"""VariableStore: TF1's graph rules for creating and sharing variables."""

from __future__ import annotations

import copy
import gc
import threading
import weakref
from typing import Any

import pytest
import torch

import cellweave as cw

D, N = 4, 3
X = torch.linspace(-1.0, 1.0, 2 * D).reshape(2, D)
H = torch.zeros(2, N)
SEQUENCE = X[:, None].expand(2, 3, D)
SUFFIXES = ["gates/kernel", "gates/bias", "candidate/kernel", "candidate/bias"]


def _called(cell: Any = None, **kwargs: Any) -> Any:
    cell = cw.GRUCell(N) if cell is None else cell
    cell(X, H, **kwargs)
    return cell


def _named(*heads: str) -> list[str]:
    return [f"{head}/{suffix}" for head in heads for suffix in SUFFIXES]


class TestUniquifying:
    def test_two_direct_calls(self) -> None:
        with cw.VariableStore() as store:
            _called()
            _called()
            _called()
        assert list(store.variables) == _named("gru_cell", "gru_cell_1", "gru_cell_2")

    def test_two_of_one_name(self) -> None:
        with cw.VariableStore() as store:
            _called(cw.GRUCell(N, name="foo"))
            _called(cw.GRUCell(N, name="foo"))
        assert list(store.variables) == _named("foo", "foo_1")

    def test_a_name_that_looks_counted_is_skipped(self) -> None:
        with cw.VariableStore() as store:
            _called(cw.GRUCell(N, name="foo_1"))
            _called(cw.GRUCell(N, name="foo"))
            _called(cw.GRUCell(N, name="foo"))
        assert list(store.variables) == _named("foo_1", "foo", "foo_2")

    def test_within_one_open_scope(self) -> None:
        with cw.VariableStore() as store, cw.variable_scope("enc"):
            _called()
            _called()
        assert list(store.variables) == _named("enc/gru_cell", "enc/gru_cell_1")

    def test_each_scope_counts_for_itself(self) -> None:
        with cw.VariableStore() as store:
            for scope in ("a", "b"):
                with cw.variable_scope(scope):
                    _called()
            _called()
        assert list(store.variables) == _named("a/gru_cell", "b/gru_cell", "gru_cell")

    def test_entering_a_scope_by_name_again_resets_the_count(self) -> None:
        """So a second new cell computes the same names, and collides."""
        with cw.VariableStore():
            cw.dynamic_rnn(cw.GRUCell(N), SEQUENCE, dtype="float32")
            with pytest.raises(cw.ScopeError, match="'rnn/gru_cell/gates/kernel'"):
                cw.dynamic_rnn(cw.GRUCell(N), SEQUENCE, dtype="float32")

    def test_other_scopes_do_not_collide(self) -> None:
        with cw.VariableStore() as store:
            cw.dynamic_rnn(cw.GRUCell(N), SEQUENCE, dtype="float32")
            cw.dynamic_rnn(cw.GRUCell(N), SEQUENCE, dtype="float32", scope="second")
        assert list(store.variables) == _named("rnn/gru_cell", "second/gru_cell")

    def test_entering_a_scope_object_again_keeps_the_count(self) -> None:
        with cw.VariableStore() as store, cw.variable_scope("enc") as scope:
            _called()
            with cw.variable_scope(scope):
                pass
            _called()
        assert list(store.variables) == _named("enc/gru_cell", "enc/gru_cell_1")

    def test_a_scope_object_entered_inside_itself_counts_on(self) -> None:
        with cw.VariableStore() as store, cw.variable_scope("enc") as scope:
            _called()
            with cw.variable_scope(scope):
                _called()
        assert list(store.variables) == _named("enc/gru_cell", "enc/gru_cell_1")

    def test_default_scope_names(self) -> None:
        with cw.VariableStore() as store:
            for _ in range(2):
                with cw.variable_scope(None, default_name="block"):
                    _called()
        assert list(store.variables) == _named("block/gru_cell", "block_1/gru_cell")

    def test_scope_given_by_name_is_not_made_unique(self) -> None:
        with cw.VariableStore():
            _called(scope="zed")
            with pytest.raises(cw.ScopeError, match="'zed/gates/kernel'"):
                _called(scope="zed")


class TestSharing:
    def test_reuse_argument_shares_by_base_name(self) -> None:
        with cw.VariableStore() as store:
            first = _called(cw.GRUCell(N, name="foo"))
            second = _called(cw.GRUCell(N, name="foo", reuse=True))
        assert list(store.variables) == _named("foo")
        assert all(a is b for a, b in zip(first.weights, second.weights, strict=True))
        assert torch.equal(first(X, H)[0], second(X, H)[0])

    def test_reuse_scope_shares(self) -> None:
        with cw.VariableStore() as store:
            with cw.variable_scope("s"):
                first = _called()
            with cw.variable_scope("s", reuse=True):
                second = _called()
        assert list(store.variables) == _named("s/gru_cell")
        assert second.gates_kernel is first.gates_kernel

    def test_reuse_is_inherited(self) -> None:
        with cw.VariableStore() as store:
            with cw.variable_scope("s"), cw.variable_scope("t"):
                _called()
            with cw.variable_scope("s", reuse=True):
                with cw.variable_scope("t", reuse=False):  # TF1 cannot turn it off below either
                    _called()
        assert list(store.variables) == _named("s/t/gru_cell")

    def test_reuse_variables_from_the_middle_on(self) -> None:
        with cw.VariableStore(), cw.variable_scope("s"):
            made = cw.get_variable("v", [2])
            cw.get_variable_scope().reuse_variables()
            assert cw.get_variable("v", [2]) is made
            with pytest.raises(cw.ScopeError, match="'s/w'"):
                cw.get_variable("w", [2])

    def test_reuse_variables_ends_with_the_scope(self) -> None:
        with cw.VariableStore() as store:
            with cw.variable_scope("s") as scope:
                cw.get_variable("v", [2])
                scope.reuse_variables()
            with cw.variable_scope("s"):
                cw.get_variable("w", [2])
        assert list(store.variables) == ["s/v", "s/w"]

    def test_auto_reuse_creates_then_shares(self) -> None:
        with cw.VariableStore() as store:
            cells = [_called(cw.GRUCell(N, name="foo", reuse=cw.AUTO_REUSE)) for _ in range(2)]
            with cw.variable_scope("s", reuse=cw.AUTO_REUSE):
                inside = [_called(cw.GRUCell(N, name="bar", reuse=cw.AUTO_REUSE)) for _ in range(2)]
        assert list(store.variables) == _named("foo", "s/bar")
        assert cells[0].gates_kernel is cells[1].gates_kernel
        assert inside[0].gates_kernel is inside[1].gates_kernel

    def test_unrolls_share_under_a_reuse_scope(self) -> None:
        """TF1's way to train and test with one set of weights."""
        outputs = []
        with cw.VariableStore() as store:
            for reuse in (None, True):
                with cw.variable_scope("model", reuse=reuse):
                    stack = cw.MultiRNNCell([cw.LSTMCell(N), cw.DropoutWrapper(cw.GRUCell(N))])
                    outputs.append(cw.dynamic_rnn(stack, SEQUENCE, dtype="float32")[0])
        assert torch.equal(*outputs)
        assert len(store.variables) == 6

    def test_shared_weights_train_together(self) -> None:
        with cw.VariableStore() as store:
            first, second = _called(), _called(cw.GRUCell(N, name="gru_cell", reuse=True))
        optimizer = torch.optim.SGD(store.trainable_variables(), lr=0.5)
        before = first.gates_kernel.detach().clone()
        second(X, H + 1)[0].sum().backward()
        optimizer.step()
        assert not torch.equal(first.gates_kernel, before)
        assert torch.equal(first(X, H)[0], second(X, H)[0])

    def test_one_cell_twice_in_one_scope(self) -> None:
        with cw.VariableStore() as store:
            cell = _called()
            _called(cell)
        assert list(store.variables) == _named("gru_cell")


class TestRefusals:
    @pytest.mark.parametrize("where", ["argument", "scope"])
    def test_reuse_of_what_is_missing(self, where: str) -> None:
        with cw.VariableStore() as store:
            with pytest.raises(cw.ScopeError, match=r"gru_cell/gates/kernel.*AUTO_REUSE"):
                if where == "argument":
                    _called(cw.GRUCell(N, reuse=True))
                else:
                    with cw.variable_scope("s", reuse=True):
                        _called()
        assert store.variables == {}

    def test_sharing_with_another_shape_or_dtype(self) -> None:
        with cw.VariableStore():
            _called(cw.GRUCell(N, name="foo"))
            with pytest.raises(cw.ShapeError, match=r"foo/gates/kernel.*\[7, 6\].*got \[9, 10\]"):
                cw.GRUCell(5, name="foo", reuse=True)(X, torch.zeros(2, 5))
            with pytest.raises(cw.ScopeError, match=r"foo/gates/kernel.*float32.*got float64"):
                cw.GRUCell(N, name="foo", reuse=cw.AUTO_REUSE)(X.double(), H.double())

    def test_a_built_cell_with_another_depth(self) -> None:
        with cw.VariableStore() as store:
            cell = _called()
            with pytest.raises(cw.ShapeError, match=r"\[B, 4\].*got \[2, 7\]"):
                cell(torch.ones(2, 7), H)
        assert list(store.variables) == _named("gru_cell")

    @pytest.mark.parametrize("reuse", [True, cw.AUTO_REUSE], ids=repr)
    def test_without_a_store(self, reuse: Any) -> None:
        acts = {
            "cell": lambda: _called(cw.GRUCell(N, reuse=reuse)),
            "scope": lambda: cw.variable_scope("s", reuse=reuse).__enter__(),
            "scope object": lambda: _called(scope=cw.VariableScope("s", reuse=reuse)),
            "open scope object": lambda: cw.variable_scope(cw.VariableScope("s", reuse=reuse)).__enter__(),
        }
        for what, act in acts.items():
            with pytest.raises(cw.ScopeError, match="VariableStore"):
                pytest.fail(f"{what}: {act()}")

    def test_reuse_variables_without_a_store(self) -> None:
        """TF1's most common idiom must not silently make two sets of weights."""
        with cw.variable_scope("s") as scope:
            _called()
            with pytest.raises(cw.ScopeError, match="VariableStore"):
                scope.reuse_variables()


class TestLifetime:
    def test_entering_again_continues(self) -> None:
        store = cw.VariableStore()
        with store:
            _called()
        with store:
            _called()
        assert list(store.variables) == _named("gru_cell", "gru_cell_1")

    def test_nested_in_itself(self) -> None:
        store = cw.VariableStore()
        with store, cw.variable_scope("a"):
            with store:
                assert cw.get_variable_scope().name == ""
                _called()
            assert cw.get_variable_scope().name == "a"
        assert list(store.variables) == _named("gru_cell")
        assert cw.get_variable_scope().name == ""

    def test_another_store_inside(self) -> None:
        outer, inner = cw.VariableStore(), cw.VariableStore()
        with outer, cw.variable_scope("a"):
            with inner:
                _called()
            _called()
        assert list(inner.variables) == _named("gru_cell")
        assert list(outer.variables) == _named("a/gru_cell")

    def test_leaving_by_an_error(self) -> None:
        store = cw.VariableStore()
        with pytest.raises(KeyError), store, cw.variable_scope("a"):
            raise KeyError
        assert cw.get_variable_scope().name == ""
        with store:
            _called()
        assert list(store.variables) == _named("gru_cell")

    def test_a_cell_outlives_its_store(self) -> None:
        with cw.VariableStore():
            cell = _called()
        before = list(cell.weights)
        cw.dynamic_rnn(cell, SEQUENCE, dtype="float32")
        assert all(a is b for a, b in zip(before, cell.weights, strict=True))

    def test_a_foreign_cell_brings_nothing_into_the_store(self) -> None:
        cell = _called()
        with cw.VariableStore() as store:
            _called(cell)
            assert store.variables == {}
            assert _called().scope_name == "gru_cell"

    def test_dropping_the_store_drops_all(self) -> None:
        with cw.VariableStore() as store:
            cell = _called()
        watched = [weakref.ref(cell.gates_kernel), weakref.ref(store), weakref.ref(cell)]
        del cell, store
        gc.collect()
        assert [ref() for ref in watched] == [None] * 3

    def test_trainable_variables(self) -> None:
        with cw.VariableStore() as store:
            kept = cw.get_variable("a", [1])
            cw.get_variable("b", [1], trainable=False)
            cw.get_variable("c", [1], dtype="int32")
        assert store.trainable_variables() == [kept]
        assert list(store.variables) == ["a", "b", "c"]

    def test_layer_names_are_counted_per_store(self) -> None:
        names = []
        for _ in range(2):
            with cw.VariableStore():
                names.append(
                    [cw.GRUCell(N).name, cw.GRUCell(N).name, cw.LSTMCell(N).name, cw.GRUCell(N, name="x").name]
                )
        assert names == [["gru_cell_1", "gru_cell_2", "lstm_cell_1", "x"]] * 2

    def test_a_copied_store_shares_nothing(self) -> None:
        with cw.VariableStore() as store:
            _called()
        other = copy.deepcopy(store)
        assert list(other.variables) == list(store.variables)
        assert other.variables["gru_cell/gates/kernel"] is not store.variables["gru_cell/gates/kernel"]


def test_one_store_in_two_threads() -> None:
    """Each thread leaves the store into the scope it came from, whoever leaves first."""
    store, found = cw.VariableStore(), {}
    inside, left = threading.Event(), threading.Event()

    def second() -> None:
        with cw.variable_scope("mine"):
            with store:
                inside.set()
                left.wait(10)
                found["second inside"] = cw.get_variable_scope().name
            found["second"] = cw.get_variable_scope().name

    thread = threading.Thread(target=second)
    with store:
        thread.start()
        inside.wait(10)
    found["first"] = cw.get_variable_scope().name
    left.set()
    thread.join(10)
    assert found == {"first": "", "second inside": "", "second": "mine"}


def test_threads_do_not_share_open_scopes_or_stores() -> None:
    found: list[Any] = []
    with cw.VariableStore() as store, cw.variable_scope("outer"):
        thread = threading.Thread(target=lambda: found.extend([cw.get_variable_scope().name, _called().scope_name]))
        thread.start()
        thread.join(10)
    assert found == ["", "gru_cell"]
    assert store.variables == {}
