"""A composition as a tree: what each cell and wrapper is, and which of them nothing but single steps can have.

Cells and wrappers are known by what they say of themselves (`spec()`, `named_weights()`, `acting()`, ...): those of
users are as good as the library's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, get_args

import torch
from torch import nn

from cellweave import _nest
from cellweave._shape import TensorShape
from cellweave.specs import CellSpec, DeviceSpec, DropoutSpec, MapSpec, NodeSpec, ResidualSpec, StackSpec, describe
from cellweave.weave._state_parts import Piece, states_of

CELL_SPECS = get_args(CellSpec)


@dataclass(eq=False)
class Branch:
    """A cell or wrapper in a composition.

    Attributes:
        module: The object.
        spec: What it says of itself; None where it says nothing that counts.
        part: Pieces in the structure of its state.
        depth, width: Columns of its inputs and outputs.
        inside: What it wraps.
        reason: Why it has to run step by step; "" where it has not.
        passing: The reason may be gone in the next call.
        states: A described cell's `(h,)` or `(c, h)`.
        acting: A dropout wrapper's answer.
        dropped: Its (leaf, index) of state masks.
    """

    module: Any
    spec: NodeSpec | None
    part: Any
    depth: int
    width: int
    inside: list[Branch] = field(default_factory=list)
    reason: str = ""
    passing: bool = False
    states: tuple[Piece, ...] = ()
    acting: tuple[Any, ...] = ()
    dropped: list[tuple[int, int]] = field(default_factory=list)

    @property
    def steps_inside(self) -> str:
        """Why something in it has to run step by step; "" where nothing has to."""
        return self.reason or next((reason for reason in (b.steps_inside for b in self.inside) if reason), "")

    def walk(self) -> Iterator[Branch]:
        """The branch itself and all inside, in call order."""
        yield self
        for branch in self.inside:
            yield from branch.walk()


@dataclass(frozen=True)
class Setting:
    """What a tree is made for.

    Attributes:
        dtype, device: Of the inputs.
        leaves: The state's, for visitors that look at them.
    """

    dtype: torch.dtype
    device: torch.device
    leaves: Any


def grow(module: Any, part: Any, depth: int, setting: Setting) -> Branch:
    """The tree of a composition for inputs of a depth."""
    spec, reason = describe(module)
    hooked = _hooked(module, spec)
    branch = Branch(module, spec, part, depth, _width_of(module), reason=reason or hooked, passing=bool(hooked))
    if branch.reason:
        return branch
    if isinstance(spec, CELL_SPECS):
        _plant_cell(branch, spec)
    elif isinstance(spec, StackSpec):
        _plant_stack(branch, spec, setting)
    else:
        _plant_wrapper(branch, setting)
    return branch


def _width_of(module: Any) -> int:
    """Columns of an output `[B, width]`, -1 where it is anything else."""
    size = getattr(module, "output_size", None)
    if size is None or _nest.is_nested(size):
        return -1
    dims = TensorShape(size).dims
    return dims[0] if len(dims) == 1 and dims[0] is not None else -1


def hooks_of(module: nn.Module) -> tuple[Any, ...]:
    """The dicts that hold what runs beside a torch module when it is called."""
    return module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks


def has_hooks(module: Any) -> bool:
    """Whether calling a torch module runs more than the module."""
    return isinstance(module, nn.Module) and any(hooks_of(module))


def has_hooks_inside(cell: Any) -> bool:
    """The same of a cell with all modules that it keeps."""
    if has_hooks(cell):
        return True
    return bool(getattr(cell, "_modules", None)) and any(has_hooks(module) for module in cell.modules())


def _hooked(module: Any, spec: NodeSpec | None) -> str:
    hooked = has_hooks_inside(module) if isinstance(spec, CELL_SPECS) else has_hooks(module)
    return f"a hook stands on {type(module).__name__}" if hooked else ""


def _plant_cell(branch: Branch, spec: CellSpec) -> None:
    name = type(branch.module).__name__
    states = states_of(spec, branch.part, getattr(branch.module, "state_order", "ch"))
    if states is None:
        branch.reason = f"state_size of {name} is not that of its {type(spec).__name__}"
    elif branch.width != spec.output_size:
        branch.reason = f"output_size of {name} is not that of its {type(spec).__name__}"
    elif not callable(getattr(branch.module, "named_weights", None)):
        branch.reason = f"{name} has a spec() but no named_weights()"
    else:
        branch.states = states


def _plant_stack(branch: Branch, spec: StackSpec, setting: Setting) -> None:
    cells, depth, start = list(branch.module.cells), branch.depth, 0
    for number, cell in enumerate(cells):
        if spec.joined_state:
            width = TensorShape(cell.state_size).dims[0] or 0
            part = branch.part.columns(start, start + width)
            start += width
        else:
            part = branch.part[number]
        branch.inside.append(grow(cell, part, depth, setting))
        depth = branch.inside[-1].width
        if depth < 0:
            branch.reason = f"{type(cell).__name__} has outputs that are not [B, size]"
            return


def _plant_wrapper(branch: Branch, setting: Setting) -> None:
    mapped = branch.spec if isinstance(branch.spec, MapSpec) else None
    depth = branch.depth if mapped is None or mapped.depth is None else mapped.depth
    inner = grow(branch.module.cell, branch.part, depth, setting)
    branch.inside.append(inner)
    if inner.reason:
        branch.reason = inner.reason
    elif mapped is not None:
        if inner.width < 0:
            branch.reason = f"{type(inner.module).__name__} has outputs that are not [B, size]"
        elif mapped.same_width and branch.depth != inner.width:
            branch.reason = f"inputs and outputs of {type(branch.module).__name__} have different sizes"
    elif isinstance(branch.spec, ResidualSpec):
        if not branch.spec.is_sum:
            branch.reason = f"{type(branch.module).__name__} has a residual_fn of its own"
        elif branch.depth != branch.width:
            branch.reason = f"inputs and outputs of {type(branch.module).__name__} have different sizes"
    elif isinstance(branch.spec, DeviceSpec):
        if not _is_on(branch.spec.device, setting.device):
            name = type(branch.module).__name__
            branch.reason = f"{name} runs its cell on {branch.spec.device}, away from its inputs"
    elif isinstance(branch.spec, DropoutSpec):
        branch.reason = _dropout_obstacle(branch, branch.spec, inner, setting)
        branch.passing = bool(branch.reason)


def _is_on(name: str, device: torch.device) -> bool:
    current = f"cuda:{torch.cuda.current_device()}" if name == "cuda" else name
    return torch.device(current) == device


def _dropout_obstacle(branch: Branch, spec: DropoutSpec, inner: Branch, setting: Setting) -> str:
    """Why a dropout wrapper around something woven cannot be woven too; notes what it drops."""
    module, name = branch.module, type(branch.module).__name__
    branch.acting = acting = module.acting()
    for how in acting[:3]:
        if how not in ("", "constant", "fed"):
            return f"{name}: {how}"
    sites: list[tuple[str, int, int | None]] = []
    if acting[0]:
        sites.append(("input", 0, branch.depth))
    if acting[1]:
        if inner.steps_inside:
            return f"{name} drops states around a layer that runs step by step: {inner.steps_inside}"
        state = _nest.map_structure(lambda piece: piece.of(setting.leaves), branch.part)
        branch.dropped = module.dropped_leaves(state)
        pieces = _nest.flatten(branch.part)
        sites.extend(("state", index, pieces[leaf].width) for leaf, index in branch.dropped)
        if not spec.variational and any(_spans(pieces[leaf], branch) for leaf, _ in branch.dropped):
            return f"{name} draws one mask per step for several states in one tensor"
    if acting[2]:
        sites.append(("output", 0, branch.width))
    if spec.variational and sites:
        if acting[3] != setting.dtype:
            return f"the noise of {name} has another dtype than its inputs"
        if any(module.noise_size(kind, index) != (width,) for kind, index, width in sites):
            return f"the masks of {name} have another size than what they drop"
    return ""


def _spans(piece: Piece, branch: Branch) -> bool:
    """Whether a piece of the state is more than one cell's h or c."""
    return all(piece != state for inner in branch.walk() for state in inner.states)


def shared_module(tree: Branch) -> str:
    """The class of a module that stands both in a layer that runs step by step and elsewhere; "" without one."""
    woven: set[int] = set()
    stepped: list[set[int]] = []
    names: dict[int, str] = {}

    def visit(branch: Branch) -> None:
        if branch.reason:
            inside = set()
            for module in _objects(branch.module):
                inside.add(id(module))
                names[id(module)] = type(module).__name__
            stepped.append(inside)
            return
        woven.add(id(branch.module))
        for child in branch.inside:
            visit(child)

    visit(tree)
    seen = woven
    for inside in stepped:
        if inside & seen:
            return names[min(inside & seen)]
        seen = seen | inside
    return ""


def _objects(module: Any) -> list[Any]:
    """A module and all that are in it, through wrappers of what is no torch module, too."""
    found = [module, *(module.modules() if isinstance(module, nn.Module) else ())]
    for inner in [getattr(module, "cell", None), *(getattr(module, "cells", None) or ())]:
        if inner is not None and not isinstance(inner, nn.Module):
            found.extend(_objects(inner))
    return found


def draws_shared_streams(branch: Branch) -> bool:
    """Whether masks of a process-wide stream are drawn per step anywhere in it."""
    return any(
        getattr(module, "shares_streams", False) and not module.spec().variational and any(module.acting()[:3])
        for module in {id(found): found for found in _objects(branch.module)}.values()
    )
