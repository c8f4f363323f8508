"""What layers over whole time-major sequences share: TF1's fused cells."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from cellweave._types import DTypeLike, Nest
from cellweave.scopes import VariableScope


class FusedRNNCell(nn.Module):
    """Base of the adaptors: runs over a whole time-major sequence in one call."""

    def forward(
        self,
        inputs: Any,
        initial_state: Nest = None,
        dtype: DTypeLike = None,
        sequence_length: Any = None,
        scope: str | VariableScope | None = None,
    ) -> tuple[Any, Any]:
        """Run over a sequence.

        Args:
            inputs: `[T, B, I]`, or a list of T tensors `[B, I]`.
            initial_state: State in the cell's structure; default: zeros of `dtype`.
            dtype: Dtype of the zero state; required without `initial_state`.
            sequence_length: Steps per row, `[B]`; default: T.
            scope: Scope for the variables.
        Returns:
            outputs in the form of the inputs, and the final state.
        """
        raise NotImplementedError(f"{type(self).__name__}: a fused cell must say how it runs.")


def stacked(inputs: Any) -> torch.Tensor:
    """A list of steps as one tensor `[T, B, I]`."""
    return torch.stack(list(inputs)) if isinstance(inputs, list) else inputs


def in_form_of(inputs: Any, outputs: Any) -> Any:
    """Outputs `[T, B, O]`, as a list of steps where the inputs were one."""
    return list(outputs.unbind(0)) if isinstance(inputs, list) else outputs
