"""What the two residual wrappers share."""

from __future__ import annotations

from typing import Any

import torch

from cellweave import _nest
from cellweave._errors import ShapeError
from cellweave._types import Nest


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
