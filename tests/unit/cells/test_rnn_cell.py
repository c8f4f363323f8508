"""RNNCell as a base class, and what counts as a cell."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

import cellweave as cw
from cellweave.cells import cell_zero_state, require_rnn_cell

X = torch.linspace(-1.0, 1.0, 8).reshape(2, 4)
H = torch.zeros(2, 3)


class InBuild(cw.RNNCell):
    """Makes its weight in `build`."""

    state_size = 3
    output_size = 3

    def build(self, input_shape: Any) -> None:
        self.mix = self.add_weight("mix", [input_shape[1], 3])
        super().build(input_shape)

    def call(self, inputs: Any, state: Any) -> Any:
        return inputs @ self.mix, state + 1


class InCall(cw.RNNCell):
    """Makes its weight by `get_variable`, as TF1's own cells of old did."""

    state_size = 3
    output_size = 3

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.calls = 0

    def call(self, inputs: Any, state: Any) -> Any:
        self.calls += 1
        mix = cw.get_variable("mix", [inputs.shape[1], 3])
        with cw.variable_scope("inner"):
            bias = cw.get_variable("bias", [3], initializer=cw.initializers.Ones())
        return inputs @ mix + bias, state + 1


@pytest.mark.parametrize("kind, names", [(InBuild, ["mix"]), (InCall, ["mix", "inner/bias"])])
def test_a_users_cell_owns_its_variables(kind: Any, names: list[str]) -> None:
    cell = kind()
    xs = X[None].expand(2, 2, 4)
    _, state = cw.dynamic_rnn(cell, xs, dtype="float32")
    assert (state == 2).all()
    base = "in_build" if kind is InBuild else "in_call"
    assert list(cw.variable_names(cell)) == [f"rnn/{base}/{name}" for name in names]
    assert [n for n, _ in cell.named_parameters()] == [name.replace("/", "_") for name in names]
    before = list(cell.weights)
    cell(X, H)
    assert all(a is b for a, b in zip(before, cell.weights, strict=True))


@pytest.mark.parametrize("kind", [InBuild, InCall])
def test_a_users_cell_loads_before_it_is_built(kind: Any) -> None:
    cell, other = kind(), kind()
    expected = cell(X, H)[0]
    other.load_state_dict(cell.state_dict())
    assert torch.equal(other(X, H)[0], expected)
    assert torch.equal(copy.deepcopy(cell)(X, H)[0], expected)


def test_sizes_must_be_given() -> None:
    class Bare(cw.RNNCell):
        pass

    for member in ("state_size", "output_size"):
        with pytest.raises(NotImplementedError, match=f"Bare.{member}"):
            getattr(Bare(), member)


def test_base_constructor() -> None:
    cell = InBuild(trainable=False, name="foo", dtype="float64")
    cell(X.double(), H.double())
    assert (cell.name, cell.dtype, cell.trainable_weights) == ("foo", "float64", [])
    assert cell.get_config() == {"name": "foo", "trainable": False, "dtype": "float64"}
    with pytest.raises(cw.ArgumentTypeError, match="InBuild.*'units'"):
        InBuild(units=3)


def test_scope_of_a_call_replaces_the_name() -> None:
    cell = InCall()
    cell(X, H, scope="zed")
    assert cell.scope_name == "zed" and list(cw.variable_names(cell)) == ["zed/mix", "zed/inner/bias"]
    cell(X, H, scope="other")
    assert cell.scope_name == "zed"


def test_keywords_reach_call() -> None:
    class Scaled(cw.RNNCell):
        state_size = output_size = 4

        def call(self, inputs: Any, state: Any, factor: float = 1.0) -> Any:
            return inputs * factor, state

    assert torch.equal(Scaled()(X, X, factor=3.0)[0], 3 * X)


def test_apply_is_a_call() -> None:
    cell = cw.GRUCell(3)
    assert torch.equal(cell.apply(X, H)[0], cell(X, H)[0])


def test_module_hooks_run() -> None:
    cell, seen = cw.GRUCell(3), []
    cell.register_forward_hook(lambda module, args, output: seen.append(output[0].shape))
    cell(X, H)
    cell(X, H)
    assert seen == [(2, 3), (2, 3)]


class Plain:
    """A cell-like object that knows nothing of the library."""

    state_size = 3
    output_size = 4

    def __call__(self, inputs: Any, state: Any, scope: Any = None) -> Any:
        return inputs, state + 1

    def zero_state(self, batch_size: Any, dtype: Any) -> Any:
        return torch.full((batch_size, 3), 7.0, dtype=dtype)


class Newer:
    """A cell-like object of the newer form."""

    state_size = 3
    output_size = 4

    def __call__(self, inputs: Any, state: Any) -> Any:
        return inputs, state + 1

    def get_initial_state(self, inputs: Any = None, batch_size: Any = None, dtype: Any = None) -> Any:
        return torch.full((batch_size, 3), 9.0, dtype=dtype)


@pytest.mark.parametrize("kind, start", [(Plain, 7.0), (Newer, 9.0)])
def test_cell_like_objects_are_cells(kind: Any, start: float) -> None:
    require_rnn_cell("here", kind())
    assert (cell_zero_state(kind(), 2, torch.float32) == start).all()
    out, state = cw.dynamic_rnn(kind(), X[None], dtype="float32")
    assert torch.equal(out, X[None]) and (state == start + 2).all()
    wrapper = cw.DropoutWrapper(kind(), output_keep_prob=0.5, seed=1)
    out, state = cw.dynamic_rnn(wrapper, X[None], dtype="float32")
    assert (state == start + 2).all() and (out == 0).any()
    out, state = cw.MultiRNNCell([kind(), cw.GRUCell(3)])(X[:1], (torch.zeros(1, 3), torch.zeros(1, 3)))
    assert out.shape == (1, 3)


def test_what_is_no_cell() -> None:
    for thing in (None, "x", torch.nn.Linear(2, 2), lambda x, s: (x, s), cw.GRUCell, Plain):
        with pytest.raises(cw.ArgumentTypeError, match="here: expected a recurrent cell, got"):
            require_rnn_cell("here", thing)


def test_what_is_missing_is_named() -> None:
    class NoOutput:
        state_size = 3
        zero_state = None

        def __call__(self) -> None:
            pass

    with pytest.raises(cw.ArgumentTypeError, match="no output_size"):
        require_rnn_cell("here", NoOutput())


def test_a_module_that_is_no_cell_is_called_by_its_class() -> None:
    with pytest.raises(cw.ArgumentTypeError, match="expected a recurrent cell, got torch.nn.modules.rnn.GRUCell "):
        require_rnn_cell("here", torch.nn.GRUCell(3, 5))
