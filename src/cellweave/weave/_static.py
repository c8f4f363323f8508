"""Masks as `static_rnn` draws them: each step is an op of its own, whose stream starts where all others do."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from cellweave.specs import MaskSpec
from cellweave.weave._binder import Binding
from cellweave.weave._stages import LayerRun, Masking, MaskSite, Placed, Program, Stage


def static_program(program: Program) -> Program:
    """The program with one draw of each per-step mask for all steps; streams of the whole process still move on."""
    if program.static is None:
        sites = [
            replace(site, per_step=False, held=True) if site.per_step and not _is_shared(program, site) else site
            for site in program.sites
        ]
        stages = [_held_stage(stage, sites) for stage in program.stages]
        program.static = replace(program, sites=sites, stages=stages)
    return program.static


def _is_shared(program: Program, site: MaskSite) -> bool:
    return bool(getattr(program.modules[program.occurrences[site.occurrence]](), "shares_streams", False))


def _held_stage(stage: Stage, sites: list[MaskSite]) -> Stage:
    def held(placed: Placed) -> Placed:
        if not sites[placed.site].held:
            return placed
        return replace(placed, spec=MaskSpec(placed.spec.place, per_step=False, per_row=True))

    if isinstance(stage, LayerRun):
        return replace(stage, masks=[held(placed) for placed in stage.masks], choices={}, variants={})
    if isinstance(stage, Masking):
        return replace(stage, masks=tuple(held(placed) for placed in stage.masks))
    return stage


class StaticBinding(Binding):
    """The masks of one run of a static program. `streams_are_alike` comes before `draw`."""

    def streams_are_alike(self) -> bool:
        """Whether all steps of each held mask draw the same; makes the streams in the steps' order, moves none."""
        program = self._program
        held = [number for number, site in enumerate(program.sites) if site.held]
        modules = [program.modules[number]() for number in program.occurrences]
        if self._steps > 1 and not all(modules[program.sites[number].occurrence].is_seeded for number in held):
            return False
        calls = Counter(id(module) for module in modules)
        before = [sum(other is module for other in modules[:place]) for place, module in enumerate(modules)]
        firsts = [module.ops_made() for module in modules]
        for number in held:
            self._held[number] = []
        for step in range(self._steps):
            for number in held:
                site = program.sites[number]
                module = modules[site.occurrence]
                op = firsts[site.occurrence] + step * calls[id(module)] + before[site.occurrence]
                elements = self._rows * site.width
                self._held[number].append(module.step_draws(site.kind, site.index, elements, self._dtype, op))
        return all(draws.start() == steps[0].start() for steps in self._held.values() for draws in steps)

    def draw(self, sites: int | None = None) -> None:
        """Take all masks, and count the ops that the steps are."""
        super().draw(sites)
        for occurrence in {self._program.sites[number].occurrence for number in self._held}:
            module = self._program.modules[self._program.occurrences[occurrence]]()
            for _ in range(self._steps):
                module.next_op()
