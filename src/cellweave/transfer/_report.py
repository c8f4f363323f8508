"""What a transfer did, for programs and for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class LoadedRow:
    """One parameter that was read.

    Attributes:
        parameter: Its path in the module.
        keys: Keys of the checkpoint that it was read from.
        shape: Its shape in the module.
        dtype: Name of its dtype.
        note: What was done on the way, such as `transposed`; "" when it was copied as it is.
    """

    parameter: str
    keys: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    note: str = ""


@dataclass(frozen=True)
class LeftRow:
    """One key of the checkpoint that was not read.

    Attributes:
        key: The key.
        shape: Sizes of the stored tensor.
        role: `variable`, `slot`, `average`, `bookkeeping`, `counter` or `opaque`.
    """

    key: str
    shape: tuple[int, ...]
    role: str


@dataclass(frozen=True)
class MissingRow:
    """One parameter that the checkpoint does not hold.

    Attributes:
        parameter: Its path in the module.
        shape: Its shape, `D` for an input depth that is not known.
        reason: Where it was looked for.
    """

    parameter: str
    shape: str
    reason: str


@dataclass(frozen=True)
class LoadReport:
    """What `load_tf1` read, left and missed. Printing it gives a table.

    Attributes:
        path: The checkpoint.
        loaded: Parameters that were read, in the order of the module.
        left: Keys that were not.
        missing: Parameters without a variable; empty unless `strict=False`.
        names: Parameter path to the variable's TF1 name, as later TF1 spells it.
        optimizer_scope: Scope of the optimizer whose slots were read, "" for none.
    """

    path: str
    loaded: tuple[LoadedRow, ...]
    left: tuple[LeftRow, ...]
    missing: tuple[MissingRow, ...]
    names: dict[str, str]
    optimizer_scope: str = ""

    def __str__(self) -> str:
        lines = [f"{self.path}: {len(self.loaded)} parameters loaded"]
        lines += table([(row.parameter, _shape(row.shape), " + ".join(row.keys), row.note) for row in self.loaded])
        if self.missing:
            lines += ["", "missing"]
            lines += table([(row.parameter, row.shape, row.reason) for row in self.missing])
        variables = [row for row in self.left if row.role == "variable"]
        if variables:
            lines += ["", "left in the checkpoint"]
            lines += table([(row.key, _shape(row.shape)) for row in variables])
        rest = [row.role for row in self.left if row.role != "variable"]
        if rest:
            counts = ", ".join(f"{rest.count(role)} {ROLE_WORDS[role]}" for role in dict.fromkeys(rest))
            lines += ["", f"not needed: {counts}"]
        return "\n".join(lines)


#: What roles other than a variable's are called when they are counted.
ROLE_WORDS = {
    "slot": "optimizer slots",
    "average": "moving averages",
    "bookkeeping": "values of an optimizer",
    "counter": "counters",
    "opaque": "opaque cuDNN tensors",
}


def table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows as indented lines with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [f"  {'  '.join(map(str.ljust, row, widths))}".rstrip() for row in rows]


def _shape(shape: tuple[int, ...]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"
