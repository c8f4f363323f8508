"""From a composition to a program: stages over whole sequences, each mask at the one place where it acts."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from cellweave import _nest
from cellweave.specs import CellSpec, DropoutSpec, MapSpec, MaskSpec, ResidualSpec, RunSpec, StackSpec
from cellweave.weave._stages import (
    Adding,
    LayerRun,
    Mapping,
    Masking,
    MaskSite,
    Placed,
    Program,
    Stage,
    Stepping,
)
from cellweave.weave._state_parts import Packing, Piece, pieces_of
from cellweave.weave._tree import CELL_SPECS, Branch, Setting, draws_shared_streams, grow, shared_module


def plan_program(
    cell: Any, depth: int, dtype: torch.dtype, device: torch.device, leaves: Sequence[Any]
) -> tuple[Program, Branch]:
    """The program of a composition for inputs `[T, B, depth]`, and the tree that it was written from.

    Args:
        cell: Anything that acts as a cell.
        depth, dtype, device: Of the inputs.
        leaves: Leaves of the state to start from; visitors of dropout wrappers may look at them.
    """
    tree = grow(cell, pieces_of(cell.state_size), depth, Setting(dtype, device, leaves))
    return _Writer(tree).program(cell.state_size), tree


@dataclass
class _Sequence:
    """A sequence while stages are written.

    Attributes:
        number: Of the sequence as it is stored.
        pending: Masks that its next reader still has to apply.
        run: The layer run that writes it, while masks may still join that run's outputs.
    """

    number: int
    pending: list[Placed] = field(default_factory=list)
    run: LayerRun | None = None


def reference_to(module: Any) -> Callable[[], Any]:
    """A reference that does not keep a module alive, where it can be had."""
    if isinstance(module, nn.Module):
        return weakref.ref(module)
    return lambda: module


class _Writer:
    """Writes the stages of a tree in call order."""

    def __init__(self, tree: Branch) -> None:
        self.tree = tree
        self.stages: list[Stage] = []
        self.sites: list[MaskSite] = []
        self.occurrences: list[int] = []
        self.modules: list[Callable[[], Any]] = []
        self.names: list[str] = []
        self.sequences = 1
        self.cells: dict[int, list[tuple[Piece, LayerRun]]] = {}

    def program(self, state_size: Any) -> Program:
        self._write(self.tree, _Sequence(0))
        pieces: list[list[Piece]] = [[] for _ in _nest.flatten(state_size)]
        for stage in self.stages:
            for piece in _states(stage):
                pieces[piece.leaf].append(piece)
        for parts in pieces:
            parts.sort(key=lambda piece: piece.start or 0)
        return Program(
            self.stages, self.sites, self.occurrences, self.modules, self.names, state_size, Packing(state_size),
            pieces, self._refusal(), start_widths=_start_widths(self.tree, pieces),
        )  # fmt: skip

    def _refusal(self) -> str:
        """Why nothing of it may run in layers."""
        if self.tree.reason:
            return self.tree.reason
        stepping = [stage for stage in self.stages if isinstance(stage, Stepping)]
        if not stepping:
            return ""
        shared = shared_module(self.tree)
        if shared:
            return f"the same {shared} stands in a layer that runs step by step and elsewhere: {stepping[0].reason}"
        if draws_shared_streams(self.tree):
            return f"masks of TF2's wrappers share streams, and a layer runs step by step: {stepping[0].reason}"
        if not any(isinstance(stage, LayerRun) for stage in self.stages):
            return stepping[0].reason
        return ""

    def _write(self, branch: Branch, source: _Sequence) -> _Sequence:
        if branch.reason:
            return self._write_stepping(branch, source)
        if isinstance(branch.spec, CELL_SPECS):
            return self._write_cell(branch, branch.spec, source)
        if isinstance(branch.spec, StackSpec):
            for inner in branch.inside:
                source = self._write(inner, source)
            return source
        if isinstance(branch.spec, ResidualSpec):
            return self._write_residual(branch, source)
        if isinstance(branch.spec, DropoutSpec):
            return self._write_dropout(branch, branch.spec, source)
        if isinstance(branch.spec, MapSpec):
            return self._write_map(branch, branch.spec, source)
        return self._write(branch.inside[0], source)  # on a device that it is on anyway

    def _new_sequence(self) -> int:
        self.sequences += 1
        return self.sequences - 1

    def _module(self, module: Any) -> int:
        self.modules.append(reference_to(module))
        self.names.append(type(module).__name__)
        return len(self.modules) - 1

    def _stored(self, source: _Sequence) -> int:
        """Number of the sequence with all its masks applied."""
        if not source.pending:
            return source.number
        target = self._new_sequence()
        self.stages.append(Masking(source.number, target, tuple(source.pending)))
        source.number, source.pending, source.run = target, [], None
        return target

    def _write_stepping(self, branch: Branch, source: _Sequence) -> _Sequence:
        stage = Stepping(
            self._stored(source), self._new_sequence(), self._module(branch.module), branch.part, len(self.sites),
            branch.reason,
        )  # fmt: skip
        self.stages.append(stage)
        return _Sequence(stage.target)

    def _write_cell(self, branch: Branch, spec: CellSpec, source: _Sequence) -> _Sequence:
        weights = tuple((weight.name, weight.shape) for weight in spec.weights(branch.depth))
        run = LayerRun(
            source.number, self._new_sequence(), self._module(branch.module), RunSpec(spec), list(source.pending),
            branch.states, branch.depth, weights,
        )  # fmt: skip
        self.stages.append(run)
        for piece in branch.states:
            self.cells.setdefault(piece.leaf, []).append((piece, run))
        return _Sequence(run.target, run=run)

    def _write_residual(self, branch: Branch, source: _Sequence) -> _Sequence:
        kept = self._stored(source)
        result = self._write(branch.inside[0], _Sequence(kept))
        run = result.run
        if run is not None and not result.pending and run.source == kept and not run.spec.residual:
            run.spec = RunSpec(run.spec.cell, residual=True)
            return _Sequence(run.target)
        stage = Adding(kept, self._stored(result), self._new_sequence())
        self.stages.append(stage)
        return _Sequence(stage.target)

    def _write_map(self, branch: Branch, spec: MapSpec, source: _Sequence) -> _Sequence:
        kept, inputs = self._stored(source), spec.place == "input"
        if inputs:
            stage = Mapping(kept, None, self._new_sequence(), self._module(branch.module))
            self.stages.append(stage)
            return self._write(branch.inside[0], _Sequence(stage.target))
        result = self._stored(self._write(branch.inside[0], _Sequence(kept)))
        stage = Mapping(result, kept, self._new_sequence(), self._module(branch.module))
        self.stages.append(stage)
        return _Sequence(stage.target)

    def _write_dropout(self, branch: Branch, spec: DropoutSpec, source: _Sequence) -> _Sequence:
        module = self._module(branch.module)
        self.occurrences.append(module)
        occurrence = len(self.occurrences) - 1
        per_step, per_row = not spec.variational, spec.per_row or not spec.variational

        def drawn(kind: str, how: str, index: int, width: int) -> int:
            self.sites.append(MaskSite(occurrence, kind, index, width, per_step, how == "fed" or spec.variational))
            return len(self.sites) - 1

        if branch.acting[0]:
            site = drawn("input", branch.acting[0], 0, branch.depth)
            placed = Placed(site, MaskSpec("input", per_step, per_row))
            source = _Sequence(source.number, [*source.pending, placed], source.run)
        result = self._write(branch.inside[0], source)
        for leaf, index in branch.dropped:
            piece = _nest.flatten(branch.part)[leaf]
            self._place_on_state(drawn("state", branch.acting[1], index, piece.width), piece, per_step, per_row)
        if branch.acting[2]:
            placed = Placed(drawn("output", branch.acting[2], 0, branch.width), MaskSpec("output", per_step, per_row))
            if result.run is None:
                result = _Sequence(result.number, [*result.pending, placed])
                self._stored(result)
            else:
                result.run.masks.append(placed)
        return result

    def _place_on_state(self, site: int, piece: Piece, per_step: bool, per_row: bool) -> None:
        """Give a mask to the runs whose states it covers."""
        first, last = piece.start or 0, piece.stop or 0
        for state, run in self.cells.get(piece.leaf, ()):
            start, stop = state.start or 0, state.stop or 0
            if first <= start and stop <= last:
                spec = MaskSpec("h" if state == run.states[-1] else "c", per_step, per_row)
                columns = None if (start, stop) == (first, last) else (start - first, stop - first)
                run.masks.append(Placed(site, spec, columns))


#: What makes the state that a cell starts from.
STATE_MAKERS = ("zero_state", "get_initial_state")


def starts_from_zeros(module: Any) -> bool:
    """Whether a cell's own state to start from is plain zeros, by its class and by the object itself."""
    if not getattr(module, "__dict__", {}).keys().isdisjoint(STATE_MAKERS):
        return False
    makers = [getattr(type(module), name, None) for name in STATE_MAKERS]
    return all([maker is None or getattr(maker, "gives_zeros", False) for maker in makers])  # noqa: C419  # each call


def _start_widths(tree: Branch, pieces: list[list[Piece]]) -> list[int] | None:
    """Widths of the leaves, where every cell starts from plain zeros."""
    if any(branch.reason or not starts_from_zeros(branch.module) for branch in tree.walk()):
        return None
    return [sum(piece.width or 0 for piece in parts) for parts in pieces]


def _states(stage: Stage) -> list[Piece]:
    if isinstance(stage, LayerRun):
        return list(stage.states)
    return _nest.flatten(stage.part) if isinstance(stage, Stepping) else []
