"""When a cell's `spec()` still tells what it computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import cellweave as cw
from cellweave import keras
from cellweave.specs import DeviceSpec, DropoutSpec, GRUSpec, LSTMSpec, ResidualSpec, RNNSpec, StackSpec, describe

CELLS: dict[str, Any] = {
    "BasicRNNCell": (lambda: cw.BasicRNNCell(3), RNNSpec(3)),
    "GRUCell": (lambda: cw.GRUCell(3, activation="relu"), GRUSpec(3, "relu")),
    "BasicLSTMCell": (lambda: cw.BasicLSTMCell(3), LSTMSpec(3, forget_bias=1.0)),
    "LSTMCell": (
        lambda: cw.LSTMCell(3, use_peepholes=True, cell_clip=2, num_proj=2),
        LSTMSpec(3, forget_bias=1.0, peepholes=True, cell_clip=2.0, projection=2),
    ),
    "keras.SimpleRNNCell": (lambda: keras.SimpleRNNCell(3), RNNSpec(3, joined_kernel=False)),
    "keras.GRUCell": (
        lambda: keras.GRUCell(3),
        GRUSpec(3, reset_after=True, gate_order="urc", joined_kernel=False),
    ),
    "keras.LSTMCell": (
        lambda: keras.LSTMCell(3),
        LSTMSpec(3, gate_order="ifjo", joined_kernel=False, unit_forget_bias=True),
    ),
}


@pytest.mark.parametrize("name", CELLS)
def test_cells_of_the_library(name: str) -> None:
    make, spec = CELLS[name]
    cell = make()
    assert describe(cell) == (spec, "") and cell.spec() == spec
    cell.build([2, 5])
    weights = cell.named_weights()
    assert {name: tuple(weight.shape) for name, weight in weights.items()} == {
        weight.name: weight.shape for weight in spec.weights(5)
    }
    assert all(any(weight is own for own in cell.parameters()) for weight in weights.values())


def test_weights_that_are_not_there_yet() -> None:
    with pytest.raises(AttributeError, match="gates_kernel"):
        cw.GRUCell(3).named_weights()


def test_wrappers_of_the_library() -> None:
    gru, spec = cw.GRUCell(3), GRUSpec(3)
    half = {"input_keep_prob": 0.5, "variational_recurrent": True, "input_size": 3, "dtype": "float32"}
    assert cw.DropoutWrapper(gru, **half, mask_per_row=True).spec() == DropoutSpec(spec, 0.5, 1.0, 1.0, True, True)
    assert cw.RNNCellDropoutWrapper(gru, state_keep_prob=0.25).spec() == DropoutSpec(spec, 1.0, 0.25, 1.0, False)
    fed = cw.DropoutWrapper(gru, output_keep_prob=torch.tensor(0.5))
    assert fed.spec() == DropoutSpec(spec, 1.0, 1.0, None, False)
    for residual in (cw.ResidualWrapper, cw.RNNCellResidualWrapper):
        assert residual(gru).spec() == ResidualSpec(spec, is_sum=True)
        assert residual(gru, residual_fn=lambda x, y: y).spec() == ResidualSpec(spec, is_sum=False)
    for device in (cw.DeviceWrapper, cw.RNNCellDeviceWrapper):
        assert device(gru, "/cpu:0").spec() == DeviceSpec(spec, "cpu")
    stack = cw.MultiRNNCell([gru, cw.ResidualWrapper(gru), object_cell()])
    assert stack.spec() == StackSpec((spec, ResidualSpec(spec, True), None))
    assert cw.MultiRNNCell([gru, gru], state_is_tuple=False).spec() == StackSpec((spec, spec), joined_state=True)


def object_cell() -> Any:
    class Cell(cw.RNNCell):
        state_size = output_size = 3

        def call(self, inputs: Any, state: Any) -> Any:
            return inputs, state

    return Cell()


class Renamed(cw.GRUCell):
    """Changes nothing that a step computes."""

    extra = 1
    _extra = 2

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.calls = self._mine = 0

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)

    def zero_state(self, batch_size: Any, dtype: Any) -> Any:
        return super().zero_state(batch_size, dtype)

    def _my_own(self) -> None:
        """A private method that no base has."""


class Mixed:
    """A mixin with a step of its own."""

    def call(self, inputs: Any, state: Any) -> Any:
        return inputs, state


def _with(name: str, value: Any) -> type:
    return type("Changed", (cw.GRUCell,), {name: value})


def test_a_subclass_that_changes_nothing_keeps_its_spec() -> None:
    assert describe(Renamed(3)) == (GRUSpec(3), "")


@pytest.mark.parametrize(
    "name, value",
    [
        ("call", lambda self, inputs, state: (inputs, state)),
        ("forward", lambda self, *args: args),
        ("__call__", lambda self, *args: args),
        ("state_size", property(lambda self: 3)),
        ("output_size", 3),
        ("_checked", lambda self, *args, **kwargs: None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_subclass_that_changes_a_step_loses_it(name: str, value: Any) -> None:
    cell = _with(name, value)(3)
    assert describe(cell) == (None, f"Changed has its own {name}, which spec() of GRUCell does not know")
    below = type("Below", (type(cell),), {})(3)
    assert describe(below)[0] is None
    back = type("Back", (type(cell),), {"spec": lambda self: GRUSpec(7)})(3)
    assert describe(back) == (GRUSpec(7), ""), "it says again what it computes"


def test_a_mixin_counts_by_its_place() -> None:
    before = type("Before", (Mixed, cw.GRUCell), {})(3)
    after = type("After", (cw.GRUCell, Mixed), {})(3)
    assert describe(before) == (None, "Mixed has its own call, which spec() of GRUCell does not know")
    assert describe(after) == (GRUSpec(3), "")


def test_a_wrapper_that_is_changed() -> None:
    class Louder(cw.DropoutWrapper):
        def _drop(self, *args: Any) -> Any:
            return 2 * super()._drop(*args)

    assert describe(Louder(cw.GRUCell(3), 0.5)) == (
        None, "Louder has its own _drop, which spec() of DropoutWrapper does not know",
    )  # fmt: skip
    assert describe(cw.ResidualWrapper(Louder(cw.GRUCell(3)))) == (ResidualSpec(None, True), "")


def test_an_object_with_a_step_of_its_own() -> None:
    cell = cw.GRUCell(3)
    cell.call = lambda inputs, state: (inputs, state)  # type: ignore[method-assign]
    assert describe(cell) == (None, "this GRUCell has its own call, which its spec() does not know")
    cell.spec = lambda: GRUSpec(5)  # type: ignore[method-assign]
    assert describe(cell) == (GRUSpec(5), "")
    del cell.call, cell.spec
    assert describe(cell) == (GRUSpec(3), "")


def test_what_says_nothing() -> None:
    assert describe(object_cell()) == (None, "Cell has no spec()")
    assert describe(3) == (None, "int has no spec()")
    cell = cw.GRUCell(3)
    cell.spec = lambda: {"units": 3}  # type: ignore[assignment,method-assign]
    assert describe(cell) == (None, "spec() of GRUCell gives dict, which is no spec")
