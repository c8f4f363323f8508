"""InputProjectionWrapper."""

from __future__ import annotations

from typing import Any

import torch

from cellweave._checks import check_matrix, check_positive_int
from cellweave._types import Nest
from cellweave.cells import register
from cellweave.specs import MapSpec, describe
from cellweave.wrappers._owning_wrapper import ProjectionBehavior


@register
class InputProjectionWrapper(ProjectionBehavior):
    """Projects a cell's inputs: the cell reads `act(x kernel + bias)`.

    Args:
        cell: Any recurrent cell.
        num_proj: Width P of what the cell reads.
        activation: A function or its name; None: none.
        input_size: Accepted for TF1 callers, without effect.
        reuse: Share existing variables: True, or AUTO_REUSE to create or share. Needs a store.
        kwargs: `name`, `dtype`, `trainable`.
    Shapes: inputs `[B, I]`, `kernel` `[I, P]`, `bias` `[P]`. Its scope is `input_projection_wrapper`, in which the
        cell's lies; its weights come before the cell's.
    Raises:
        ArgumentTypeError: no cell. ArgumentError: a width that is not positive, an unknown activation.
    Source: TF1 `tf.contrib.rnn.InputProjectionWrapper`.
    """

    def __init__(
        self, cell: Any, num_proj: int, activation: Any = None, input_size: Any = None, reuse: Any = None, **kwargs: Any
    ) -> None:
        super().__init__(cell, reuse, **kwargs)
        self._init_projection(check_positive_int("InputProjectionWrapper num_proj", num_proj), activation)

    def spec(self) -> MapSpec:
        """What it does to the cell inside, as data. A subclass that changes a step has to give its own."""
        return MapSpec(describe(self.cell)[0], "input", self._width)

    def call(self, inputs: torch.Tensor, state: Nest, **kwargs: Any) -> tuple[Any, Any]:
        """One step of the cell on projected inputs."""
        check_matrix(self.where, "inputs", inputs, None)
        self._make_weights(tuple(inputs.shape))
        return self.cell(self.map_inputs(inputs), state, **kwargs)  # type: ignore[no-any-return]

    def map_inputs(self, x: torch.Tensor) -> torch.Tensor:
        """What the cell reads, `[..., P]` of `[..., I]`."""
        return self._project(x)

    def _make_weights(self, dims: tuple[int | None, ...]) -> None:
        self._make_linear(dims[-1])

    def _inner_shape(self, dims: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*dims[:-1], self._width)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments as plain data; the cell as `{"class_name", "config"}`."""
        return {**super().get_config(), "num_proj": self._width, "activation": self._activation_config()}
