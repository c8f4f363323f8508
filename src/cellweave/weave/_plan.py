"""What runs a composition, as a table for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from cellweave.ops.common import activation_name
from cellweave.specs import LSTMSpec, MaskSpec, RunSpec
from cellweave.weave._choice import Choice
from cellweave.weave._stages import Adding, LayerRun, Mapping, Masking, Program, Stepping

_PLACES = {"input": "inputs", "h": "h", "c": "c", "output": "outputs"}
_ZONES = {"zone_h": "h", "zone_c": "c"}
#: Words for the options of a call.
_OPTIONS = {"lengths": "lengths", "resets": "resets", "reverse": "reverse", "all_states": "all states"}


@dataclass(frozen=True)
class PlanRow:
    """One line of a plan: a layer over the whole sequence.

    Attributes:
        layer: Its number, from 1, in the order in which layers run; "" for what stands between layers.
        cell: The cell and its size, such as `GRUCell 256`.
        inside: What acts inside its time loop: masks, lengths, resets, direction, residual.
        backend: "native", "torch", "triton", or "reference": step by step; "none" where the one that `use_backend` asks
            for cannot run it.
        threads: Of the time loop.
        why: Why this backend, why no faster one, and how it runs the layer where there is something to know of that.
    """

    layer: str
    cell: str
    inside: str
    backend: str
    threads: int
    why: str


@dataclass(frozen=True)
class Plan:
    """How an unroll runs: what `explain` returns. `str(plan)` is the table.

    Attributes:
        rows: One for each layer.
        note: What else there is to say; "" for nothing.
    """

    rows: tuple[PlanRow, ...]
    note: str = ""

    @property
    def backends(self) -> tuple[str, ...]:
        """The backends of the layers, lowest layer first."""
        return tuple(row.backend for row in self.rows if row.layer)

    def __str__(self) -> str:
        names = [field.name for field in fields(PlanRow)]
        lines = [["acts inside" if name == "inside" else name for name in names]]
        lines += [[str(getattr(row, name)) or "-" for name in names] for row in self.rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(names))]
        lines.insert(1, ["-" * width for width in widths])
        table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
        return "\n".join(line.rstrip() for line in [*table, *([self.note] if self.note else [])])


def plan_of(program: Program, specs: Sequence[RunSpec], choices: Sequence[Choice], options: str, stepped: str) -> Plan:
    """The plan of a program.

    Args:
        program: The composition.
        specs: Of its layers, with the options of the call.
        choices: What runs each of them.
        options: What layers that run step by step have of lengths, resets and direction.
        stepped: What runs these: "reference", or "none".
    """
    rows: list[PlanRow] = []
    waiting = iter(zip(specs, choices, strict=True))
    for stage in program.stages:
        if isinstance(stage, LayerRun):
            spec, choice = next(waiting)
            number = str(1 + sum(bool(row.layer) for row in rows))
            cell = f"{program.names[stage.node]} {size_of(spec)}"
            rows.append(PlanRow(number, cell, inside_of(spec), choice.name, choice.threads, choice.why))
        else:
            rows.append(_other_row(program, stage, rows, options, stepped))
    return Plan(tuple(rows))


def _other_row(
    program: Program, stage: Masking | Adding | Mapping | Stepping, rows: Sequence[PlanRow], options: str, stepped: str
) -> PlanRow:
    if isinstance(stage, Masking):
        inside = _masks([placed.spec for placed in stage.masks])
        return PlanRow("", "dropout", inside, "torch", 1, "a residual sum or a layer that steps stands beside it")
    if isinstance(stage, Adding):
        return PlanRow("", "residual", "sum", "torch", 1, "it spans more than one layer's own inputs and outputs")
    if isinstance(stage, Mapping):
        what = "inputs" if stage.other is None else "outputs"
        return PlanRow("", program.names[stage.node], what, "torch", 1, "a map of single steps: all at once")
    number = str(1 + sum(bool(row.layer) for row in rows))
    return PlanRow(number, program.names[stage.node], options, stepped, 1, stage.reason)


def size_of(spec: RunSpec) -> str:
    """A cell's width, and its activation where that is not tanh."""
    cell = spec.cell
    size = str(cell.units)
    if isinstance(cell, LSTMSpec) and cell.projection is not None:
        size += f" to {cell.projection}"
    return size if cell.activation == "tanh" else f"{size} {activation_name(cell.activation)}"


def inside_of(spec: RunSpec) -> str:
    """What acts inside a run's time loop, such as `masks per run on h, lengths`."""
    parts = [_masks(spec.masks)] if spec.masks else []
    parts += [words for name, words in _OPTIONS.items() if getattr(spec, name)]
    return ", ".join([*parts, *(["residual"] if spec.residual else [])])


def _masks(masks: Sequence[MaskSpec]) -> str:
    """Where masks act, by how often they are drawn, such as `masks per step on inputs, h of each gate`, and zoneout."""
    found = []
    for what, names in (("masks", _PLACES), ("zoneout", _ZONES)):
        for per_step, often in ((True, "step"), (False, "run")):
            acting = (mask for mask in masks if mask.per_step is per_step and mask.place in names)
            places = dict.fromkeys(names[m.place] + (" of each gate" if m.per_gate else "") for m in acting)
            if places:
                found.append(f"{what} per {often} on {', '.join(places)}")
    return ", ".join(found)
