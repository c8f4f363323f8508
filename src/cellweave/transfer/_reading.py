"""How a parameter is computed from what a checkpoint stores, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from cellweave._errors import CheckpointError
from cellweave.checkpoint import Stored, StoredVariable
from cellweave.transfer._arrays import Array
from cellweave.transfer._keras_cudnn import KerasCudnnLayout


class SlotReading(Protocol):
    """Where a parameter's optimizer slots are stored."""

    @property
    def variable(self) -> StoredVariable:
        """The variable that has them."""

    def slot(self, array: Array) -> Array:
        """A stored slot of that variable, as the slot of the parameter."""


@dataclass(frozen=True)
class Reading:
    """One parameter's values: a stored variable, as it is or in another layout, or the sum of two.

    Attributes:
        sources: The variables; more than one are added up.
        axes: Order of the stored axes in the parameter; None: as they are stored.
        layout: The stored variable is part of a layer in another layout; None: it is not.
    """

    sources: tuple[StoredVariable, ...]
    axes: tuple[int, ...] | None = None
    layout: KerasCudnnLayout | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the parameter."""
        shape = self.sources[0].shape
        if self.layout is not None:
            return self.layout.shape_of(shape)
        return shape if self.axes is None else tuple(shape[axis] for axis in self.axes)

    @property
    def variable(self) -> StoredVariable:
        """The one whose slots are the parameter's."""
        return self.sources[0]

    def stored(self, averaged: bool) -> tuple[Stored, ...]:
        """What is read: the averages if they are wanted and there, else the values.

        Raises:
            CheckpointError: the values are wanted and only averages are there; an average is wanted and there are
                several.
        """
        found = []
        for source in self.sources:
            if averaged and len(source.averages) > 1:
                raise CheckpointError(
                    f"load_tf1: expected one moving average of {source.name}, got {', '.join(source.averages)}. "
                    "Nothing tells which is meant: read it by open_checkpoint."
                )
            chosen = source.average if averaged and source.average is not None else source.value
            if chosen is None:
                raise CheckpointError(
                    f"load_tf1: expected the value of {source.name}, got only its moving average "
                    f"{source.any_value.shown}. Pass averaged=True."
                )
            found.append(chosen)
        return tuple(found)

    def read(self, arrays: Mapping[str, Array], averaged: bool) -> Array:
        """The values in the parameter's layout."""
        parts = [stored.read(arrays) for stored in self.stored(averaged)]
        array = parts[0] if len(parts) == 1 else np.sum(parts, axis=0, dtype=parts[0].dtype)
        return self._arranged(array) if self.layout is None else self.layout.value(array)

    def slot(self, array: Array) -> Array:
        """A stored slot of the first source, as the slot of the parameter."""
        return self._arranged(array) if self.layout is None else self.layout.slot(array)

    def _arranged(self, array: Array) -> Array:
        return array if self.axes is None else np.transpose(array, self.axes)


def stored_tensor(tensor: torch.Tensor, axes: tuple[int, ...] | None) -> torch.Tensor:
    """A parameter in the layout that TF1 stores."""
    value = tensor.detach()
    return value if axes is None else value.permute([axes.index(axis) for axis in range(len(axes))]).contiguous()
