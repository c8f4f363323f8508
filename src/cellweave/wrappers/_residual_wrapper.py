"""ResidualWrapper."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cellweave._errors import ArgumentTypeError
from cellweave._types import Nest
from cellweave.cells import register
from cellweave.wrappers._base import CellWrapper
from cellweave.wrappers._function_config import function_config, with_function
from cellweave.wrappers._residual import add_inputs


@register
class ResidualWrapper(CellWrapper):
    """Adds a cell's inputs to its outputs; the state passes through.

    Args:
        cell: Any recurrent cell.
        residual_fn: `residual_fn(inputs, outputs)`; default: the sum, leaf by leaf, of equal shapes. With a function of
            your own the sizes may differ; `output_size` stays the cell's.
    Raises:
        ArgumentTypeError: no cell, or a `residual_fn` that cannot be called. In a call, ShapeError: shapes differ.
    Source: Wu et al. 2016; TF1 `tf.nn.rnn_cell.ResidualWrapper`.
    """

    def __init__(self, cell: Any, residual_fn: Any = None, **kwargs: Any) -> None:
        super().__init__(cell, **kwargs)
        if residual_fn is not None and not callable(residual_fn):
            raise ArgumentTypeError(f"ResidualWrapper: expected residual_fn as a function, got {residual_fn!r}.")
        self._residual_fn = residual_fn

    def call(self, inputs: Nest, state: Nest, **kwargs: Any) -> tuple[Any, Any]:
        """One step of the cell, joined with its inputs."""
        outputs, new_state = self.cell(inputs, state, **kwargs)
        if self._residual_fn is not None:
            return self._residual_fn(inputs, outputs), new_state
        return add_inputs(inputs, outputs, self.where), new_state

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments as plain data; a function of the caller's as its marshalled code."""
        config = super().get_config()
        if self._residual_fn is not None:
            config.update(function_config("residual_fn", self._residual_fn))
        return config

    @classmethod
    def _loaded(
        cls, arguments: dict[str, Any], custom_objects: Mapping[str, Any] | None, safe_mode: bool
    ) -> dict[str, Any]:
        return with_function(arguments, "residual_fn", "residual_fn", custom_objects, safe_mode, cls.__name__)
