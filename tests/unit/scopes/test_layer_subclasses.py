"""Users' own cells and layers: variables made in `call`, in `build`, nested layers."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn

import cellweave as cw

N = 3
X = torch.linspace(-1.0, 1.0, 8).reshape(2, 4)
H = torch.zeros(2, N)
SEQUENCE = X[:, None].expand(2, 5, 4)


class ByGetVariable(cw.RNNCell):
    """TF1's oldest way: variables made inside `call`."""

    state_size = output_size = N

    def call(self, inputs: torch.Tensor, state: torch.Tensor) -> Any:
        with cw.variable_scope("gate"):
            w = cw.get_variable("w", [inputs.shape[1] + N, N])
        b = cw.get_variable("b", [N], initializer=cw.initializers.zeros_initializer(), trainable=False)
        new = torch.tanh(torch.cat([inputs, state], 1) @ w + b)
        return new, new


class ByAddWeight(cw.RNNCell):
    """Variables made in `build`, kept under names of the author's choice."""

    def __init__(self, units: int = N, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units

    @property
    def state_size(self) -> int:
        return self.units

    @property
    def output_size(self) -> int:
        return self.units

    def build(self, input_shape: Any) -> None:
        self._kernel = self.add_weight("kernel", [input_shape[-1] + self.units, self.units])
        self.bias = self.add_variable("bias", [self.units], initializer="zeros")
        super().build(input_shape)

    def call(self, inputs: torch.Tensor, state: torch.Tensor) -> Any:
        new = torch.tanh(torch.cat([inputs, state], 1) @ self._kernel + self.bias)
        return new, new


class Nested(cw.RNNCell):
    """A cell made of a cell, a layer and a torch module."""

    state_size = output_size = N

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inner = cw.GRUCell(N)
        self.own = ByAddWeight()
        self.linear = nn.Linear(N, N)

    def call(self, inputs: torch.Tensor, state: torch.Tensor) -> Any:
        out, state = self.inner(inputs, state)
        out, _ = self.own(out, state)
        return self.linear(out), state


KINDS = {"get_variable": ByGetVariable, "add_weight": ByAddWeight, "nested": Nested}
each_kind = pytest.mark.parametrize("kind", KINDS)


def _run(cell: Any, **kwargs: Any) -> torch.Tensor:
    return cw.dynamic_rnn(cell, SEQUENCE, dtype="float32", **kwargs)[0]


class TestByGetVariable:
    def test_variables_lie_under_the_cells_scope_and_belong_to_it(self) -> None:
        cell = ByGetVariable()
        _run(cell)
        assert list(cw.variable_names(cell)) == ["rnn/by_get_variable/gate/w", "rnn/by_get_variable/b"]
        assert [id(w) for w in cell.weights] == [id(cell.gate_w), id(cell.b)]
        assert [id(w) for w in cell.trainable_weights] == [id(cell.gate_w)]
        assert cell.count_params() == 7 * 3 + 3

    def test_later_calls_find_them_again(self) -> None:
        cell = ByGetVariable()
        first = _run(cell)
        before = list(cell.parameters())
        with cw.variable_scope("elsewhere"):
            assert torch.equal(_run(cell), first)
        assert all(a is b for a, b in zip(before, cell.parameters(), strict=True))

    def test_cells_do_not_share_them(self) -> None:
        one, other = ByGetVariable(), ByGetVariable()
        _run(one)
        _run(other)
        assert one.gate_w is not other.gate_w

    def test_in_a_store_they_collide_and_share(self) -> None:
        with cw.VariableStore() as store:
            one = ByGetVariable()
            _run(one)
            with pytest.raises(cw.ScopeError, match="rnn/by_get_variable/gate/w"):
                _run(ByGetVariable())
            with cw.variable_scope(cw.get_variable_scope(), reuse=True):
                other = ByGetVariable()
                _run(other)
        assert other.gate_w is one.gate_w
        assert list(store.variables) == ["rnn/by_get_variable/gate/w", "rnn/by_get_variable/b"]

    def test_another_shape_later_is_an_error(self) -> None:
        cell = ByGetVariable()
        cell(X, H)
        with pytest.raises(cw.ShapeError, match=r"gate/w' of shape \[7, 3\].*got \[8, 3\]"):
            cell(torch.ones(2, 5), H)

    def test_a_variable_that_comes_late_is_an_error(self) -> None:
        class Late(ByGetVariable):
            calls = 0

            def call(self, inputs: torch.Tensor, state: torch.Tensor) -> Any:
                self.calls += 1
                if self.calls == 2:
                    cw.get_variable("late", [1])
                return super().call(inputs, state)

        cell = Late()
        cell(X, H)
        with pytest.raises(cw.ScopeError, match=r"'late/late'.*first call"):
            cell(X, H)

    def test_the_same_name_twice_in_a_call_collides(self) -> None:
        class Twice(cw.RNNCell):
            state_size = output_size = N

            def call(self, inputs: torch.Tensor, state: torch.Tensor) -> Any:
                return state + cw.get_variable("w", [N]) + cw.get_variable("w", [N]), state

        with pytest.raises(cw.ScopeError, match=r"new variable 'twice/w'"):
            Twice()(X, H)

    def test_names_that_a_module_has_already(self) -> None:
        """`weights` or `forward` as a variable's name must not hide a member, and two names never share one place."""
        suffixes = ["name", "weights", "forward", "training", "a/b", "a_b", "a.b", "cell", "_x"]

        class Awkward(cw.RNNCell):
            state_size = output_size = N

            def call(self, inputs: torch.Tensor, state: torch.Tensor) -> Any:
                return state + sum(cw.get_variable(suffix, [N]) for suffix in suffixes), state

        one, other = Awkward(), Awkward()
        first = one(X, H)[0]
        assert list(cw.variable_names(one)) == [f"awkward/{suffix}" for suffix in suffixes]
        assert len(one.state_dict()) == len(suffixes) == len(one.weights)
        assert one.name == "awkward_1" and one.training is True
        other.load_state_dict(one.state_dict())
        assert torch.equal(other(X, H)[0], first)


class TestByAddWeight:
    def test_an_attribute_of_another_name(self) -> None:
        """TF1's own cells keep `add_variable("kernel")` as `self._kernel`: one parameter, under the suffix."""
        cell = ByAddWeight()
        _run(cell)
        assert cell._kernel is cell.kernel
        assert list(cell.state_dict()) == ["kernel", "bias"]
        assert [name for name, _ in cell.named_parameters()] == ["kernel", "bias"]
        assert list(cw.variable_names(cell)) == ["rnn/by_add_weight/kernel", "rnn/by_add_weight/bias"]

    def test_that_attribute_follows_a_replaced_parameter(self) -> None:
        cell = ByAddWeight()
        _run(cell)
        values = {name: torch.zeros_like(value) for name, value in cell.named_parameters()}
        out, _ = torch.func.functional_call(cell, values, (X, H + 1))
        assert (out == 0).all()
        cell.kernel = nn.Parameter(torch.zeros_like(cell.kernel))
        assert (cell(X, H)[0] == 0).all()

    def test_build_by_hand(self) -> None:
        cell = ByAddWeight()
        cell.build((None, 4))
        assert list(cw.variable_names(cell)) == ["by_add_weight/kernel", "by_add_weight/bias"]


class TestNested:
    def test_names_lie_under_the_outer_cell(self) -> None:
        cell = Nested()
        _run(cell)
        assert list(cw.variable_names(cell)) == [
            *[f"rnn/nested/gru_cell/{p}/{k}" for p in ("gates", "candidate") for k in ("kernel", "bias")],
            "rnn/nested/by_add_weight/kernel",
            "rnn/nested/by_add_weight/bias",
        ]

    def test_two_inner_cells_of_a_class_are_numbered(self) -> None:
        class Two(Nested):
            def __init__(self) -> None:
                super().__init__()
                self.second = cw.GRUCell(N)

            def call(self, inputs: torch.Tensor, state: torch.Tensor) -> Any:
                out, state = super().call(inputs, state)
                return self.second(out, state)

        cell = Two()
        _run(cell)
        heads = {name.rsplit("/", 2)[0] for name in cw.variable_names(cell) if "gru" in name}
        assert heads == {"rnn/two/gru_cell", "rnn/two/gru_cell_1"}

    def test_inner_layers_keep_their_scope(self) -> None:
        cell = Nested()
        with cw.variable_scope("a"):
            cell(X, H)
        with cw.variable_scope("b"):
            cell(X, H)
        assert all(name.startswith("a/nested/") for name in cw.variable_names(cell))

    def test_weights_are_those_of_layers_inside_too(self) -> None:
        """As TF1's `RNNCell` collects what is made while it is called: each once, in creation order."""

        class Mixed(Nested):
            def call(self, inputs: torch.Tensor, state: torch.Tensor) -> Any:
                first = cw.get_variable("first", [N], trainable=False)
                out, state = super().call(inputs, state)
                out, state = self.inner(out[:, [0, *range(N)]], state)
                return out + first + cw.get_variable("last", [N]), state

        for cell in (Mixed(), cw.MultiRNNCell([Mixed()]).cells[0], cw.DropoutWrapper(Mixed()).cell):
            assert cell.weights == []
            _run(cell)
            names = {id(variable): name for name, variable in cw.variable_names(cell).items()}
            inside = ["gru_cell/gates/kernel", "gru_cell/gates/bias", "gru_cell/candidate/kernel"]
            inside += ["gru_cell/candidate/bias", "by_add_weight/kernel", "by_add_weight/bias"]
            found = [names[id(weight)].removeprefix("rnn/mixed/") for weight in cell.trainable_weights]
            assert found == [*inside, "last"]
            assert [names[id(weight)] for weight in cell.non_trainable_weights] == ["rnn/mixed/first"]
            assert cell.count_params() == sum(weight.size for weight in cell.get_weights()) > cell.inner.count_params()

    def test_weights_inside_follow_copies_and_layers_that_are_not_trainable(self) -> None:
        cell = Nested(trainable=False)
        _run(cell)
        assert cell.trainable_weights == [] and len(cell.non_trainable_weights) == 6
        for other in (copy.deepcopy(cell), pickle.loads(pickle.dumps(cell))):
            assert {id(w) for w in other.weights} <= {id(p) for p in other.parameters()} and len(other.weights) == 6
        cell = Nested()
        cell.inner.trainable = False
        _run(cell)
        assert (len(cell.trainable_weights), len(cell.non_trainable_weights)) == (2, 4)
        cell.double()
        assert {weight.dtype for weight in cell.weights} == {torch.float64}

    def test_a_failed_first_call_leaves_no_weights_inside(self) -> None:
        cell = Nested()
        with pytest.raises(RuntimeError):
            cell(X, H.to("meta"))
        assert cell.weights == []
        _run(cell)
        assert len(cell.weights) == 6

    def test_a_cell_that_was_called_before_counts_for_itself(self) -> None:
        cell = Nested()
        cell.inner(X, H)
        cell(X, H)
        assert len(cell.weights) == 2 and len(cell.inner.weights) == 4

    def test_in_a_store_every_variable_is_kept(self) -> None:
        with cw.VariableStore() as store:
            cell = Nested()
            _run(cell)
        assert store.variables == cw.variable_names(cell)


@each_kind
class TestEveryKind:
    def test_trains(self, kind: str) -> None:
        cell = KINDS[kind]()
        _run(cell)
        optimizer = torch.optim.SGD(cell.parameters(), lr=0.05)
        losses = []
        for _ in range(5):
            loss = (_run(cell) - 0.3).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses == sorted(losses, reverse=True)
        assert all(p.grad is not None for p in cell.parameters() if p.requires_grad)

    def test_a_state_dict_loads_into_an_unbuilt_one(self, kind: str) -> None:
        cell, other = KINDS[kind](), KINDS[kind]()
        expected = _run(cell)
        assert not other.load_state_dict(cell.state_dict()).missing_keys
        assert torch.equal(_run(other), expected)
        assert list(other.state_dict()) == list(cell.state_dict())

    def test_copies(self, kind: str) -> None:
        cell = KINDS[kind]()
        expected = _run(cell)
        for other in (copy.deepcopy(cell), pickle.loads(pickle.dumps(cell))):
            assert torch.equal(_run(other), expected)
            assert list(cw.variable_names(other)) == list(cw.variable_names(cell))
            with torch.no_grad():
                for parameter in other.parameters():
                    parameter.zero_()
            assert torch.equal(_run(cell), expected)
            assert not torch.equal(_run(other), expected)

    def test_in_every_wrapper(self, kind: str) -> None:
        stack = cw.MultiRNNCell(
            [cw.DropoutWrapper(cw.DeviceWrapper(KINDS[kind](), "cpu")), cw.ResidualWrapper(KINDS[kind]())]
        )
        assert _run(stack).shape == (2, 5, N)
        assert all(name.startswith("rnn/multi_rnn_cell/cell_") for name in cw.variable_names(stack))

    def test_recorded(self, kind: str) -> None:
        with cw.Graph():
            inputs = cw.Input((None, None, 4))
            cell = KINDS[kind]()
            out, _ = cw.dynamic_rnn(cell, inputs, dtype="float32")
            model = cw.Model(inputs, out)
        assert torch.equal(model(SEQUENCE), _run(cell))
        assert set(cw.variable_names(model)) == set(cw.variable_names(cell))
        assert len(list(model.parameters())) == len(list(cell.parameters()))
