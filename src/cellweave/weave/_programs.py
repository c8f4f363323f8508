"""Programs that were written before, as long as they still hold."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from cellweave import _nest
from cellweave.specs import NodeSpec, describe
from cellweave.weave._planner import plan_program, reference_to, starts_from_zeros
from cellweave.weave._stages import Program
from cellweave.weave._tree import Branch, has_hooks, has_hooks_inside

#: Programs of one composition that are kept: one for each width, dtype and device of inputs.
_MOST_KEPT = 8


@dataclass(frozen=True, eq=False)
class _Node:
    """What a program took for granted of one cell or wrapper."""

    module: Callable[[], Any]
    acting: tuple[Any, ...]
    looks: bool
    dropped: list[tuple[int, int]]
    part: Any
    zeros: bool
    inside: tuple[_Node, ...]


@dataclass(frozen=True, eq=False)
class _Premise:
    """What a program took for granted of the whole composition."""

    spec: NodeSpec | None
    node: _Node


_programs: weakref.WeakKeyDictionary[nn.Module, dict[Any, Program]] = weakref.WeakKeyDictionary()


def kept_program(cell: Any, x: torch.Tensor) -> Program | None:
    """A program that was written for such inputs before; `still_holds` has to follow."""
    kept = _programs.get(cell) if isinstance(cell, nn.Module) else None
    return None if kept is None else kept.get((x.shape[2], x.dtype, x.device))


def still_holds(program: Program, cell: Any, leaves: Sequence[Any]) -> bool:
    """Whether nothing has changed that a kept program of this cell rests on."""
    premise: _Premise = program.premise
    spec = describe(cell)[0]
    if spec is not premise.spec and spec != premise.spec:
        return False
    if program.steps and program.state_size != cell.state_size:
        return False
    return _node_holds(premise.node, cell, leaves)


def program_of(cell: Any, x: torch.Tensor, leaves: Sequence[Any]) -> Program:
    """The program of a composition, written anew only where something it rests on has changed.

    Args:
        cell: Anything that acts as a cell.
        x: Inputs `[T, B, I]`.
        leaves: The state's.
    """
    program = kept_program(cell, x)
    if program is not None and still_holds(program, cell, leaves):
        return program
    key = (x.shape[2], x.dtype, x.device)
    program, tree = plan_program(cell, *key, leaves)
    if isinstance(cell, nn.Module) and not any(branch.passing for branch in tree.walk()):
        kept = _programs.setdefault(cell, {})
        if len(kept) >= _MOST_KEPT:
            kept.clear()
        program.premise = _Premise(tree.spec, _node_of(tree))
        kept[key] = program
    return program


def _node_of(branch: Branch) -> _Node:
    looks = bool(branch.acting and branch.acting[1]) and bool(branch.module.has_own_visitor)
    inside = () if branch.reason else tuple(_node_of(inner) for inner in branch.inside)
    zeros = starts_from_zeros(branch.module)
    return _Node(reference_to(branch.module), branch.acting, looks, branch.dropped, branch.part, zeros, inside)


def _node_holds(node: _Node, module: Any, leaves: Sequence[Any]) -> bool:
    if node.module() is not module or (has_hooks(module) if node.inside else has_hooks_inside(module)):
        return False
    if starts_from_zeros(module) is not node.zeros:
        return False
    if node.acting:
        if module.acting() != node.acting:
            return False
        if node.looks:
            state = _nest.map_structure(lambda piece: piece.of(leaves), node.part)
            if module.dropped_leaves(state) != node.dropped:
                return False
    inside = node.inside
    if not inside:
        return True
    if len(inside) == 1:
        only = module._modules.get("cell")
        if only is not None:
            return _node_holds(inside[0], only, leaves)
    cells = _cells_of(module)
    return len(cells) == len(inside) and all(
        _node_holds(inner, cell, leaves) for inner, cell in zip(inside, cells, strict=True)
    )


def _cells_of(module: Any) -> list[Any]:
    modules = module._modules.get("cells")
    if modules is not None:
        return list(modules._modules.values())
    return [module.cell] if hasattr(module, "cell") else list(module.cells)
