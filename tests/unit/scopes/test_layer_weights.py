"""A layer's variables: order, values, trainability, add_weight (contract section 3)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import cellweave as cw

N = 3
X = torch.linspace(-1.0, 1.0, 8).reshape(2, 4)
H = torch.zeros(2, N)


class Mixed(cw.Layer):
    """Variables of both kinds, made in turns."""

    def build(self, input_shape: Any) -> None:
        self.a = self.add_weight("a", [1], trainable=False)
        self.b = self.add_weight("b", [2])
        self.c = self.add_weight("c", [3], trainable=False)
        self.d = self.add_variable("d", [4])
        super().build(input_shape)


def _mixed(**kwargs: Any) -> Any:
    layer = Mixed(**kwargs)
    layer(X)
    return layer


def _gru(**kwargs: Any) -> Any:
    cell = cw.GRUCell(N, **kwargs)
    cell(X, H)
    return cell


def _names(weights: list[Any], layer: Any) -> str:
    by_id = {id(parameter): name for name, parameter in layer.named_parameters()}
    return "".join(by_id[id(weight)] for weight in weights)


class TestLists:
    def test_trainable_ones_come_first(self) -> None:
        layer = _mixed()
        assert _names(layer.trainable_weights, layer) == "bd"
        assert _names(layer.non_trainable_weights, layer) == "ac"
        assert _names(layer.weights, layer) == "bdac"

    def test_of_a_layer_that_is_not_trainable(self) -> None:
        layer = _mixed(trainable=False)
        assert layer.trainable_weights == []
        assert sorted(_names(layer.non_trainable_weights, layer)) == list("abcd")
        assert sorted(_names(layer.weights, layer)) == list("abcd")

    @pytest.mark.parametrize("trainable", [True, False])
    def test_variables_are_weights(self, trainable: bool) -> None:
        layer = _mixed(trainable=trainable)
        for kind in ("trainable_{}", "non_trainable_{}", "{}"):
            weights, variables = (getattr(layer, kind.format(what)) for what in ("weights", "variables"))
            assert len(weights) == len(variables)
            assert all(a is b for a, b in zip(weights, variables, strict=True))

    def test_before_they_exist(self) -> None:
        cell = cw.GRUCell(N)
        assert cell.weights == cell.trainable_weights == cell.non_trainable_weights == cell.get_weights() == []

    def test_lists_are_copies(self) -> None:
        cell = _gru()
        cell.weights.clear()
        cell.trainable_weights.clear()
        assert len(cell.weights) == 4

    def test_of_stacks_and_wrappers(self) -> None:
        """A stack has its cells' own weights; a v1 wrapper has none, so a stack of wrappers has none either."""
        bottom, top = cw.GRUCell(N), cw.GRUCell(N, trainable=False)
        stack = cw.MultiRNNCell([bottom, top])
        stack(X, (H, H))
        assert all(a is b for a, b in zip(stack.weights, bottom.weights + top.weights, strict=True))
        assert len(stack.trainable_weights) == len(stack.non_trainable_weights) == 4
        wrapped = cw.MultiRNNCell([cw.DropoutWrapper(bottom)])
        assert wrapped.weights == wrapped.cells[0].weights == []
        assert len(list(wrapped.parameters())) == 4

    def test_of_a_stack_that_is_not_trainable(self) -> None:
        stack = cw.MultiRNNCell([cw.GRUCell(N), cw.GRUCell(N)], trainable=False)
        stack(X, (H, H))
        assert stack.trainable_weights == []
        assert len(stack.non_trainable_weights) == len(stack.weights) == 8

    def test_the_same_cell_twice_counts_twice(self) -> None:
        cell = cw.GRUCell(N)
        stack = cw.MultiRNNCell([cell, cell])
        stack(H, (H, H))
        assert len(stack.weights) == 8
        assert len(list(stack.parameters())) == 4


class TestTrainable:
    def test_decides_requires_grad(self) -> None:
        layer = _mixed()
        assert [w.requires_grad for w in (layer.a, layer.b, layer.c, layer.d)] == [False, True, False, True]
        layer = _mixed(trainable=False)
        assert not any(w.requires_grad for w in layer.parameters())

    def test_toggling(self) -> None:
        layer = _mixed()
        layer.trainable = False
        assert (layer.trainable, layer.trainable_weights) == (False, [])
        assert not any(w.requires_grad for w in layer.parameters())
        layer.trainable = True
        assert layer.trainable
        assert _names(layer.trainable_weights, layer) == "bd"
        assert [w.requires_grad for w in (layer.a, layer.b, layer.c, layer.d)] == [False, True, False, True]

    def test_turned_on_after_construction(self) -> None:
        cell = _gru(trainable=False)
        cell.trainable = True
        assert len(cell.trainable_weights) == 4
        assert all(w.requires_grad for w in cell.parameters())

    def test_before_the_weights_exist(self) -> None:
        cell = cw.GRUCell(N)
        cell.trainable = False
        cell(X, H)
        assert not any(w.requires_grad for w in cell.parameters())

    def test_integers_never_take_gradients(self) -> None:
        layer = cw.Layer()
        count = layer.add_weight("count", [], dtype="int64")
        layer.trainable = False
        layer.trainable = True
        assert not count.requires_grad

    def test_a_frozen_cell_passes_gradients_on(self) -> None:
        cell = _gru(trainable=False)
        x = X.clone().requires_grad_()
        cell(x, H)[0].sum().backward()
        assert x.grad is not None and x.grad.abs().sum() > 0
        assert all(w.grad is None for w in cell.parameters())


class TestValues:
    def test_get_and_set(self) -> None:
        one, other = _gru(), _gru()
        other.set_weights(one.get_weights())
        assert torch.equal(one(X, H)[0], other(X, H)[0])

    def test_they_go_in_the_order_of_weights(self) -> None:
        layer = _mixed()
        layer.set_weights([np.full(n, n, np.float32) for n in (2, 4, 1, 3)])
        assert [w.tolist() for w in (layer.a, layer.b, layer.c, layer.d)] == [[1.0], [2.0] * 2, [3.0] * 3, [4.0] * 4]
        assert [value[0] for value in layer.get_weights()] == [2, 4, 1, 3]

    def test_values_are_copies(self) -> None:
        cell = _gru()
        values = cell.get_weights()
        values[0][:] = 0
        assert cell.gates_kernel.abs().sum() > 0
        cell.set_weights(values)
        values[0][:] = 5
        assert (cell.gates_kernel == 0).all()

    def test_setting_keeps_the_parameters(self) -> None:
        cell = _gru()
        optimizer = torch.optim.SGD(cell.parameters(), lr=1.0)
        cell.set_weights([np.zeros_like(value) for value in cell.get_weights()])
        cell(X, H + 1)[0].sum().backward()
        optimizer.step()
        assert cell.gates_bias.abs().sum() > 0

    @pytest.mark.parametrize("change", ["fewer", "more", "shape", "last shape"])
    def test_nothing_changes_when_one_does_not_fit(self, change: str) -> None:
        cell = _gru()
        before = cell.get_weights()
        values = [np.zeros_like(value) for value in before]
        if change == "fewer":
            values.pop()
        elif change == "more":
            values.append(np.zeros(1))
        else:
            index = 0 if change == "shape" else 3
            values[index] = np.zeros((9, 9))
        with pytest.raises(cw.ShapeError, match=r"^GRUCell\.set_weights: expected .*got "):
            cell.set_weights(values)
        assert all(np.array_equal(a, b) for a, b in zip(before, cell.get_weights(), strict=True))

    def test_weights_that_do_not_exist_yet(self) -> None:
        with pytest.raises(cw.ShapeError, match=r"^GRUCell\.set_weights: expected 0 arrays, got 1\. Call the layer"):
            cw.GRUCell(3).set_weights([np.zeros(1)])

    def test_other_kinds_of_values(self) -> None:
        cell = _gru()
        cell.set_weights([torch.full_like(w, 2, dtype=torch.float64) for w in cell.weights])
        assert all((w == 2).all() and w.dtype == torch.float32 for w in cell.weights)
        cell.set_weights([w.tolist() for w in cell.weights])
        assert all((w == 2).all() for w in cell.weights)

    @pytest.mark.parametrize(
        "dtype, numpy_dtype",
        [("float64", np.float64), ("float16", np.float16), ("bfloat16", np.float32), ("complex64", np.complex64)],
    )
    def test_dtypes(self, dtype: str, numpy_dtype: Any) -> None:
        cell = cw.GRUCell(N, dtype=dtype)
        cell.build([None, 4])
        values = cell.get_weights()
        assert {value.dtype for value in values} == {np.dtype(numpy_dtype)}
        before = [w.clone() for w in cell.weights]
        cell.set_weights(values)
        assert all(torch.equal(a, b) for a, b in zip(before, cell.weights, strict=True))

    def test_of_weights_on_the_meta_device(self) -> None:
        cell = _gru().to("meta")
        assert cell.count_params() == 72

    def test_count_params(self) -> None:
        assert _gru().count_params() == 7 * 6 + 6 + 7 * 3 + 3
        assert _mixed().count_params() == 10
        with pytest.raises(cw.ScopeError, match=r"GRUCell\.count_params: expected a built layer"):
            cw.GRUCell(N).count_params()
        stack = cw.MultiRNNCell([cw.GRUCell(N), cw.GRUCell(N)])
        stack(X, (H, H))
        assert stack.count_params() == 72 + 63

    def test_a_v1_wrapper_counts_nothing_ever(self) -> None:
        wrapper = cw.DropoutWrapper(_gru())
        wrapper(X, H)
        with pytest.raises(cw.ScopeError, match="count_params"):
            wrapper.count_params()


class TestAddWeight:
    @pytest.mark.parametrize("member", ["add_weight", "add_variable"])
    def test_every_argument(self, member: str) -> None:
        layer = cw.Layer(name="mine")
        weight = getattr(layer, member)(
            "deep/w",
            [2, 3],
            dtype="float64",
            initializer=cw.initializers.Constant(-2.0),
            regularizer=lambda w: w.abs().sum(),
            trainable=True,
            constraint=lambda w: w.clamp(min=-1),
            use_resource=True,
            partitioner=2,
        )
        assert weight.tolist() == [[-2.0] * 3] * 2
        assert weight.dtype == torch.float64
        assert list(cw.variable_names(_call(layer))) == ["mine/deep/w"]
        assert layer.deep_w is weight
        assert [loss.item() for loss in layer.losses] == [12.0]
        cw.apply_constraints(layer)
        assert (weight == -1).all()
        assert [record.pieces for record in layer.variable_records()] == [2]

    def test_positions(self) -> None:
        """TF1's order: name, shape, dtype, initializer, regularizer, trainable, constraint."""
        layer = cw.Layer()
        weight = layer.add_weight("w", [2], "float64", "ones", torch.sum, False, torch.zeros_like)
        assert (weight.dtype, weight.tolist(), weight.requires_grad) == (torch.float64, [1.0, 1.0], False)
        assert layer.losses[0].item() == 2
        cw.apply_constraints(layer)
        assert weight.tolist() == [0.0, 0.0]

    def test_defaults(self) -> None:
        layer = cw.Layer()
        weight = layer.add_weight("w", [30, 20])
        limit = (6 / 50) ** 0.5
        assert weight.dtype == torch.float32
        assert weight.requires_grad
        assert 0.9 * limit < weight.abs().max() <= limit
        assert cw.Layer(dtype="float64").add_weight("w", [1]).dtype == torch.float64

    def test_the_scopes_initializer_is_the_fallback(self) -> None:
        with cw.variable_scope("s", initializer="ones"):
            layer = cw.Layer()
            assert (layer.add_weight("v", [2]) == 1).all()
            assert (layer.add_weight("w", [2], initializer="zeros") == 0).all()
            assert (layer.add_weight("u", [50], ignore_scope_initializer=True) != 1).all()

    def test_again_once_built_gives_the_same(self) -> None:
        cell = _gru()
        assert cell.add_weight("gates/kernel", [7, 6]) is cell.gates_kernel

    def test_twice_while_building_collides(self) -> None:
        layer = cw.Layer()
        layer.add_weight("w", [1])
        with pytest.raises(cw.ScopeError, match=r"new variable 'layer/w'"):
            layer.add_weight("w", [1])

    def test_a_new_one_after_the_first_call(self) -> None:
        with pytest.raises(cw.ScopeError, match=r"'gru_cell/late'.*first call"):
            _gru().add_weight("late", [1])

    def test_in_the_constructor(self) -> None:
        class Early(cw.Layer):
            def __init__(self, **kwargs: Any) -> None:
                super().__init__(**kwargs)
                self.w = self.add_weight("w", [4])

            def call(self, inputs: torch.Tensor) -> torch.Tensor:
                return inputs * self.w

        with cw.variable_scope("s"):
            layer = Early()
        assert torch.equal(layer(X), X * layer.w)
        assert list(cw.variable_names(layer)) == ["s/early/w"]
        other = Early()
        other.load_state_dict(layer.state_dict())
        assert torch.equal(other(X), layer(X))

    @pytest.mark.parametrize("shape", [[None], [-1], ["a"]], ids=repr)
    def test_no_shapes(self, shape: Any) -> None:
        with pytest.raises(cw.CellweaveError, match=r"expected .*got "):
            cw.Layer().add_weight("w", shape)


class TestConstraints:
    def test_applied_in_place_through_a_whole_model(self) -> None:
        layer = cw.Layer()
        weight = layer.add_weight(
            "w", [2], initializer=cw.initializers.Constant(3.0), constraint=lambda w: w / w.norm()
        )
        other = layer.add_weight("v", [2], initializer=cw.initializers.Constant(3.0))
        cw.apply_constraints(torch.nn.Sequential(layer))
        assert weight.norm().item() == pytest.approx(1.0)
        assert other.tolist() == [3.0, 3.0]
        assert weight.requires_grad and weight.grad_fn is None

    def test_constraints_of_what_is_no_module(self) -> None:
        with pytest.raises(cw.ArgumentTypeError, match="apply_constraints: expected a module, got 3"):
            cw.apply_constraints(3)  # type: ignore[arg-type]

    def test_after_an_optimizers_step(self) -> None:
        layer = cw.Layer()
        weight = layer.add_weight("w", [2], initializer="ones", constraint=lambda w: w.clamp(min=0.5))
        optimizer = torch.optim.SGD(layer.parameters(), lr=10.0)
        weight.sum().backward()
        optimizer.step()
        cw.apply_constraints(layer)
        assert weight.tolist() == [0.5, 0.5]


def _call(layer: Any) -> Any:
    layer(X)
    return layer
