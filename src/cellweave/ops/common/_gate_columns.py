"""Products in which each gate multiplies values of its own by its columns of a weight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch


class GateColumns(NamedTuple):
    """Columns `slots * unit + slot` of gates that lie side by side.

    Attributes:
        units: H. begin: First column, in units of H. slots: How many gates have room. first: Number of the first gate
            that is there, as masks count gates. missing: Slots before it, whose gates the cell has not.
    """

    units: int
    begin: int
    slots: int
    first: int
    missing: int = 0

    @property
    def last(self) -> int:
        """The number past that of the last gate."""
        return self.first + self.slots - self.missing

    def own(self, values: torch.Tensor, columns: Sequence[GateColumns]) -> torch.Tensor:
        """The gates' values, of the values `[n, ...]` of all gates in `columns`."""
        start = min(part.first for part in columns)
        return values[self.first - start : self.last - start]

    def of(self, value: torch.Tensor) -> torch.Tensor:
        """The gates' columns of `[N, W]`, a view `[n, N, H]`."""
        begin, width = self.begin * self.units, self.slots * self.units
        own = value[:, begin : begin + width].view(value.shape[0], self.units, self.slots)
        return own.movedim(2, 0)[self.missing :]


def product_by_gate(values: torch.Tensor, weight: torch.Tensor, columns: Sequence[GateColumns]) -> torch.Tensor:
    """Products `[N, W]` of each gate's values, `[G, N, K]`, and its columns of a weight `[K, W]`; zeros elsewhere."""
    found = values.new_zeros(values.shape[1], weight.shape[1])
    for part in columns:
        part.of(found).copy_(torch.bmm(values[part.first : part.last], part.of(weight)))
    return found


def values_gradient(d: torch.Tensor, weight: torch.Tensor, columns: Sequence[GateColumns]) -> torch.Tensor:
    """The gradient of the values in `product_by_gate` from that of the products, `[N, W]`."""
    last = max(part.last for part in columns)
    found = d.new_empty(last, d.shape[0], weight.shape[0])
    for part in columns:
        torch.bmm(part.of(d), part.of(weight).mT, out=found[part.first : part.last])
    return found


def weight_gradient(values: torch.Tensor, d: torch.Tensor, columns: Sequence[GateColumns]) -> torch.Tensor:
    """The gradient of the weight in `product_by_gate` from that of the products, `[N, W]`."""
    found = d.new_zeros(values.shape[2], d.shape[1])
    for part in columns:
        part.of(found).copy_(torch.bmm(values[part.first : part.last].mT, part.of(d)))
    return found
