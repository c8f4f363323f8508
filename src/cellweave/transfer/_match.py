"""Finding a cell's weights among the variables of a checkpoint.

A cell is looked for by the end of its path (`multi_rnn_cell/cell_0/lstm_cell/kernel`) below any scope. A closer match
wins over a looser one, and two equally close ones are never chosen between silently.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

from cellweave.checkpoint import Inventory
from cellweave.specs import LSTMSpec
from cellweave.transfer._keras_cudnn import KerasCudnnLayout, gates_of, is_keras_cudnn
from cellweave.transfer._needs import CellNeed, LayerNeed, Weight
from cellweave.transfer._reading import Reading


class Closeness(IntEnum):
    """How a stored scope matches a cell's own: by its name, by its family's, or by shapes and structure alone."""

    NAME = 1
    FAMILY = 2
    STRUCTURE = 3


#: Names of cells whose weights mean the same.
_FAMILIES = {
    "lstm": ("lstm_cell", "basic_lstm_cell", "lstm_block_cell", "lstm_fused_cell", "lstm_block_fused_cell",
             "lstm_block_wrapper", "lstm", "cu_dnnlstm"),
    "gru": ("gru_cell", "gru_block_cell", "gru_block_cell_v2", "gru", "cu_dnngru"),
    "rnn": ("basic_rnn_cell", "simple_rnn_cell", "simple_rnn"),
    "nas": ("nas_cell", "nas_rnn"),
}  # fmt: skip
_FAMILY_OF = {name: family for family, names in _FAMILIES.items() for name in names}
#: A cell that is an LSTM without a forget bias.
_CUDNN_LSTM = "cudnn_compatible_lstm_cell"

#: A cell of a stack may lie in scopes of wrappers of the user's own, so many at most.
_IN_STACK, _WRAPPERS = re.compile(r"(?:^|/)cell_\d+$"), 2

#: Suffixes that only cells have; one that a cell stores and the module does not want is a sign of another cell.
_TELLING_SUFFIXES = (
    "w_f_diag", "w_i_diag", "w_o_diag", "projection/kernel", "projection/bias", "recurrent_kernel", "bias",
    "gates/kernel", "gates/bias", "candidate/kernel", "candidate/bias",
    "candidate/input_projection/kernel", "candidate/hidden_projection/kernel",
)  # fmt: skip


@dataclass
class Candidate:
    """One place in a checkpoint where a cell's weights may be.

    Attributes:
        prefix: Scope around it.
        closeness: Of its worst layer.
        scopes: Scope of each layer, by the layer's path.
        readings: What each weight is read from, by layer path and attribute.
        problems: Why it does not fit; empty when it does.
        depth: Input depth that the shapes tell, 0 when none depends on it.
    """

    prefix: str
    closeness: Closeness = Closeness.NAME
    scopes: dict[str, str] = field(default_factory=dict)
    readings: dict[tuple[str, str], Reading] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    depth: int = 0

    @property
    def shown(self) -> str:
        """The scope of its first layer, for people."""
        return next(iter(self.scopes.values()), self.prefix)


class Finder:
    """Looks for cells in one checkpoint."""

    def __init__(self, inventory: Inventory) -> None:
        self.inventory = inventory
        self._children = tree_of(inventory.variables)

    def candidates(self, need: CellNeed, scope: str | None) -> list[Candidate]:
        """All places that could be meant, the fitting ones first.

        Args:
            need: The cell.
            scope: Only below this scope, in lookup form; the scope may also be the cell's own.
        """
        found = [self._candidate(need, prefix, scope) for prefix in self._prefixes(need, scope)]
        return sorted(found, key=lambda c: (bool(c.problems), c.closeness, len(c.problems)))

    def _prefixes(self, need: CellNeed, scope: str | None) -> Iterator[str]:
        first = need.layers[0]
        seen = set()
        for lookup in self.inventory.variables:
            for weight in first.weights:
                if not (lookup == weight.suffix or lookup.endswith("/" + weight.suffix)):
                    continue
                own = lookup[: -len(weight.suffix) - 1]
                prefix = _around(first.directory, own.rpartition("/")[0]) if within(own, scope) else None
                if prefix is not None and prefix not in seen:
                    seen.add(prefix)
                    yield prefix

    def _candidate(self, need: CellNeed, prefix: str, around: str | None) -> Candidate:
        candidate = Candidate(prefix)
        loosest = Closeness.FAMILY if around is None and not need.stacks else Closeness.STRUCTURE
        if need.exact:
            loosest = Closeness.NAME
        for layer in need.layers:
            self._place_layer(need, layer, candidate, loosest, around)
        candidate.problems = list(dict.fromkeys(candidate.problems))
        if around is None:
            candidate.problems += self._wrong_place(need, candidate)
        for stack, count in need.stacks.items():
            beyond = join(prefix, stack, f"cell_{count}")
            if beyond in self._children:
                candidate.problems.append(f"the checkpoint has {beyond}, the module's stack has {count} cells")
        return candidate

    def _wrong_place(self, need: CellNeed, candidate: Candidate) -> list[str]:
        """Why a place that fits is not meant, unless the caller says so: another direction, a cell of a stack."""
        around, found = candidate.prefix.split("/"), []
        directions = {"fw", "bw"} & set(need.path.split("."))
        if directions and (other := {"fw", "bw"} - directions) & set(around):
            found.append(f"{candidate.shown} is the cell of the other direction, {other.pop()}")
        if re.fullmatch(r"cell_\d+", around[-1]) and len(around) > 1 and around[-2].startswith("multi_rnn_cell"):
            stack = "/".join(around[:-1])
            count = len(self._children[stack])
            if count > 1:
                found.append(
                    f"{stack} is a stack of {count} cells; build a MultiRNNCell, or name one in scope= or map="
                )
        return found

    def _place_layer(
        self, need: CellNeed, layer: LayerNeed, candidate: Candidate, loosest: Closeness, around: str | None
    ) -> None:
        directory = join(candidate.prefix, layer.directory)
        options: list[tuple[Closeness, int, str, dict[tuple[str, str], Reading], list[str], int]] = []
        for name, scope, closeness in self._scopes(directory, layer.base):
            if closeness > loosest or not within(scope, around):
                continue
            readings, problems, depth = self._fill(layer, scope, candidate.depth)
            if not readings:
                continue
            problems += self._strangers(layer, scope)
            problems += _forget_bias_problem(need, layer, name)
            problems += _activation_problem(need, layer, name, readings)
            options.append((closeness, len(problems), scope, readings, problems, depth))
        if not options:
            candidate.problems.append(f"{join(directory, layer.base)} is not there")
            return
        options.sort(key=lambda option: (option[1] > 0, option[0], option[1]))
        best = options[0]
        rivals = [option[2] for option in options if option[:2] == best[:2] and not option[1]]
        if len(rivals) > 1:
            candidate.problems.append(f"{' and '.join(rivals)} fit equally well")
        candidate.closeness = max(candidate.closeness, best[0])
        candidate.scopes[layer.path] = best[2]
        candidate.readings.update(best[3])
        candidate.problems += best[4]
        candidate.depth = candidate.depth or best[5]

    def _scopes(self, directory: str, base: str) -> Iterator[tuple[str, str, Closeness]]:
        """Name, scope and closeness of what may be a cell: directly in a directory, or in wrappers within a stack."""
        for name in self._children.get(directory, {}):
            yield name, join(directory, name), _closeness(base, name)
        below = [directory] if _IN_STACK.search(directory) else []
        for _ in range(_WRAPPERS):
            below = [join(path, name) for path in below for name in self._children.get(path, {})]
            for path in below:
                for name in self._children.get(path, {}):
                    if _closeness(base, name) < Closeness.STRUCTURE:
                        yield name, join(path, name), Closeness.STRUCTURE

    def _fill(self, layer: LayerNeed, scope: str, depth: int) -> tuple[dict[tuple[str, str], Reading], list[str], int]:
        readings: dict[tuple[str, str], Reading] = {}
        problems = []
        layout = self._layout(layer, scope)
        for weight in layer.weights:
            reading = self._reading(scope, weight)
            if reading is None:
                problems.append(f"{join(scope, weight.suffix)} {weight.shown} is missing")
                continue
            reading = replace(reading, layout=layout)
            tells = weight.depth_of(reading.shape)
            if tells is None or (tells and depth and tells != depth):
                wanted = weight.shown + (f" with D = {depth}" if depth and any(weight.slope) else "")
                problems.append(f"{join(scope, weight.suffix)} is {list(reading.shape)}, expected {wanted}")
            else:
                depth = depth or tells
            readings[layer.path, weight.attribute] = reading
        return readings, problems, depth

    def _reading(self, scope: str, weight: Weight) -> Reading | None:
        """What a weight below a scope is read from: its variable, or cuDNN's two biases that sum to it."""
        found = self.inventory.variables.get(join(scope, weight.suffix))
        if found is not None:
            return Reading((found,))
        if weight.suffix.endswith("bias"):
            pair = [self.inventory.variables.get(f"{join(scope, weight.suffix)}_cudnn_{number}") for number in (0, 1)]
            if pair[0] is not None and pair[1] is not None:
                return Reading((pair[0], pair[1]))
        return None

    def _layout(self, layer: LayerNeed, scope: str) -> KerasCudnnLayout | None:
        """The layout of Keras's cuDNN layers, where one is stored there and a Keras cell is looked for."""
        if not {"recurrent_kernel", "bias"} <= {weight.suffix for weight in layer.weights}:
            return None
        names = (join(scope, suffix) for suffix in ("recurrent_kernel", "bias"))
        recurrent, bias = (self.inventory.variables.get(name) for name in names)
        if recurrent is None or bias is None or not is_keras_cudnn(recurrent.shape, bias.shape):
            return None
        return KerasCudnnLayout(gates_of(recurrent.shape))

    def _strangers(self, layer: LayerNeed, scope: str) -> list[str]:
        wanted = {weight.suffix for weight in layer.weights}
        others = {
            suffix: variable
            for suffix in _TELLING_SUFFIXES
            if (variable := self.inventory.variables.get(join(scope, suffix))) is not None and suffix not in wanted
        }
        return [f"{scope} also holds {suffix} {list(variable.shape)}" for suffix, variable in others.items()]


def join(*parts: str) -> str:
    """Parts of a path, empty ones left out."""
    return "/".join(part for part in parts if part)


def _around(directory: str, found: str) -> str | None:
    """What lies around a cell's directory where a scope ends with it, or with it and wrappers of a stack's cell."""
    if not directory:
        return found
    wrappers = f"(?:/[^/]+){{0,{_WRAPPERS}}}" if _IN_STACK.search(directory) else ""
    match = re.fullmatch(rf"(?:(.*)/)?{re.escape(directory)}{wrappers}", found)
    return None if match is None else match[1] or ""


def within(name: str, scope: str | None) -> bool:
    """Whether a name is a scope's or lies below it; without a scope, and in the one of no name, everything does."""
    return not scope or name == scope or name.startswith(scope + "/")


def tree_of(paths: Iterable[str]) -> dict[str, dict[str, None]]:
    """The names that lie directly in each scope, as ordered sets."""
    found: dict[str, dict[str, None]] = {}
    for path in paths:
        parts = path.split("/")
        for index, part in enumerate(parts):
            found.setdefault("/".join(parts[:index]), {})[part] = None
    return found


def _plain(base: str) -> str:
    return re.sub(r"_\d+$", "", base)


def _closeness(base: str, name: str) -> Closeness:
    if name == base:
        return Closeness.NAME
    mine, theirs = _FAMILY_OF.get(_plain(base), _plain(base)), _plain(name)
    if _FAMILY_OF.get(theirs, theirs) == mine or (theirs == _CUDNN_LSTM and mine == "lstm"):
        return Closeness.FAMILY
    return Closeness.STRUCTURE


def _forget_bias_problem(need: CellNeed, layer: LayerNeed, name: str) -> list[str]:
    """CuDNN's LSTM adds no forget bias, and its name says so."""
    if _plain(name) != _CUDNN_LSTM or _plain(layer.base) == _CUDNN_LSTM:
        return []
    spec = None if need.exact else getattr(need.root.get_submodule(layer.path), "_spec", None)
    if not isinstance(spec, LSTMSpec) or spec.forget_bias == 0:
        return []
    return [f"{name} adds no forget bias, the module's cell adds {spec.forget_bias:g}; build it with forget_bias=0"]


def _activation_problem(
    need: CellNeed, layer: LayerNeed, name: str, readings: Mapping[tuple[str, str], Reading]
) -> list[str]:
    """Keras's cuDNN layers have cuDNN's activations, and a GRU its place of the reset."""
    if need.exact or all(reading.layout is None for reading in readings.values()):
        return []
    spec: Any = getattr(need.root.get_submodule(layer.path), "_spec", None)
    wanted = {"activation": "tanh", "recurrent_activation": "sigmoid", "reset_after": True}
    return [
        f"{name} is cuDNN's, with {field}={value!r}, the module's cell has {getattr(spec, field)!r}"
        for field, value in wanted.items()
        if getattr(spec, field, value) != value
    ]
