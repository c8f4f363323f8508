"""Which backend was measured to be the faster one on a CUDA device, by recurrence, dtype and class of sizes.

The numbers stand in _cuda_choice.json, which benchmarks/choose_gpu.py makes out of a run of `make bench-gpu`.
"""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import Any, NamedTuple

from cellweave._types import dtype_name
from cellweave.ops.common import RunContext
from cellweave.specs import CellSpec, GRUSpec, LSTMSpec, RunSpec

#: The largest H and B of each class; what is larger still is a class of its own. Each class holds at least one of the
#: sizes that the benchmark takes, and up to 192 units cuDNN has an algorithm that it has for no others.
UNITS = (192, 384, 640, 896, 1280)
ROWS = (8, 32, 96, 192)
_FILE = "_cuda_choice.json"


class Key(NamedTuple):
    """What a choice depends on.

    Attributes:
        recurrence: As `recurrence_of` names it. dtype: Such as "bfloat16"; float32 with TF32 products, torch's default.
        gradients: They are asked for. units, rows: Their classes, as `size_class` gives them.
    """

    recurrence: str
    dtype: str
    gradients: bool
    units: int | None
    rows: int | None


class Measured(NamedTuple):
    """The faster backend, and what was measured, in words."""

    backend: str
    why: str


def size_class(size: int, bounds: tuple[int, ...]) -> int | None:
    """The class of a size: its largest member, None for that of all larger sizes."""
    return next((bound for bound in bounds if size <= bound), None)


def recurrence_of(cell: CellSpec) -> str:
    """A recurrence's name in the table."""
    if isinstance(cell, GRUSpec):
        return "gru_after" if cell.reset_after else "gru_before"
    return "lstm" if isinstance(cell, LSTMSpec) else "rnn"


def measured(spec: RunSpec, context: RunContext) -> Measured | None:
    """What was measured of layers such as this one; None: nothing.

    Only layers without projections and lengths are: cuDNN runs these by another algorithm.
    """
    if spec.lengths or getattr(spec.cell, "projection", None) is not None:
        return None
    key = Key(
        recurrence_of(spec.cell), dtype_name(context.dtype), context.needs_grad,
        size_class(spec.cell.units, UNITS), size_class(context.B, ROWS),
    )  # fmt: skip
    return checked_in().get(key)


@functools.cache
def checked_in() -> dict[Key, Measured]:
    """The table that belongs to this version of the package."""
    return table_of(json.loads(resources.files("cellweave.weave").joinpath(_FILE).read_text(encoding="utf-8")))


def table_of(whole: dict[str, Any]) -> dict[Key, Measured]:
    """The table from the content of its file."""
    found = {}
    for row in whole["choices"]:
        times = row["ms"]
        rivals = ", ".join(f"{name} {time:.3g} ms" for name, time in times.items() if name != row["backend"])
        why = f"measured faster on {whole['device']}: {times[row['backend']]:.3g} ms, {rivals}"
        found[Key(*(row[field] for field in Key._fields))] = Measured(row["backend"], why)
    return found
