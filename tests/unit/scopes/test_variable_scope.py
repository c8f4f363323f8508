"""variable_scope and get_variable: paths, defaults, arguments."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

import cellweave as cw

N = 3
X = torch.linspace(-1.0, 1.0, 8).reshape(2, 4)
H = torch.zeros(2, N)
ones = cw.initializers.ones_initializer
zeros = cw.initializers.zeros_initializer


class Reader(cw.RNNCell):
    """A cell that makes one variable in `call`."""

    state_size = output_size = N

    def call(self, inputs: torch.Tensor, state: torch.Tensor) -> Any:
        return state + inputs @ cw.get_variable("w", [inputs.shape[1], N]), state


def _called(cell: Any) -> Any:
    cell(X, H)
    return cell


def _getter_that_notes(order: list[str], scope: str) -> Callable[..., Any]:
    def getter(getter: Callable[..., Any], name: str, *args: Any, **kwargs: Any) -> Any:
        order.append(scope)
        return getter(name, *args, **kwargs)

    return getter


class TestPaths:
    def test_the_root(self) -> None:
        assert cw.get_variable_scope().name == ""
        assert cw.get_variable_scope().reuse is False

    def test_levels(self) -> None:
        with cw.variable_scope("a") as a, cw.variable_scope("b/c") as c:
            assert (a.name, c.name) == ("a", "a/b/c")
            assert cw.get_variable_scope() is c
        assert cw.get_variable_scope().name == ""

    def test_an_error_inside_closes_the_scope(self) -> None:
        with pytest.raises(KeyError), cw.variable_scope("a"):
            raise KeyError
        assert cw.get_variable_scope().name == ""

    def test_a_scope_object_opens_at_its_own_path(self) -> None:
        with cw.VariableStore() as store:
            with cw.variable_scope("a") as a:
                made = cw.get_variable("v", [1])
            with cw.variable_scope("b"):
                with cw.variable_scope(a, reuse=True) as again:
                    assert again.name == "a"
                    assert cw.get_variable("v") is made
                assert cw.get_variable_scope().name == "b"
            assert a.reuse is False  # the object itself is not changed by opening it
        assert list(store.variables) == ["a/v"]

    def test_no_path(self) -> None:
        with pytest.raises(cw.ArgumentError, match=r"variable_scope: expected a name .*got "), cw.variable_scope("/a"):
            pass

    @pytest.mark.parametrize("name, made", [("", "v"), ("a/", "a//v"), ("a//b", "a//b/v")])
    def test_empty_parts_are_kept(self, name: str, made: str) -> None:
        with cw.VariableStore() as store:
            with cw.variable_scope(name):
                cw.get_variable("v", [1])
            with cw.variable_scope("s"), cw.variable_scope(name):
                cw.get_variable("v", [1])
        assert list(store.variables) == [made, f"s/{made}" if name else "s//v"]

    def test_cells_in_an_empty_scope(self) -> None:
        with cw.VariableStore() as store:
            bare, named = cw.BasicRNNCell(1), cw.BasicRNNCell(1)
            bare(torch.ones(1, 1), torch.ones(1, 1), scope="")
            with cw.variable_scope(""):
                named(torch.ones(1, 1), torch.ones(1, 1))
        assert bare.scope_name == ""
        assert list(store.variables)[::2] == ["kernel", "basic_rnn_cell/kernel"]
        assert list(cw.variable_names(bare)) == ["kernel", "bias"]

    @pytest.mark.parametrize("name", ["a b", "a:0", "\u00e4", "_a", "-a"])
    def test_characters_that_tensorflow_has_not(self, name: str) -> None:
        message = r"expected a name of letters, digits and any of _\.\\/>-, that begins with a letter, a digit or a dot"
        with pytest.raises(cw.ArgumentError, match=f"variable_scope: {message}"), cw.variable_scope(name):
            pass
        with pytest.raises(cw.ArgumentError, match=f"get_variable: {message}"):
            cw.get_variable(name, [1])

    def test_names_below_the_root_begin_as_they_like(self) -> None:
        with cw.VariableStore() as store, cw.variable_scope("a"), cw.variable_scope("_b"):
            cw.get_variable("-c", [1])
        assert list(store.variables) == ["a/_b/-c"]

    def test_an_empty_name_of_a_cell_or_an_unroll_is_none(self) -> None:
        with cw.VariableStore() as store:
            cw.dynamic_rnn(cw.BasicRNNCell(2, name=""), torch.zeros(1, 1, 1), dtype="float32", scope="")
        assert list(store.variables) == ["rnn/basic_rnn_cell/kernel", "rnn/basic_rnn_cell/bias"]

    @pytest.mark.parametrize("name", [3, ["a"], b"a"], ids=repr)
    def test_no_names(self, name: Any) -> None:
        with pytest.raises(cw.ArgumentTypeError, match="variable_scope: expected a name"), cw.variable_scope(name):
            pass

    def test_neither_name_nor_default(self) -> None:
        with pytest.raises(cw.ArgumentTypeError, match="default name"), cw.variable_scope(None):
            pass

    def test_a_name_wins_over_the_default_name(self) -> None:
        with cw.variable_scope("a", default_name="b") as scope:
            assert scope.name == "a"

    def test_tf1_arguments_without_effect(self) -> None:
        with cw.variable_scope(
            "a", values=[X], caching_device="cpu", use_resource=True, auxiliary_name_scope=False
        ) as scope:
            assert scope.name == "a"

    def test_threads_have_scopes_of_their_own(self) -> None:
        found, meet = {}, threading.Barrier(2)

        def run(name: str) -> None:
            with cw.variable_scope(name):
                meet.wait(10)
                found[name] = _called(cw.GRUCell(N)).scope_name
                meet.wait(10)

        threads = [threading.Thread(target=run, args=(name,)) for name in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert found == {"a": "a/gru_cell", "b": "b/gru_cell"}


class TestDefaults:
    """What a scope gives to the variables made in it."""

    def test_initializer_is_inherited_and_replaced(self) -> None:
        with cw.variable_scope("a", initializer=ones()):
            with cw.variable_scope("b"):
                assert (cw.get_variable("v", [2]) == 1).all()
            with cw.variable_scope("c", initializer=zeros()):
                assert (cw.get_variable("v", [2]) == 0).all()
            assert (cw.get_variable("v", [2], initializer=zeros()) == 0).all()
            cw.get_variable_scope().set_initializer(cw.initializers.Constant(7.0))
            assert (cw.get_variable("w", [2]) == 7).all()

    def test_dtype(self) -> None:
        with cw.variable_scope("a", dtype="float64"):
            assert cw.get_variable("v", [1]).dtype == torch.float64
            assert cw.get_variable("w", [1], dtype=torch.float16).dtype == torch.float16
            reader = Reader()
            reader(X.double(), H.double())
            assert reader.w.dtype == torch.float64

    def test_regularizer(self) -> None:
        with cw.variable_scope("a", regularizer=lambda w: 2 * w.square().sum()):
            cell = _called(Reader())
        assert [loss.item() for loss in cell.losses] == [pytest.approx(2 * cell.w.square().sum().item())]

    def test_regularizer_of_ready_made_cells(self) -> None:
        """TF1 regularizes every variable made in the scope, biases too."""
        with cw.variable_scope("a", regularizer=lambda w: w.sum()):
            cell = _called(cw.GRUCell(N))
        assert [loss.item() for loss in cell.losses] == pytest.approx([w.sum().item() for w in cell.weights])

    def test_constraint(self) -> None:
        with cw.variable_scope("a", constraint=lambda w: w.clamp(-0.01, 0.01)):
            reader, cell = _called(Reader()), _called(cw.GRUCell(N))
        cw.apply_constraints(torch.nn.ModuleList([reader, cell]))
        assert reader.w.abs().max() <= 0.01
        assert cell.gates_kernel.abs().max() <= 0.01

    def test_partitioner(self) -> None:
        with cw.variable_scope("a", partitioner=2):
            reader = _called(Reader())
        assert [record.pieces for record in reader.variable_records()] == [2]

    def test_own_arguments_win(self) -> None:
        class Own(Reader):
            def call(self, inputs: torch.Tensor, state: torch.Tensor) -> Any:
                w = cw.get_variable(
                    "w", [4, N], regularizer=lambda w: w.sum() * 0 + 5, constraint=torch.zeros_like, partitioner=3
                )
                return state + inputs @ w, state

        with cw.variable_scope("a", regularizer=torch.sum, constraint=torch.ones_like, partitioner=2):
            cell = _called(Own())
        cw.apply_constraints(cell)
        assert [loss.item() for loss in cell.losses] == [5.0]
        assert (cell.w == 0).all()
        assert cell.variable_records()[0].pieces == 3

    def test_defaults_end_with_the_scope(self) -> None:
        with cw.variable_scope("a", initializer=ones(), dtype="float64", regularizer=torch.sum):
            pass
        reader = _called(Reader())
        assert reader.w.std() > 0
        assert reader.w.dtype == torch.float32
        assert reader.losses == []


class TestCustomGetter:
    def test_it_stands_between(self) -> None:
        seen: list[tuple[str, Any]] = []

        def getter(getter: Callable[..., Any], name: str, *args: Any, **kwargs: Any) -> Any:
            seen.append((name, kwargs["shape"]))
            kwargs["initializer"] = ones()
            return getter(name, *args, **kwargs) * 2

        with cw.variable_scope("a", custom_getter=getter), cw.variable_scope("b"):
            value = cw.get_variable("v", [2])
        assert seen == [("a/b/v", [2])]
        assert value.tolist() == [2.0, 2.0]

    def test_it_sees_every_argument(self) -> None:
        """TF1's getters look at `trainable`, `regularizer` and so on by keyword."""
        seen: dict[str, Any] = {}

        def getter(getter: Callable[..., Any], name: str, **kwargs: Any) -> Any:
            seen.update(kwargs)
            return getter(name, **kwargs)

        given = {
            "shape": [2],
            "dtype": "float64",
            "initializer": ones(),
            "regularizer": torch.sum,
            "trainable": False,
            "partitioner": 2,
            "constraint": torch.zeros_like,
        }
        value = cw.get_variable("v", custom_getter=getter, **given)
        assert {key: seen.get(key) for key in given} == given
        assert value.dtype == torch.float64
        assert not value.requires_grad

    def test_it_sees_ready_made_cells(self) -> None:
        seen: list[str] = []

        def getter(getter: Callable[..., Any], name: str, *args: Any, **kwargs: Any) -> Any:
            seen.append(name)
            return getter(name, *args, **kwargs)

        with cw.variable_scope("a", custom_getter=getter):
            _called(cw.GRUCell(N))
        assert seen == [f"a/gru_cell/{part}/{kind}" for part in ("gates", "candidate") for kind in ("kernel", "bias")]

    def test_getters_of_nested_scopes_call_each_other(self) -> None:
        """The innermost first; what it calls as its getter is the outer scope's."""
        order: list[str] = []
        getter_of = partial(_getter_that_notes, order)
        with cw.variable_scope("a", custom_getter=getter_of("outer")):
            with cw.variable_scope("b", custom_getter=getter_of("inner")):
                cw.get_variable("v", [1])
            cw.get_variable("w", [1])
        assert order == ["inner", "outer", "outer"]

    def test_a_scope_object_keeps_its_own_getter(self) -> None:
        """What is given beside the object stands before the object's getter, not before that of the scope around."""
        order: list[str] = []
        getter_of = partial(_getter_that_notes, order)
        with cw.variable_scope("a", custom_getter=getter_of("object's")) as a:
            pass
        with cw.variable_scope("b", custom_getter=getter_of("around")):
            with cw.variable_scope(a):
                cw.get_variable("v", [1])
            with cw.variable_scope(a, custom_getter=getter_of("beside")):
                cw.get_variable("w", [1])
        assert order == ["object's", "beside", "object's"]

    def test_an_argument_wins_over_the_scopes(self) -> None:
        with cw.variable_scope("a", custom_getter=lambda *a, **k: pytest.fail("the scope's getter ran")):
            made = cw.get_variable("v", [1], custom_getter=lambda getter, name, **k: getter(name, **k))
        assert made.shape == (1,)

    def test_it_makes_what_the_store_keeps(self) -> None:
        with cw.VariableStore() as store:
            with cw.variable_scope("a", custom_getter=lambda getter, name, **k: getter(name, **k)):
                made = cw.get_variable("v", [1])
        assert store.variables == {"a/v": made}


class TestArguments:
    def test_a_new_variable(self) -> None:
        made = cw.get_variable("v", [2, 3])
        assert isinstance(made, torch.nn.Parameter)
        assert made.shape == (2, 3)
        assert made.dtype == torch.float32
        assert made.requires_grad

    def test_outside_everything_each_call_makes_one(self) -> None:
        assert cw.get_variable("v", [2]) is not cw.get_variable("v", [2])

    @pytest.mark.parametrize(
        "shape, size",
        [
            ([], ()),
            (3, (3,)),
            ((2, 0), (2, 0)),
            (torch.Size([2, 3]), (2, 3)),
            (cw.TensorShape([4]), (4,)),
            (torch.tensor([2, 3]), (2, 3)),
            ([np.int64(2), 3], (2, 3)),
        ],
        ids=repr,
    )
    def test_shapes(self, shape: Any, size: tuple[int, ...]) -> None:
        assert tuple(cw.get_variable("v", shape, initializer=zeros()).shape) == size

    @pytest.mark.parametrize("shape", [None, [None, 2], [-1]], ids=repr)
    def test_no_shapes(self, shape: Any) -> None:
        with pytest.raises(ValueError, match=r"expected .*got ") as info:
            cw.get_variable("v", shape)
        assert isinstance(info.value, cw.CellweaveError)

    def test_not_trainable(self) -> None:
        assert not cw.get_variable("v", [2], trainable=False).requires_grad

    @pytest.mark.parametrize("dtype", ["int32", "int64", "bool", "uint8"])
    def test_integers_start_at_zero_and_take_no_gradient(self, dtype: str) -> None:
        made = cw.get_variable("v", [2], dtype=dtype)
        assert made.tolist() == [0, 0]
        assert not made.requires_grad

    @pytest.mark.parametrize("dtype", ["complex64", "complex128", "bfloat16", "float16"])
    def test_other_floats(self, dtype: str) -> None:
        made = cw.get_variable("v", [2, 2], dtype=dtype)
        assert str(made.dtype) == f"torch.{dtype}"
        assert made.requires_grad

    def test_an_existing_one_of_a_store(self) -> None:
        with cw.VariableStore(), cw.variable_scope("s"):
            made = cw.get_variable("v", [2])
            with pytest.raises(cw.ScopeError, match=r"new variable 's/v'.*exists"):
                cw.get_variable("v", [2])
            cw.get_variable_scope().reuse_variables()
            assert cw.get_variable("v") is made
            assert cw.get_variable("v", [2], dtype="float32") is made
            with pytest.raises(cw.ShapeError, match=r"'s/v' of shape \[2\].*got \[3\]"):
                cw.get_variable("v", [3])
            with pytest.raises(cw.ScopeError, match=r"'s/v' of dtype float32.*got float64"):
                cw.get_variable("v", [2], dtype="float64")

    def test_a_failed_one_leaves_nothing_in_the_store(self) -> None:
        with cw.VariableStore() as store:
            with pytest.raises(cw.ShapeError):
                cw.get_variable("v", [2], initializer=np.ones(3))
            assert store.variables == {}
            cw.get_variable("v", [2])

    def test_tf1_arguments_without_effect(self) -> None:
        made = cw.get_variable(
            "v", [2], collections=["c"], caching_device="cpu", validate_shape=False, use_resource=True
        )
        assert made.shape == (2,)

    def test_slashes_in_the_name(self) -> None:
        with cw.VariableStore() as store, cw.variable_scope("s"):
            cw.get_variable("a/b", [1])
        assert list(store.variables) == ["s/a/b"]


def test_scope_objects_by_hand() -> None:
    """`VariableScope` is what `scope=` and `variable_scope` take."""
    scope = cw.VariableScope("far/away", initializer=ones())
    with cw.variable_scope("here"):
        cell = cw.GRUCell(N)
        cell(X, H, scope=scope)
    assert cell.scope_name == "far/away"
    assert (cell.gates_kernel == 1).all()
    assert scope.child("down").name == "far/away/down"
    assert cw.VariableScope().child("top").name == "top"


class TestSetters:
    def test_each_changes_what_comes_after_it(self) -> None:
        seen: list[str] = []

        def getter(make: Any, name: str, **kwargs: Any) -> Any:
            seen.append(name)
            return make(name, **kwargs)

        def regularizer(weight: Any) -> Any:
            return weight.sum()

        layer = cw.Layer()
        with cw.variable_scope("a") as scope:
            scope.set_initializer(cw.initializers.Constant(3.0))
            scope.set_dtype("float64")
            scope.set_regularizer(regularizer)
            scope.set_partitioner(2)
            scope.set_custom_getter(getter)
            weight = cw.get_variable("w", [2])
            layer.add_weight("v", [2])
        assert weight.tolist() == [3.0, 3.0]
        assert weight.dtype == torch.float64
        assert seen == ["a/w", "a/layer/v"]
        (record,) = layer.variable_records()
        assert (record.regularizer, record.pieces) == (regularizer, 2)


def test_a_variable_made_in_call_has_its_layers_dtype() -> None:
    class Scaled(cw.RNNCell):
        state_size = output_size = 2

        def call(self, inputs: Any, state: Any) -> Any:
            state = inputs @ cw.get_variable("w", [3, 2])
            return state, state

    cell = Scaled()
    assert cell(torch.ones(1, 3, dtype=torch.float64), None)[0].dtype == torch.float64
    assert Scaled(dtype="float16")(torch.ones(1, 3, dtype=torch.float16), None)[0].dtype == torch.float16
