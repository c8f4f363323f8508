"""Looking into a checkpoint: what is in it, and the Python that brings it back."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from os import PathLike, fspath
from pathlib import Path

from cellweave.checkpoint import Checkpoint, Inventory, StoredVariable, open_checkpoint, take_inventory
from cellweave.transfer._code import CodeWriter
from cellweave.transfer._graph_facts import CellFacts, cell_facts, gates_shown, told_of
from cellweave.transfer._graph_functions import flattened
from cellweave.transfer._graph_layers import add_layers_of_graph
from cellweave.transfer._graph_reader import GraphReader, named_by_graph
from cellweave.transfer._kinds import CELL_SUFFIXES
from cellweave.transfer._recognise import (
    Found,
    FoundCell,
    FoundCudnn,
    FoundLayer,
    FoundLayers,
    FoundPair,
    FoundStack,
    cells_in,
    recognise,
)
from cellweave.transfer._report import ROLE_WORDS, table
from cellweave.transfer._tables import graph_beside, variable_table

#: As many variables are named that lie in a cell's scope and are not its own.
_MOST_NAMED = 3


@dataclass(frozen=True)
class InspectedVariable:
    """One variable of a part.

    Attributes:
        key: Its key in the file; the first one where slices are stored apart.
        shape: Sizes in elements.
        dtype: Name of its dtype.
        note: What else is known: `3 slices`, `with moving average`.
    """

    key: str
    shape: tuple[int, ...]
    dtype: str
    note: str = ""


@dataclass(frozen=True)
class InspectedPart:
    """A cell or layer that was recognised.

    Attributes:
        name: What the printed code calls it.
        title: What it is, in words.
        variables: Its variables.
        settings: What the graph says of it.
        unknown: Constructor arguments that neither checkpoint nor graph tells, with TF1's defaults.
        parts: Cells inside it.
    """

    name: str
    title: str
    variables: tuple[InspectedVariable, ...] = ()
    settings: tuple[str, ...] = ()
    unknown: Mapping[str, str] = field(default_factory=dict)
    parts: tuple[InspectedPart, ...] = ()


@dataclass(frozen=True)
class Inspection:
    """What `inspect_tf1` found. Printing it gives the table of `cellweave inspect`.

    Attributes:
        path: The checkpoint.
        format: `V2 bundle`, `V1 file`, `V1 shards` or `frozen graph`.
        eras: Releases whose spelling of names the file uses.
        graph: The graph that was read beside it, or None.
        parts: Cells and layers that were recognised.
        others: Variables that belong to none.
        slots: Optimizer slots: tail of the key to number of variables.
        counters: Keys of counters and of an optimizer's own values, and their values.
        averages: How many variables have a moving average.
        opaque: Keys of cuDNN's opaque tensors.
        code: Python lines that build the model and load it.
    """

    path: str
    format: str
    eras: tuple[str, ...]
    graph: str | None
    parts: tuple[InspectedPart, ...]
    others: tuple[InspectedVariable, ...]
    slots: Mapping[str, int]
    counters: Mapping[str, str]
    averages: int
    opaque: tuple[str, ...]
    code: str

    def __str__(self) -> str:
        return "\n".join(_text(self))


def inspect_tf1(path: str | PathLike[str]) -> Inspection:
    """Tell what a TF1 checkpoint holds: cells and layers with their sizes, optimizer slots, and how to load it.

    What a checkpoint does not hold (forget biases, activations, clips, wrappers) is read from the graph where one lies
    beside it, and otherwise named as what the caller must know. Weights are not read.

    Args:
        path: As for `load_tf1`.
    Returns:
        The findings; `str()` of them is a table for people, `.code` is a program.
    Raises:
        CheckpointError: the checkpoint or its graph is damaged.
    """
    with open_checkpoint(fspath(path)) as checkpoint:
        inventory = take_inventory(variable_table(checkpoint))
        graph = graph_beside(checkpoint)
        facts: dict[str, CellFacts] = {}
        if graph is None:
            found = recognise(inventory)
        else:
            reader = GraphReader(flattened(graph))
            found = recognise(named_by_graph(reader, inventory), partial(gates_shown, reader))
            cells = (cell for item in found.recurrent for cell in cells_in(item))
            facts = {cell.scope: told for cell in cells if (told := cell_facts(reader, cell)) is not None}
            _drop_repeated(facts)
            add_layers_of_graph(reader, found)
        writer = CodeWriter(fspath(path), inventory, found, facts)
        parts = [_whole(writer.name_of(item), item, facts, graph is not None) for item in found.recurrent]
        parts += [_layer_part(writer.name_of(layer), layer, checkpoint) for layer in found.layers]
        order = {key: index for index, key in enumerate(checkpoint.variables)}
        parts.sort(key=lambda part: min((order.get(v.key, 0) for v in _all_variables([part])), default=0))
        return Inspection(
            path=fspath(path),
            format=checkpoint.format,
            eras=tuple(dict.fromkeys(v.era for v in inventory.variables.values() if v.era)),
            graph=None if graph is None else str(graph.path),
            parts=tuple(parts),
            others=tuple(_variable(v) for v in found.others),
            slots=inventory.slot_counts(),
            counters=_counters(inventory, checkpoint),
            averages=sum(v.average is not None for v in inventory.variables.values()),
            opaque=tuple(key.stored for key in inventory.others if key.role == "opaque"),
            code=writer.code(),
        )


def _drop_repeated(facts: dict[str, CellFacts]) -> None:
    """Forget the dropout on a cell's inputs that is the one on the outputs of the cell below."""
    masks = {
        keep.node: scope for scope, told in facts.items() for what, keep in told.dropout.items() if what == "output"
    }
    for scope, told in facts.items():
        keep = told.dropout.get("input")
        below = scope if keep is None else masks.get(keep.node, scope)
        if below != scope:  # inputs that are added without the mask show that it is the inputs' own
            owner, what = (facts[below], "output") if told.residual == "outside" else (told, "input")
            del owner.dropout[what]


def _counters(inventory: Inventory, checkpoint: Checkpoint) -> dict[str, str]:
    keys = [key.stored for key in inventory.others if key.role in ("counter", "bookkeeping")]
    scalars = [key for key in keys if checkpoint.variables[key].shape == ()]
    values = {key: checkpoint[key] for key in scalars if checkpoint.variables[key].dtype != "string"}
    return {key: f"{value:.6g}" if value.dtype.kind == "f" else str(value) for key, value in values.items()}


def _variable(variable: StoredVariable) -> InspectedVariable:
    stored = variable.any_value
    notes = []
    if len(stored.keys) > 1:
        notes.append(f"{len(stored.keys)} slices")
    if variable.value is None:
        notes.append("only its moving average")
    elif variable.average is not None:
        notes.append("with moving average")
    return InspectedVariable(stored.keys[0], stored.shape, stored.dtype, ", ".join(notes))


def _whole(name: str, found: Found, facts: Mapping[str, CellFacts], graph: bool) -> InspectedPart:
    """A part that lies in no other, with what the graph says of its unroll."""
    part = _part(name, found, facts, graph)
    shown = dict.fromkeys(told.shown_lengths for told in told_of(found, facts))
    lines = tuple(f"from the graph: {text}" for text in shown if text)
    return replace(part, settings=(*part.settings, *lines))


def _part(name: str, found: Found, facts: Mapping[str, CellFacts], graph: bool) -> InspectedPart:
    if isinstance(found, FoundCell):
        told = facts.get(found.scope)
        return InspectedPart(name, cell_title(found, told), _cell_variables(found), *_settings(found, told, graph))
    if isinstance(found, FoundStack):
        inside = tuple(_part(f"cell_{i}", cell, facts, graph) for i, cell in enumerate(found.cells))
        settings: tuple[str, ...] = ()
        if any(told.stack_one_tensor for told in told_of(found, facts)):
            settings = ("from the graph: its state is one tensor (state_is_tuple=False)",)
        told = facts.get(found.cells[0].scope)
        if len(inside) == 1 and told is not None and told.places > 1:
            settings += (f"from the graph: one cell in {told.places} places, [cell] * {told.places}",)
        title = f"MultiRNNCell of {_count(len(inside), 'cell')}"
        return InspectedPart(name, title, settings=settings, parts=inside)
    if isinstance(found, FoundPair):
        title = "one cell for both directions" if found.bw is None else "cells of a bidirectional unroll"
        sides = (("fw", found.fw), ("bw", found.bw))
        inside = tuple(_part(side, cell, facts, graph) for side, cell in sides if cell is not None)
        return InspectedPart(name, title, parts=inside)
    if isinstance(found, FoundLayers):
        inside = tuple(_part(f"cell_{i}", pair, facts, graph) for i, pair in enumerate(found.pairs))
        return InspectedPart(name, f"stack of {_count(len(inside), 'bidirectional unroll')}", parts=inside)
    return _cudnn_part(name, found)


def _cudnn_part(name: str, found: FoundCudnn) -> InspectedPart:
    ways = ", both directions" if found.both else ""
    title = f"{found.cls}, {_count(found.layers, 'layer')} of {found.units} units{ways}, {found.depth} inputs"
    inside = tuple(
        InspectedPart(_place_in(cell, found.inside.scope), cell_title(cell, None), _cell_variables(cell))
        for cell in cells_in(found)
    )
    return InspectedPart(name, title, unknown={"dropout": "0.0"}, parts=inside)


def _place_in(cell: FoundCell, scope: str) -> str:
    """A cell's place in a stack: `cell_0`, or `cell_0/fw`."""
    place = cell.scope.removeprefix(scope + "/").rpartition("/")[0]
    return place.replace("bidirectional_rnn/", "")


def _cell_variables(cell: FoundCell) -> tuple[InspectedVariable, ...]:
    """Its variables in TF1's order of making them."""
    order = [suffix for suffix in CELL_SUFFIXES if suffix in cell.variables]
    return tuple(_variable(cell.variables[suffix]) for suffix in order)


def _layer_part(name: str, layer: FoundLayer, checkpoint: Checkpoint) -> InspectedPart:
    words = {"Linear": "{} -> {}", "Embedding": "{} rows of {}", "LayerNorm": "{}"}
    sizes = words.get(layer.kind, "{} -> {}, window {}").format(*layer.sizes)
    settings: tuple[str, ...] = ()
    stored = layer.parameters["weight"].any_value
    starts = {part[0][0] for part in checkpoint.variables[stored.keys[0]].slices}
    slices = max(len(starts), len(stored.keys) if stored.axis == 0 else 0)
    if layer.kind == "Embedding" and slices > 1:
        settings = (
            f"in {slices} slices: embedding_lookup deals rows to them in turn unless partition_strategy is 'div'",
        )
    variables = tuple(_variable(v) for v in layer.parameters.values())
    return InspectedPart(name, f"{layer.kind}, {sizes}", variables, settings)


def cell_title(cell: FoundCell, told: CellFacts | None) -> str:
    """A cell in words: `LSTMCell, 5 units, 6 inputs, projected to 3, peepholes`."""
    kind = cell.kind
    cls = kind.cls if told is None or told.cls is None else told.cls
    words = [cls, _count(kind.units, "unit"), _count(kind.depth, "input")]
    if "num_proj" in kind.options:
        words.append(f"projected to {kind.options['num_proj']}")
    if "w_f_diag" in cell.variables:
        words.append("peepholes")
    return ", ".join(words)


def _settings(cell: FoundCell, told: CellFacts | None, graph: bool) -> tuple[tuple[str, ...], dict[str, str]]:
    """What the graph says of a cell, and what is left for the caller to know."""
    lines = []
    known = {} if told is None or told.step is False else told.options  # of another step they are not its arguments
    if known:
        lines.append("from the graph: " + ", ".join(f"{name} {_plain(value)}" for name, value in known.items()))
    if told is not None:
        lines += [f"from the graph: dropout on its {what}s, {keep.shown}" for what, keep in told.dropout.items()]
        if told.residual is not None:
            lines.append("from the graph: its inputs are added to its outputs (ResidualWrapper)")
        if told.one_tensor:
            lines.append("from the graph: its state is one tensor (state_is_tuple=False)")
        if told.reversed:
            lines.append("from the graph: it reads its inputs backwards (TimeReversedFusedRNN)")
    lines += _step_lines(cell, told)
    if graph and (told is None or not told.followed):
        more = "whether its step is that of its class"
        if cell.kind.cls.startswith("keras."):
            more = "a direction (go_backwards)"
        if told is None or told.cls is None:
            lines.append(f"not read from the graph: dropouts, residual connections, lengths, {more}")
        else:
            lines.append("not read from the graph: dropouts, residual connections, lengths")
    if told is not None and told.step is False:
        return tuple(lines), {}
    unknown = {name: value for name, value in cell.kind.unknown.items() if name not in known and _asked(told, name)}
    return tuple(lines), unknown


def _step_lines(cell: FoundCell, told: CellFacts | None) -> Iterator[str]:
    """What makes it doubtful that a cell computes what its class does."""
    if told is not None and told.step is False:
        yield f"from the graph: it has the variables of {cell.kind.cls}, but another step"
    if told is not None and told.changed:
        yield "from the graph: its state is changed between steps, as zoneout and resets do"
    if not cell.kind.certain and "recurrent_kernel" not in cell.variables:
        if "gates/kernel" not in cell.variables:
            yield "told by its shapes and place, its name is none of TF1's"
        elif told is None or told.step is None:
            yield "told by its variables, its name is none of TF1's"
    if cell.more and (told is None or told.step is None):
        others = f" and {len(cell.more) - _MOST_NAMED} others" if len(cell.more) > _MOST_NAMED else ""
        yield f"more is in its scope than {cell.kind.cls} has: {', '.join(cell.more[:_MOST_NAMED])}{others}"


def _asked(told: CellFacts | None, name: str) -> bool:
    """Whether a cell of the class that the graph tells has this argument: block cells have no activation."""
    return told is None or told.cls is None or name != "activation"


def _plain(value: str) -> str:
    return value.strip("'")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _walk(
    parts: Sequence[InspectedPart], around: tuple[str, ...] = ()
) -> Iterator[tuple[InspectedPart, tuple[str, ...]]]:
    """Every part and those inside it, each with the names that lead to it."""
    for part in parts:
        path = (*around, part.name)
        yield part, path
        yield from _walk(part.parts, path)


def _all_variables(parts: Sequence[InspectedPart]) -> list[InspectedVariable]:
    return [variable for part, _ in _walk(parts) for variable in part.variables]


def _unknown_lines(parts: Sequence[InspectedPart]) -> list[str]:
    """What the caller must know, each argument once with the parts that have it."""
    users: dict[tuple[str, str], list[str]] = {}
    for part, path in _walk(parts):
        for name, value in part.unknown.items():
            users.setdefault((name, _plain(value)), []).append(".".join(path))
    rows = [(name, f"TF1's default {value}", ", ".join(paths)) for (name, value), paths in users.items()]
    return table(rows)


def _text(found: Inspection) -> list[str]:
    variables = [*_all_variables(found.parts), *found.others]
    scalars = sum(math.prod(v.shape) for v in variables)
    head = [found.format] + ([f"names of {' and '.join(found.eras)}"] if found.eras else [])
    lines = [found.path, f"  {', '.join(head)}; {_count(len(variables), 'variable')}, {scalars:,} values"]
    lines += [f"  graph read from {Path(found.graph).name}" if found.graph else "  no graph lies beside it", ""]
    width = max((len(part.name) for part in found.parts), default=0)
    columns = _widths(found)
    for part in found.parts:
        lines += [*_part_lines(part, width, columns), ""]
    if found.others:
        lines += ["other variables", *(_row(v, columns, 2) for v in found.others), ""]
    if found.slots or found.averages or found.opaque or found.counters:
        lines += ["not needed to run", *_rest_lines(found), ""]
    unknown = _unknown_lines(found.parts)
    if found.graph is None and found.parts:
        unknown = [*unknown, "  dropouts and residual connections, which leave no trace in names"]
    if unknown:
        told = "neither the checkpoint nor the graph tells" if found.graph else "no checkpoint holds"
        lines += [f"for you to know, because {told} it", *unknown, ""]
    return [*lines, "Python", "", *("    " + line if line else "" for line in found.code.splitlines())]


def _rest_lines(found: Inspection) -> list[str]:
    rows = [(tail, f"optimizer slot of {_count(count, 'variable')}") for tail, count in found.slots.items()]
    if found.averages:
        rows.append(
            ("ExponentialMovingAverage", f"of {_count(found.averages, 'variable')}, read by load_tf1(averaged=True)")
        )
    rows += found.counters.items()
    rows += [(key, ROLE_WORDS["opaque"].removesuffix("s")) for key in found.opaque]
    return table(rows)


def _widths(found: Inspection) -> tuple[int, int]:
    """Columns of the keys, indents included, and of the shapes."""
    rows = [(2, v) for v in found.others]
    rows += [(2 * len(path), v) for part, path in _walk(found.parts) for v in part.variables]
    keys = max((indent + len(v.key) for indent, v in rows), default=0)
    return keys, max((len(str(list(v.shape))) for _, v in rows), default=0)


def _part_lines(part: InspectedPart, width: int, columns: tuple[int, int], indent: int = 0) -> list[str]:
    lines = [f"{' ' * indent}{part.name.ljust(width)}  {part.title}"]
    deeper = indent + 2
    lines += [" " * deeper + setting for setting in part.settings]
    lines += [_row(variable, columns, deeper) for variable in part.variables]
    inner = max((len(inside.name) for inside in part.parts), default=0)
    for inside in part.parts:
        lines += _part_lines(inside, inner, columns, deeper)
    return lines


def _row(variable: InspectedVariable, columns: tuple[int, int], indent: int) -> str:
    key, shape = (" " * indent + variable.key).ljust(columns[0]), str(list(variable.shape)).ljust(columns[1])
    return "  ".join((key, shape, variable.dtype, variable.note)).rstrip()
