"""What the two residual wrappers share: everything but how they reach the cell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from cellweave import _nest
from cellweave._errors import ArgumentTypeError, ShapeError
from cellweave._types import Nest
from cellweave.specs import ResidualSpec, describe
from cellweave.wrappers._base import Wrapper
from cellweave.wrappers._function_config import function_config, with_function


def add_inputs(inputs: Nest, outputs: Nest, where: str) -> Any:
    """Inputs plus outputs, leaf by leaf.

    Raises:
        ArgumentTypeError, ArgumentError: the structures differ. ShapeError: the shapes do.
    """
    _nest.same_structure(inputs, outputs, f"{where}: inputs and outputs")

    def add(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if x.shape != y.shape:
            raise ShapeError(
                f"{where}: expected inputs {list(y.shape)} as the cell's outputs are, got {list(x.shape)}. "
                "Give a residual_fn that joins them."
            )
        return x + y

    return _nest.map_structure(add, inputs, outputs)


class ResidualBehavior(Wrapper):
    """Mixin of the residual wrappers."""

    _residual_fn: Any

    def _init_residual(self, residual_fn: Any) -> None:
        if residual_fn is not None and not callable(residual_fn):
            raise ArgumentTypeError(f"{type(self).__name__}: expected residual_fn as a function, got {residual_fn!r}.")
        self._residual_fn = residual_fn

    def call(self, inputs: Nest, state: Nest, **kwargs: Any) -> tuple[Any, Any]:
        """One step of the cell, joined with its inputs."""
        outputs, new_state = self._step(inputs, state, **kwargs)
        if self._residual_fn is not None:
            return self._residual_fn(inputs, outputs), new_state
        return add_inputs(inputs, outputs, self.where), new_state

    def spec(self) -> ResidualSpec:
        """What it does to the cell inside, as data. A subclass that changes a step has to give its own."""
        return ResidualSpec(describe(self.cell)[0], is_sum=self._residual_fn is None)

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
