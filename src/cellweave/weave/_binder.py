"""Taking a program's masks from their random streams, in the order in which single steps would."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch

from cellweave.ops.common import BoundMask
from cellweave.weave._stages import MaskSite, Placed, Program

#: Where a mask begins, and how far its steps lie apart: seed, seed2, block, stride.
_Start = tuple[int, int, int, int]
_NOWHERE: _Start = (0, 0, 0, 0)


class Binding:
    """The masks of one run of a program.

    Args:
        program: The composition.
        rows: B.
        dtype, device: Of the values.
        steps: How many steps draw.
    """

    def __init__(self, program: Program, rows: int, dtype: torch.dtype, device: torch.device, steps: int) -> None:
        self._program, self._rows, self._steps = program, rows, steps
        self._dtype, self._device = dtype, device
        self._ops: dict[int, int] = {}
        self._keeps: list[float] = []
        self._starts: list[_Start] = []
        self._drawn: list[Any] = []
        self._held: dict[int, list[Any]] = {}

    def draw(self, sites: int | None = None) -> None:
        """Take the masks up to this one (None: all) that are not taken yet."""
        program = self._program
        first, last = len(self._keeps), len(program.sites) if sites is None else sites
        waiting: dict[Hashable, list[tuple[int, Any]]] = {}
        for site in program.sites[first:last]:
            module = program.modules[program.occurrences[site.occurrence]]()
            self._keeps.append(module.keep_now(site.kind))
            if site.held:
                self._take_held(len(self._starts))
                continue
            if site.per_step:
                draws = self._step_draws(module, site)
                waiting.setdefault(draws.key, []).append((len(self._starts), draws))
                self._starts.append(_NOWHERE)
                self._drawn.append(draws)
                continue
            drawn = module.run_draw(site.kind, site.index, self._rows, site.width, self._dtype)
            own = isinstance(drawn, torch.Tensor)
            self._starts.append(_NOWHERE if own else (drawn.seed, drawn.seed2, drawn.block, 0))
            self._drawn.append(drawn)
        for group in waiting.values():
            self._settle(group)

    def _take_held(self, number: int) -> None:
        """Take a mask of which every step has a stream of its own, all standing at one place."""
        steps = self._held[number]
        self._starts.append((*steps[0].start(), 0))
        self._drawn.append(steps[0])
        for draws in steps:
            draws.take(draws.blocks, 1)

    def _step_draws(self, module: Any, site: MaskSite) -> Any:
        op = self._ops.get(site.occurrence)
        if op is None:
            op = self._ops[site.occurrence] = module.next_op()
        return module.step_draws(site.kind, site.index, self._rows * site.width, self._dtype, op)

    def _settle(self, group: list[tuple[int, Any]]) -> None:
        """Place the masks of one stream behind each other, step after step."""
        seed, seed2, block = group[0][1].start()
        counter = (seed2 << 64) + block
        per_step = sum(draws.blocks for _, draws in group)
        for number, draws in group:
            self._starts[number] = (seed, counter >> 64, counter & (2**64 - 1), per_step)
            counter = (counter + draws.blocks) % 2**128
        group[0][1].take(per_step, self._steps)

    def masks(self, placed: Sequence[Placed]) -> tuple[BoundMask, ...]:
        """The masks at some places; they must have been drawn."""
        return tuple([self._bound(place) for place in placed])

    def _bound(self, place: Placed) -> BoundMask:
        site = place.site
        seed, seed2, block, stride = self._starts[site]
        drawn, noise = self._drawn[site], None
        if isinstance(drawn, torch.Tensor):
            noise = drawn
        if place.columns is not None:  # of a variational mask: per step no mask spans several states
            whole = drawn.noise(self._device) if noise is None else noise
            noise = whole[:, place.columns[0] : place.columns[1]]
        by_floor = self._program.sites[site].by_floor
        return BoundMask(place.spec, self._keeps[site], by_floor, seed, seed2, block, stride, noise)
