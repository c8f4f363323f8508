"""ResidualWrapper."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch

import cellweave as cw

X = torch.linspace(-1.0, 1.0, 8).reshape(2, 4)
H = torch.linspace(-0.4, 0.4, 8).reshape(2, 4)


def test_inputs_are_added() -> None:
    cell = cw.GRUCell(4)
    inner, inner_state = cell(X, H)
    out, state = cw.ResidualWrapper(cell)(X, H)
    assert torch.equal(out, X + inner) and torch.equal(state, inner_state)


def test_own_function_gets_inputs_then_outputs() -> None:
    cell = cw.GRUCell(3)
    inner, _ = cell(X, H[:, :3])
    wrapper = cw.ResidualWrapper(cell, lambda x, y: torch.cat([2 * x, y], dim=1))
    out, _ = wrapper(X, H[:, :3])
    assert torch.equal(out, torch.cat([2 * X, inner], dim=1))
    assert wrapper.output_size == 3


def test_shapes_must_agree_without_one() -> None:
    with pytest.raises(cw.ShapeError, match=r"ResidualWrapper: expected inputs \[2, 3\].*got \[2, 4\]"):
        cw.ResidualWrapper(cw.GRUCell(3))(X, H[:, :3])


def test_shapes_are_not_broadcast() -> None:
    with pytest.raises(cw.ShapeError, match=r"ResidualWrapper: expected inputs \[2, 1\].*got \[2, 4\]"):
        cw.ResidualWrapper(cw.GRUCell(1))(X, H[:, :1])


class Nested(cw.RNNCell):
    """Takes and gives structures."""

    state_size = 4
    output_size: ClassVar[dict[str, Any]] = {"a": 4, "b": (4,)}

    def call(self, inputs: Any, state: Any) -> Any:
        return {"a": inputs["a"] * 2, "b": (inputs["b"][0] * 3,)}, state


def test_structures_are_added_leaf_by_leaf() -> None:
    out, _ = cw.ResidualWrapper(Nested())({"a": X, "b": (X,)}, H)
    assert torch.equal(out["a"], 3 * X) and torch.equal(out["b"][0], 4 * X)


@pytest.mark.parametrize("inputs", [{"a": X, "b": [X]}, {"a": X, "b": X[None]}, {"b": (X,), "a": X, "c": X}], ids=repr)
def test_structures_must_agree(inputs: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="ResidualWrapper"):
        cw.ResidualWrapper(Nested())(inputs, H)


def test_inside_and_outside_of_dropout() -> None:
    """Outside it adds the undropped input, inside the dropped one."""

    class Zero(cw.RNNCell):
        state_size = output_size = 4

        def call(self, inputs: Any, state: Any) -> Any:
            return inputs * 0, state

    outside = cw.ResidualWrapper(cw.DropoutWrapper(Zero(), input_keep_prob=0.5, seed=11))
    inside = cw.DropoutWrapper(cw.ResidualWrapper(Zero()), input_keep_prob=0.5, seed=11)
    assert torch.equal(outside(X, H)[0], X)
    dropped = inside(X, H)[0]
    assert (dropped == 0).any() and torch.equal(dropped[dropped != 0], 2 * X[dropped != 0])


def test_gradient_of_the_sum() -> None:
    x = X.clone().requires_grad_()
    wrapper = cw.ResidualWrapper(cw.BasicRNNCell(4))
    wrapper(x, H)
    with torch.no_grad():
        for weight in wrapper.cell.weights:
            weight.zero_()
    wrapper(x, H)[0].sum().backward()
    assert (x.grad == 1).all()


def _half(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return 0.5 * x + y


def test_config_round_trip_of_a_function() -> None:
    wrapper = cw.ResidualWrapper(cw.GRUCell(4), _half)
    config = wrapper.get_config()
    assert list(config) == [
        "name",
        "trainable",
        "dtype",
        "cell",
        "residual_fn",
        "residual_fn_type",
        "residual_fn_module",
    ]
    config["cell"] = wrapper.cell
    with pytest.raises(cw.ArgumentError, match="ResidualWrapper.from_config.*safe_mode=False"):
        cw.ResidualWrapper.from_config(config)
    other = cw.ResidualWrapper.from_config(config, safe_mode=False)
    assert torch.equal(other(X, H)[0], wrapper(X, H)[0])


def test_config_without_a_function() -> None:
    wrapper = cw.ResidualWrapper(cw.GRUCell(4), name="foo")
    config = wrapper.get_config()
    assert list(config) == ["name", "trainable", "dtype", "cell"] and config["name"] == "foo"
    other = cw.ResidualWrapper.from_config(config | {"cell": wrapper.cell})
    assert torch.equal(other(X, H)[0], wrapper(X, H)[0])
