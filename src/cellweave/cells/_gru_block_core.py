"""What TF1's two block GRU cells share: everything but the names of their variables."""

from __future__ import annotations

from typing import Any

import torch

from cellweave._checks import check_positive_int
from cellweave._errors import ArgumentError
from cellweave.cells._spec_cell import SpecCell
from cellweave.ops.gru import gru_step
from cellweave.specs import GRUSpec


class GRUBlockCore(SpecCell):
    """Base of the block GRU cells; not for users."""

    _spec: GRUSpec

    def __init__(
        self,
        num_units: int | None = None,
        cell_size: int | None = None,
        reuse: Any = None,
        name: str | None = "gru_cell",
        **kwargs: Any,
    ) -> None:
        where = type(self).__name__
        if (num_units is None) == (cell_size is None):
            raise ArgumentError(f"{where}: expected one of num_units and cell_size, got {num_units} and {cell_size}.")
        units = check_positive_int(f"{where} num_units", cell_size if num_units is None else num_units)
        super().__init__(GRUSpec(units), name=name, _reuse=reuse, **kwargs)

    def call(self, inputs: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One step: the new state, as output and as state."""
        self._checked(inputs, state=(state, self._spec.units))
        output = gru_step(inputs, state, *self.named_weights().values(), spec=self._spec)
        return output, output

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments as plain data."""
        return {**super().get_config(), "num_units": self._spec.units, "reuse": self._reuse}
