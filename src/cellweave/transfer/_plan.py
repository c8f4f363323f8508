"""Deciding what each parameter of a model is read from, before anything is touched."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import nn

from cellweave._errors import ArgumentError, CheckpointError
from cellweave.checkpoint import Inventory, Stored
from cellweave.transfer._cudnn import opaque_of
from cellweave.transfer._match import Candidate, Closeness, Finder, join
from cellweave.transfer._needs import CellNeed, need_of, outermost_layers
from cellweave.transfer._plain import PlainNeed, plain_needs, plain_options
from cellweave.transfer._reading import Reading
from cellweave.transfer._report import MissingRow


@dataclass
class CellPlan:
    """An outermost layer, and where its weights are; `opaque` where only cuDNN's own layout is stored."""

    need: CellNeed
    candidate: Candidate
    opaque: Stored | None = None


@dataclass
class LoadPlan:
    """What is read for every parameter.

    Attributes:
        cells: Plans of the outermost layers.
        plain: Parameters outside of them that were found.
        missing: What was found nowhere, or in several places alike.
    """

    cells: list[CellPlan] = field(default_factory=list)
    plain: list[tuple[PlainNeed, Reading]] = field(default_factory=list)
    missing: list[MissingRow] = field(default_factory=list)


class Names:
    """The caller's `scope` and `map`, in the form in which the checkpoint's names are looked up."""

    def __init__(
        self, where: str, inventory: Inventory, scope: str | None, given: Mapping[str, str | None] | None
    ) -> None:
        self.where, self._place = where, inventory.place
        self.scope = None if scope is None else self._place(scope)
        self.given = dict(given or {})
        self.used: set[str] = set()

    def of(self, path: str) -> tuple[bool, str | None]:
        """Whether the caller said where a path or one around it is, and where; None: leave it alone."""
        for key in sorted(self.given, key=len, reverse=True):
            if key == "" or path == key or path.startswith(key + "."):
                self.used.add(key)
                value = self.given[key]
                return True, None if value is None else self._place(value)
        return False, self.scope

    def own(self, path: str) -> str | None:
        """Where the caller said that this very path is."""
        value = self.given.get(path)
        if value is None:
            return None
        self.used.add(path)
        return self._place(value)

    def check_used(self, model: nn.Module) -> None:
        """Raise when a key names nothing in the model."""
        unused = sorted(set(self.given) - self.used)
        if unused:
            known = [name for name, _ in model.named_modules() if name]
            raise ArgumentError(
                f"{self.where}: expected keys of map that are paths in the module, got {unused}. "
                f"It has {', '.join(known[:20]) or 'no parts'}."
            )


def plan_load(model: nn.Module, inventory: Inventory, names: Names) -> LoadPlan:
    """Find every parameter of a model.

    Raises:
        CheckpointError: one variable would be read into two parameters without the caller saying so; a cell that is
            used twice is stored twice with other names. ScopeError: a layer does not tell its weights.
    """
    plan = LoadPlan()
    _plan_cells(model, inventory, names, plan)
    for need in plain_needs(model):
        _plan_plain(need, inventory, names, plan)
    names.check_used(model)
    _check_single_use(plan, names)
    return plan


def _plan_cells(model: nn.Module, inventory: Inventory, names: Names, plan: LoadPlan) -> None:
    finder = Finder(inventory)
    needs = [need_of(path, root) for path, root in outermost_layers(model)]
    open_needs: list[tuple[CellNeed, list[Candidate], str | None]] = []
    decided: dict[str, CellPlan] = {}
    for need in (need for need in needs if need.layers):
        mapped = _mapped_weights(need, finder, names)
        explicit, scope = names.of(need.path)
        if mapped is not None:
            decided[need.path] = CellPlan(need, mapped)
        elif not (explicit and scope is None):
            open_needs.append((need, finder.candidates(need, scope), scope))
    taken: set[str] = set()
    while open_needs:
        chosen = [(item, found) for item in open_needs if (found := _chosen(*item, taken, inventory)) is not None]
        if not chosen:
            break
        for item, found in chosen:
            open_needs.remove(item)
            decided[item[0].path] = CellPlan(item[0], found)
            if not names.of(item[0].path)[0]:
                taken.update(found.scopes.values())
    for need, candidates, scope in open_needs:
        opaque = opaque_of(need, inventory, scope) if need.exact and not candidates else None
        if opaque is not None:
            decided[need.path] = CellPlan(need, Candidate(""), opaque)
            continue
        plan.missing.append(MissingRow(need.path, _kind(need), _why(candidates, scope)))
    plan.cells += [decided[need.path] for need in needs if need.path in decided]


def _mapped_weights(need: CellNeed, finder: Finder, names: Names) -> Candidate | None:
    """A cell each of whose weights the caller named by itself."""
    given = {
        (layer.path, weight.attribute): (weight, names.own(need.joined(layer, weight)))
        for layer in need.layers
        for weight in layer.weights
    }
    if not any(name for _, name in given.values()):
        return None
    found = Candidate("", Closeness.STRUCTURE)
    for layer in need.layers:
        for weight in layer.weights:
            name = given[layer.path, weight.attribute][1]
            variable = None if name is None else finder.inventory.variables.get(name)
            shown = need.joined(layer, weight)
            if variable is None:
                raise CheckpointError(
                    f"{names.where}: expected a variable for each weight of {need.path or 'the cell'} because map "
                    f"names some, got none for {shown}{f' called {name!r}' if name else ''}."
                )
            depth = weight.depth_of(variable.shape)
            if depth is None or (depth and found.depth and depth != found.depth):
                raise CheckpointError(
                    f"{names.where}: {shown}: expected {weight.shown}, got {variable.name} {list(variable.shape)}."
                )
            found.depth = found.depth or depth
            found.readings[layer.path, weight.attribute] = Reading((variable,))
    return found


def _chosen(
    need: CellNeed, candidates: list[Candidate], scope: str | None, taken: set[str], inventory: Inventory
) -> Candidate | None:
    """The one place that is meant, None when there is none or no single one."""
    outer = inventory.place(need.outer)
    fitting = [c for c in candidates if not c.problems and not (taken & set(c.scopes.values()))]
    if need.built and scope is None:
        own = [c for c in fitting if c.closeness is Closeness.NAME and c.prefix == outer]
        if own:
            return own[0]
    if not fitting:
        return None
    closest = [c for c in fitting if c.closeness == fitting[0].closeness]
    for prefix in () if scope is None else (scope, join(scope, "rnn")):
        exact = [c for c in closest if c.prefix == prefix]
        if len(exact) == 1:
            return exact[0]
    if len(closest) == 1:
        return closest[0]
    wanted = _words(need.path.split("."))
    scores = [len(wanted & _words(c.shown.split("/"))) for c in closest]
    best = max(scores)
    return closest[scores.index(best)] if best and scores.count(best) == 1 else None


def _words(parts: Iterable[str]) -> set[str]:
    """What a path's parts say: themselves, and the words in them; a number counts as a layer's."""
    found: set[str] = set()
    for part in parts:
        if part.isdigit():
            found |= {f"cell_{part}", f"layer_{part}"}
            continue
        found.add(part.lower())
        if not re.fullmatch(r"(cell|layer)_\d+", part):
            found |= set(part.lower().split("_")) - {"cell", "rnn", "lstm", "gru", "layer", "cells"}
    return found - {""}


def _kind(need: CellNeed) -> str:
    weights = need.layers[0].weights
    kind = type(need.root).__name__
    return f"{kind} ({', '.join(f'{w.suffix} {w.shown}' for w in weights[:2])}{', ...' if len(weights) > 2 else ''})"


def _why(candidates: list[Candidate], scope: str | None) -> str:
    below = f" below {scope}" if scope else ""
    fitting = [c.shown for c in candidates if not c.problems]
    if len(fitting) > 1:
        return f"it fits {', '.join(fitting[:6])} alike{below}: say which by scope= or map="
    if fitting:
        return f"only {fitting[0]} fits, and another cell is loaded from it: name it in map= for both, or use one cell"
    if not candidates:
        return f"no cell of its kind{below}"
    problems = candidates[0].problems
    more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
    return f"closest is {candidates[0].shown or 'nothing'}{below}: {'; '.join(problems[:3])}{more}"


def _plan_plain(need: PlainNeed, inventory: Inventory, names: Names, plan: LoadPlan) -> None:
    own = names.own(need.path)
    explicit, place = names.of(need.path)
    if explicit and place is None:
        return
    wanted = need.stored_shape
    if own is not None:
        variable = inventory.variables.get(own)
        axes = need.axes
        if variable is not None and variable.shape == tuple(need.value.shape) != wanted:
            wanted, axes = variable.shape, None  # in torch's order already, and the caller named it
        options = [] if variable is None else [Reading((variable,), axes)]
    elif explicit:
        options = plain_options(need, inventory, None, place)
    else:
        options = plain_options(need, inventory, place, None)
    if len(options) == 1 and options[0].sources[0].shape == wanted:
        plan.plain.append((need, options[0]))
        return
    if not options:
        reason = f"no variable {own or place}" if own or explicit else f"no variable like {need.default_name}"
        alike = [v.lookup for v in inventory.variables.values() if v.shape == need.stored_shape]
        if alike:
            reason += f"; of this shape: {', '.join(alike[:4])}"
    elif len(options) > 1:
        reason = f"it fits {', '.join(r.sources[0].lookup for r in options[:6])} alike: say which by map="
    else:
        reason = f"{options[0].sources[0].lookup} is {list(options[0].sources[0].shape)}, expected {list(wanted)}"
    plan.missing.append(MissingRow(need.path, str(list(need.value.shape)), reason))


def _check_single_use(plan: LoadPlan, names: Names) -> None:
    """Raise when a variable would be read twice although the caller named only one of the places, or none."""
    users: dict[str, list[str]] = {}
    for cell in plan.cells:
        for (path, attribute), reading in cell.candidate.readings.items():
            shown = ".".join(part for part in (cell.need.path, path, attribute) if part)
            users.setdefault(reading.sources[0].lookup, []).append(shown)
    for need, reading in plan.plain:
        users.setdefault(reading.sources[0].lookup, []).append(need.path)
    for lookup, paths in users.items():
        if len(paths) > 1 and not all(names.of(path)[0] for path in paths):
            raise CheckpointError(
                f"{names.where}: expected each variable in one place, got {lookup} for {' and '.join(paths)}. "
                "Share one module, or name it for each in map=."
            )
