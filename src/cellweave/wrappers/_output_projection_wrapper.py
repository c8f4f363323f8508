"""OutputProjectionWrapper."""

from __future__ import annotations

from typing import Any

import torch

from cellweave._checks import check_positive_int
from cellweave._shape import TensorShape
from cellweave._types import Nest, Size
from cellweave.cells import register
from cellweave.specs import MapSpec, describe
from cellweave.wrappers._owning_wrapper import ProjectionBehavior


@register
class OutputProjectionWrapper(ProjectionBehavior):
    """Projects a cell's outputs: `act(y kernel + bias)`; the state passes through.

    Args:
        cell: Any recurrent cell.
        output_size: Width P of the output.
        activation: A function or its name; None: none.
        reuse: Share existing variables: True, or AUTO_REUSE to create or share. Needs a store.
        kwargs: `name`, `dtype`, `trainable`.
    Shapes: outputs `[B, P]`, `kernel` `[the cell's output size, P]`, `bias` `[P]`. Its scope is
        `output_projection_wrapper`, in which the cell's lies; the cell's weights come first.
    Raises:
        ArgumentTypeError: no cell. ArgumentError: a width that is not positive, an unknown activation.
    Source: TF1 `tf.contrib.rnn.OutputProjectionWrapper`.
    """

    _cell_comes_first = True

    def __init__(self, cell: Any, output_size: int, activation: Any = None, reuse: Any = None, **kwargs: Any) -> None:
        super().__init__(cell, reuse, **kwargs)
        self._init_projection(check_positive_int("OutputProjectionWrapper output_size", output_size), activation)

    @property
    def output_size(self) -> Size:
        """Width of the projected output."""
        return self._width

    def spec(self) -> MapSpec:
        """What it does to the cell inside, as data. A subclass that changes a step has to give its own."""
        return MapSpec(describe(self.cell)[0], "output")

    def call(self, inputs: Nest, state: Nest, **kwargs: Any) -> tuple[Any, Any]:
        """One step of the cell, its output projected."""
        output, new_state = self.cell(inputs, state, **kwargs)
        self._make_linear(output.shape[-1], output.dtype)
        return self.map_outputs(inputs, output), new_state

    def map_outputs(self, x: Nest, y: torch.Tensor) -> torch.Tensor:
        """The output `[..., P]` for the cell's outputs `y [..., O]`."""
        return self._project(y)

    def _make_weights(self, dims: tuple[int | None, ...]) -> None:
        self._make_linear(TensorShape(self.cell.output_size).dims[0])

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments as plain data; the cell as `{"class_name", "config"}`."""
        return {**super().get_config(), "output_size": self._width, "activation": self._activation_config()}
