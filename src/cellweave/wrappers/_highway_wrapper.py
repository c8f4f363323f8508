"""HighwayWrapper."""

from __future__ import annotations

from typing import Any

import torch

from cellweave import _nest
from cellweave._errors import ArgumentError, ShapeError
from cellweave._types import Nest, ShapeLike, shape_dims
from cellweave.cells import register
from cellweave.initializers import Constant
from cellweave.scopes import get_variable
from cellweave.specs import MapSpec, describe
from cellweave.wrappers._base import build_inside
from cellweave.wrappers._owning_wrapper import OwningWrapper


@register
class HighwayWrapper(OwningWrapper):
    """Mixes a cell's inputs and outputs by a gate.

        carry = sigmoid(x carry_w + carry_b);  output = x*carry + y*(1 - carry)

    Without `couple_carry_transform_gates`, `sigmoid(x transform_w + transform_b)` stands in place of `1 - carry`.

    Args:
        cell: Any recurrent cell whose outputs are as wide as its inputs.
        couple_carry_transform_gates: One gate for both.
        carry_bias_init: Starting value of `carry_b`; `transform_b` starts at its opposite.
        kwargs: `name`, `dtype`, `trainable`.
    Shapes: inputs and outputs `[B, I]`, `carry_w`, `transform_w` `[I, I]`, `carry_b`, `transform_b` `[I]`. As in TF1 it
        has no scope of its own: its weights lie beside the cell's scope, and come after the cell's weights.
    Raises:
        ArgumentTypeError: no cell. In a call, ShapeError: inputs and outputs of different shapes.
    Source: Srivastava et al. 2015; TF1 `tf.contrib.rnn.HighwayWrapper`.
    """

    _cell_comes_first = True

    def __init__(
        self, cell: Any, couple_carry_transform_gates: bool = True, carry_bias_init: float = 1.0, **kwargs: Any
    ) -> None:
        super().__init__(cell, **kwargs)
        self._coupled, self._bias = bool(couple_carry_transform_gates), float(carry_bias_init)

    def spec(self) -> MapSpec:
        """What it does to the cell inside, as data. A subclass that changes a step has to give its own."""
        return MapSpec(describe(self.cell)[0], "output", same_width=True)

    def __call__(  # type: ignore[override]  # TF1's is written by hand, too: it opens no scope
        self, inputs: Nest, state: Nest, scope: Any = None
    ) -> tuple[Any, Any]:
        """One step of the cell, mixed with its inputs; `scope` is handed to the cell inside."""
        output, new_state = self.cell(inputs, state) if scope is None else self.cell(inputs, state, scope=scope)
        _nest.same_structure(inputs, output, f"{self.where}: inputs and outputs")
        if _nest.is_nested(inputs):
            raise ArgumentError(f"{self.where}: expected inputs [B, I], got {_nest.describe(inputs)}.")
        if inputs.shape != output.shape:
            wanted, got = list(output.shape), list(inputs.shape)
            raise ShapeError(f"{self.where}: expected inputs {wanted} as the cell's outputs are, got {got}.")
        self._take_dtype(inputs)
        self._make_weights(tuple(inputs.shape))
        return self.map_outputs(inputs, output), new_state

    def map_outputs(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The output `[..., I]` for inputs x and the cell's outputs y."""
        carry = torch.sigmoid(x @ self.carry_w + self.carry_b)
        transform = 1 - carry if self._coupled else torch.sigmoid(x @ self.transform_w + self.transform_b)
        return x * carry + y * transform

    def build(self, input_shape: ShapeLike) -> None:
        """Make the cell's weights and the wrapper's for inputs `[B, I]`."""
        if not self._built:
            with self.owning():
                build_inside(self.cell, input_shape, self._dtype)
                self._make_weights(shape_dims(input_shape))

    def _make_weights(self, dims: tuple[int | None, ...]) -> None:
        if self._records:
            return
        width = dims[-1]
        for name, start in (("carry", self._bias), ("transform", -self._bias)):
            if name == "carry" or not self._coupled:
                get_variable(f"{name}_w", [width, width], self._dtype)
                get_variable(f"{name}_b", [width], self._dtype, initializer=Constant(start))

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments as plain data; the cell as `{"class_name", "config"}`."""
        return {
            **super().get_config(),
            "couple_carry_transform_gates": self._coupled,
            "carry_bias_init": self._bias,
        }
