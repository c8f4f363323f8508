"""State dicts: into built and unbuilt layers, partial, wrong, with stores and dtypes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import cellweave as cw

N = 3
X = torch.linspace(-1.0, 1.0, 8).reshape(2, 4)
H = torch.zeros(2, N)
SEQUENCE = X[:, None].expand(2, 5, 4)
MAKERS: dict[str, Callable[[], Any]] = {
    "basic_rnn": lambda: cw.BasicRNNCell(N),
    "gru": lambda: cw.GRUCell(N),
    "basic_lstm": lambda: cw.BasicLSTMCell(N),
    "lstm": lambda: cw.LSTMCell(N, use_peepholes=True, num_proj=2),
    "multi": lambda: cw.MultiRNNCell([cw.LSTMCell(N), cw.GRUCell(N)]),
    "dropout": lambda: cw.DropoutWrapper(cw.GRUCell(N), output_keep_prob=0.5, seed=3),
    "residual": lambda: cw.ResidualWrapper(cw.GRUCell(4)),
    "dropout_v2": lambda: cw.RNNCellDropoutWrapper(cw.GRUCell(N)),
    "keras_lstm": lambda: cw.RNNCellResidualWrapper(cw.keras.SimpleRNNCell(4)),
    "stack": lambda: cw.MultiRNNCell([cw.MultiRNNCell([cw.DropoutWrapper(cw.GRUCell(N))]), cw.LSTMCell(N)]),
}


def _run(cell: Any) -> torch.Tensor:
    return cw.dynamic_rnn(cell, SEQUENCE, dtype="float32")[0]


def _called(cell: Any = None) -> Any:
    cell = cw.GRUCell(N) if cell is None else cell
    _run(cell)
    return cell


def _same_weights(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.equal(v, w) for (a, v), (b, w) in pairs)


@pytest.mark.parametrize("kind", MAKERS)
class TestRoundTrip:
    def test_built_to_built(self, kind: str) -> None:
        one, other = _called(MAKERS[kind]()), _called(MAKERS[kind]())
        other.load_state_dict(one.state_dict())
        assert _same_weights(one, other)
        assert torch.equal(_run(one), _run(other))

    def test_built_to_unbuilt(self, kind: str) -> None:
        one, other = _called(MAKERS[kind]()), MAKERS[kind]()
        other.load_state_dict(one.state_dict())
        assert _same_weights(one, other)
        assert torch.equal(_run(one), _run(other))
        assert _same_weights(one, other)
        assert list(cw.variable_names(other)) == list(cw.variable_names(one))

    def test_through_plain_dicts(self, kind: str) -> None:
        """As safetensors gives them back: no metadata, another order."""
        one, other = _called(MAKERS[kind]()), MAKERS[kind]()
        other.load_state_dict(dict(sorted(one.state_dict().items(), reverse=True)))
        assert torch.equal(_run(one), _run(other))

    def test_into_a_parent(self, kind: str) -> None:
        one, other = nn.ModuleDict({"rnn": _called(MAKERS[kind]())}), nn.ModuleDict({"rnn": MAKERS[kind]()})
        other.load_state_dict(one.state_dict())
        assert torch.equal(_run(one["rnn"]), _run(other["rnn"]))

    def test_unbuilt_to_unbuilt(self, kind: str) -> None:
        """A model saved before its first call has no weights, and none are missed."""
        one, other = MAKERS[kind](), MAKERS[kind]()
        result = other.load_state_dict(one.state_dict())
        assert (result.missing_keys, result.unexpected_keys) == ([], [])
        _run(other)

    def test_missing_weights_are_named(self, kind: str) -> None:
        """In strict mode an unbuilt layer must not quietly start at random."""
        state = _called(MAKERS[kind]()).state_dict()
        weights = [key for key in state if not key.endswith("_extra_state")]
        for gone in (weights[:1], weights[-1:], weights):
            partial = {key: value for key, value in state.items() if key not in gone}
            with pytest.raises(RuntimeError, match="Missing key"):
                MAKERS[kind]().load_state_dict(partial)

    def test_unexpected_entries_are_named(self, kind: str) -> None:
        state = {**_called(MAKERS[kind]()).state_dict(), "surprise": torch.ones(1)}
        for target in (MAKERS[kind](), _called(MAKERS[kind]())):
            with pytest.raises((RuntimeError, cw.ScopeError), match=r"surprise"):
                target.load_state_dict(state)
                _run(target)  # a layer that may make any variable learns here that it makes no such one


class TestPartial:
    def test_not_strict_keeps_what_comes_and_starts_the_rest(self) -> None:
        one, other = _called(), cw.GRUCell(N)
        state = one.state_dict()
        del state["gates_bias"], state["candidate_kernel"]
        result = other.load_state_dict(state, strict=False)
        assert result.missing_keys == ["gates_bias", "candidate_kernel"]
        _run(other)
        assert torch.equal(other.gates_kernel, one.gates_kernel)
        assert (other.gates_bias == 1).all()
        assert not torch.equal(other.candidate_kernel, one.candidate_kernel)

    def test_one_layer_of_a_stack(self) -> None:
        one = _called(MAKERS["multi"]())
        state = {key: value for key, value in one.state_dict().items() if key.startswith("cells.1.")}
        other = MAKERS["multi"]()
        result = other.load_state_dict(state, strict=False)
        assert result.missing_keys == ["cells.0.kernel", "cells.0.bias"]
        _run(other)
        assert torch.equal(other.cells[1].gates_kernel, one.cells[1].gates_kernel)

    def test_nothing_into_an_unbuilt_cell(self) -> None:
        with pytest.raises(RuntimeError, match=r"Missing key.*gates_kernel"):
            cw.GRUCell(N).load_state_dict({})
        other = cw.GRUCell(N)
        other.load_state_dict({}, strict=False)
        assert _run(other).shape == (2, 5, N)

    def test_optional_weights(self) -> None:
        """Peepholes belong to the cell that has them."""
        with_peepholes, without = _called(cw.LSTMCell(N, use_peepholes=True)), _called(cw.LSTMCell(N))
        with pytest.raises(RuntimeError, match=r"Missing key.*w_f_diag"):
            cw.LSTMCell(N, use_peepholes=True).load_state_dict(without.state_dict())
        with pytest.raises(RuntimeError, match=r"Unexpected key.*w_f_diag"):
            cw.LSTMCell(N).load_state_dict(with_peepholes.state_dict())


class TestWrongValues:
    @pytest.mark.parametrize("shape", [(2, 2), (7,), (7, 6, 1), (8, 6)], ids=str)
    def test_another_shape(self, shape: tuple[int, ...]) -> None:
        state = {**_called().state_dict(), "gates_kernel": torch.ones(shape)}
        with pytest.raises(RuntimeError, match=r"size mismatch for gates_kernel"):
            _called().load_state_dict(state)
        unbuilt = cw.GRUCell(N)
        with pytest.raises((cw.ShapeError, RuntimeError), match=r"gates_kernel"):
            unbuilt.load_state_dict(state)
            _run(unbuilt)

    def test_the_right_one_afterwards(self) -> None:
        one, other = _called(), cw.GRUCell(N)
        other.load_state_dict({**one.state_dict(), "gates_kernel": torch.ones(2, 2)})
        with pytest.raises(cw.ShapeError, match=r"gates_kernel of shape \[7, 6\], got \[2, 2\] from the loaded state"):
            _run(other)
        other.load_state_dict(one.state_dict())
        assert torch.equal(_run(other), _run(one))

    def test_inputs_that_do_not_go_with_the_loaded_weights(self) -> None:
        one, other = _called(), cw.GRUCell(N)
        other.load_state_dict(one.state_dict())
        with pytest.raises(cw.ShapeError, match=r"gates_kernel"):
            other(torch.ones(2, 9), H)
        assert torch.equal(_run(other), _run(one))

    def test_a_later_load_wins(self) -> None:
        one, two, other = _called(), _called(), cw.GRUCell(N)
        other.load_state_dict(one.state_dict())
        other.load_state_dict(two.state_dict())
        assert torch.equal(_run(other), _run(two))

    def test_an_old_load_of_another_depth_wins_no_more(self) -> None:
        deep = cw.GRUCell(N)
        deep.build([None, 9])
        one, other = _called(), cw.GRUCell(N)
        other.load_state_dict(deep.state_dict())
        other.load_state_dict(one.state_dict())
        assert torch.equal(_run(other), _run(one))


class TestDtypes:
    def test_the_loaded_dtype_is_the_layers(self) -> None:
        one, other = cw.GRUCell(N, dtype="float64"), cw.GRUCell(N)
        one.build([None, 4])
        other.load_state_dict(one.state_dict())
        assert other.dtype == "float64"
        assert other(X.double(), H.double())[0].dtype == torch.float64

    def test_a_layers_own_dtype_wins(self) -> None:
        other = cw.GRUCell(N, dtype="float64")
        other.load_state_dict(_called().state_dict())
        assert {weight.dtype for weight in other.parameters()} == {torch.float64}
        assert other(X.double(), H.double())[0].dtype == torch.float64

    def test_into_a_built_layer_values_are_converted(self) -> None:
        other = _called()
        other.load_state_dict({key: value.double() for key, value in _called().state_dict().items()})
        assert {weight.dtype for weight in other.parameters()} == {torch.float32}

    @pytest.mark.parametrize("convert", ["double", "half", "bfloat16"])
    def test_converted_between_loading_and_the_first_call(self, convert: str) -> None:
        one, other = _called(), cw.GRUCell(N)
        other.load_state_dict(one.state_dict())
        getattr(other, convert)()
        dtype = getattr(one, convert)().gates_kernel.dtype
        assert torch.equal(other(X.to(dtype), H.to(dtype))[0], one(X.to(dtype), H.to(dtype))[0])

    def test_moved_between_loading_and_the_first_call(self) -> None:
        other = cw.GRUCell(N)
        other.load_state_dict(_called().state_dict())
        other.to("meta")
        assert other(X.to("meta"), H.to("meta"))[0].device.type == "meta"


class TestLoadedButUnbuilt:
    def test_weights_are_parameters_already(self) -> None:
        """An optimizer made before the first call trains what the first call uses."""
        one, other = _called(), cw.GRUCell(N)
        other.load_state_dict(one.state_dict())
        optimizer = torch.optim.SGD(other.parameters(), lr=1.0)
        _run(other).sum().backward()
        optimizer.step()
        assert not torch.equal(other.gates_kernel, one.gates_kernel)

    def test_copies(self) -> None:
        one, other = _called(), cw.GRUCell(N)
        other.load_state_dict(one.state_dict())
        clone = copy.deepcopy(other)
        assert torch.equal(_run(clone), _run(one))
        assert clone.gates_kernel is not other.gates_kernel

    def test_trainability_is_the_layers(self) -> None:
        other = cw.GRUCell(N, trainable=False)
        other.load_state_dict(_called().state_dict())
        _run(other)
        assert not any(weight.requires_grad for weight in other.parameters())

    def test_values_are_copied(self) -> None:
        state = _called().state_dict()
        other = cw.GRUCell(N)
        other.load_state_dict(state)
        state["gates_kernel"].zero_()
        assert other.gates_kernel.abs().sum() > 0

    def test_assigned_values_are_not(self) -> None:
        state = _called().state_dict()
        other = cw.GRUCell(N)
        other.load_state_dict(state, assign=True)
        _run(other)
        assert other.gates_kernel.data_ptr() == state["gates_kernel"].data_ptr()

    def test_weights_made_on_the_meta_device_take_assigned_values(self) -> None:
        one = _called()
        with torch.device("meta"):
            other = cw.GRUCell(N)
            other.build([None, 4])
        other.load_state_dict(one.state_dict(), assign=True)
        assert torch.equal(_run(other), _run(one))


class TestStores:
    def test_a_store_keeps_the_loaded_parameter(self) -> None:
        state = _called().state_dict()
        with cw.VariableStore() as store:
            cell = cw.GRUCell(N)
            cell.load_state_dict(state)
            _run(cell)
        assert store.variables == cw.variable_names(cell)
        assert torch.equal(cell.gates_kernel, state["gates_kernel"])

    def test_a_sharing_cell_loads_into_what_is_shared(self) -> None:
        state = _called().state_dict()
        with cw.VariableStore() as store:
            first = cw.GRUCell(N)
            first(X, H)
            second = cw.GRUCell(N, name="gru_cell", reuse=True)
            second.load_state_dict(state)
            second(X, H)
        assert second.gates_kernel is first.gates_kernel is store.variables["gru_cell/gates/kernel"]
        assert torch.equal(first.gates_kernel, state["gates_kernel"])

    def test_loading_does_not_change_names(self) -> None:
        with cw.VariableStore() as store, cw.variable_scope("a"):
            cell = cw.GRUCell(N)
            cell.load_state_dict(_called_outside())
            cell(X, H)
        assert list(store.variables) == list(cw.variable_names(cell))
        assert cell.scope_name == "a/gru_cell"


def _called_outside() -> dict[str, torch.Tensor]:
    cell = cw.GRUCell(N)
    return {"gates_kernel": torch.ones(7, 6), "gates_bias": torch.ones(6)} | {
        "candidate_kernel": torch.ones(7, N),
        "candidate_bias": torch.ones(cell.output_size),
    }


def test_buffers_and_parameters_of_a_users_layer_are_its_own() -> None:
    class Own(cw.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("steps", torch.zeros(1))
            self.gain = nn.Parameter(torch.ones(1))

        def build(self, input_shape: Any) -> None:
            self.add_weight("kernel", [input_shape[-1], 2])

        def call(self, inputs: torch.Tensor) -> torch.Tensor:
            self.steps += 1
            return inputs @ self.kernel * self.gain

    one, other = Own(), Own()
    with torch.no_grad():
        one.gain.fill_(3.0)
    expected = one(X)
    assert [id(weight) for weight in one.weights] == [id(one.kernel)]
    other.load_state_dict(one.state_dict())
    assert other.steps.item() == 1
    assert torch.equal(other(X), expected)
