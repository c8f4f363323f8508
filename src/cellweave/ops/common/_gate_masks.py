"""Masks that each gate of a cell has for itself (Gal & Ghahramani 2016, their untied form)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch

from cellweave.ops.common._calls import LayerCall
from cellweave.ops.common._masks import BoundMask
from cellweave.specs import RunSpec

#: A mask and its noise, `[..., G * N]`: a row's numbers for the first gate, then those for the next.
Drawn = tuple[BoundMask, torch.Tensor]


class GateMasks:
    """What the gates multiply inputs and h by, before their weights: of one step, or inputs of all.

    Args:
        masks: With their noise. gates: How many gates the cell has, G.
    """

    def __init__(self, masks: Sequence[Drawn], gates: int) -> None:
        self._masks, self._gates = masks, gates

    def on(self, place: str, value: torch.Tensor, gate: int) -> torch.Tensor:
        """The masked value `[..., N]` for one gate.

        Args:
            place: "input" or "h". gate: Its number: RNN 0; GRU r, u, c; LSTM i, j, f, o, without i when coupled.
        """
        for mask, noise in self._masks:
            if mask.spec.place == place:
                value = mask.apply(value, noise.chunk(self._gates, dim=-1)[gate])
        return value

    def product(
        self, inputs: torch.Tensor, h: torch.Tensor, kernels: tuple[torch.Tensor, torch.Tensor], columns: Sequence[int]
    ) -> torch.Tensor:
        """`inputs W + h R` with masks for each gate.

        Args:
            kernels: W `[I, n * H]` and R `[P, n * H]`. columns: Which gate each of the n blocks of columns belongs to.
        """
        pairs = zip(columns, *(kernel.chunk(len(columns), dim=1) for kernel in kernels), strict=True)
        parts = [self.on("input", inputs, gate) @ w + self.on("h", h, gate) @ r for gate, w, r in pairs]
        return torch.cat(parts, dim=1)


def foldable(spec: RunSpec) -> bool:
    """There are masks of each gate's own, and all rows and steps share them: they are factors of the weights."""
    own = [mask for mask in spec.masks if mask.per_gate]
    return bool(own) and not any(mask.per_step or mask.per_row for mask in own)


def each_gate_has_an_h(spec: RunSpec) -> bool:
    """There are masks of each gate's own on h."""
    return any(mask.per_gate and mask.place == "h" for mask in spec.masks)


def folded(call: LayerCall, places: Mapping[str, Sequence[tuple[str, int, int, int]]]) -> LayerCall:
    """A `foldable` call without its masks per gate: they multiply the weights' rows.

    Args:
        places: For "input" and "h": the weights that meet it, as (name, first row, first column, gate) of each gate's
            block `[I or P, H]`.
    """
    masks = [mask for mask in call.masks if mask.spec.per_gate]
    cell, weights = call.spec.cell, dict(call.weights)
    widths = {"input": call.x.shape[2], "h": call.state[-1].shape[1]}
    for mask in masks:
        place = mask.spec.place
        rows = widths[place]
        factors = mask.factors(1, rows * cell.gate_count, call.x).view(cell.gate_count, rows, 1)
        for name, first, column, gate in places[place]:
            whole = torch.ones_like(weights[name])
            upright = whole.t() if cell.transposed else whole
            upright[first : first + rows, column : column + cell.units] = factors[gate]
            weights[name] = weights[name] * whole
    kept = [(mask, bound) for mask, bound in zip(call.spec.masks, call.masks, strict=True) if not mask.per_gate]
    spec = dataclasses.replace(call.spec, masks=tuple(mask for mask, _ in kept))
    return dataclasses.replace(call, spec=spec, weights=weights, masks=tuple(bound for _, bound in kept))
