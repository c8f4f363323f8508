"""What a wrapper does to the cells inside it, as frozen data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from cellweave.specs._cells import CellSpec


@dataclass(frozen=True)
class DropoutSpec:
    """Random masks on a cell's inputs, on the state it hands on, and on its outputs.

    Attributes:
        cell: What is inside; None: something that does not describe itself.
        input_keep, state_keep, output_keep: Probabilities of keeping an element; None: fed at each call.
        variational: One mask per run in place of one per step.
        per_row: A variational mask has a row for each batch row.
    """

    cell: NodeSpec | None
    input_keep: float | None
    state_keep: float | None
    output_keep: float | None
    variational: bool
    per_row: bool = False


@dataclass(frozen=True)
class ResidualSpec:
    """A cell's inputs joined with its outputs.

    Attributes:
        cell: What is inside; None: something that does not describe itself.
        is_sum: They are added; else the caller's own function joins them.
    """

    cell: NodeSpec | None
    is_sum: bool


@dataclass(frozen=True)
class DeviceSpec:
    """A cell on a device.

    Attributes:
        cell: What is inside; None: something that does not describe itself.
        device: Torch's name of the device, such as `cuda:0`.
    """

    cell: NodeSpec | None
    device: str


@dataclass(frozen=True)
class MapSpec:
    """A cell with a map of single steps before or behind it: its wrapper's `map_inputs` or `map_outputs`.

    Attributes:
        cell: What is inside; None: something that does not describe itself.
        place: "input": `map_inputs(x)` gives what the cell reads. "output": `map_outputs(x, y)` gives the wrapper's
            output out of its own inputs and the cell's outputs; it treats each step by itself.
        depth: Columns that the cell reads; None: those of the wrapper's inputs.
        same_width: The map needs inputs and outputs of one width.
    """

    cell: NodeSpec | None
    place: Literal["input", "output"]
    depth: int | None = None
    same_width: bool = False


@dataclass(frozen=True)
class StackSpec:
    """Cells on top of each other, lowest first.

    Attributes:
        cells: What is inside; None for each that does not describe itself.
        joined_state: The states are the columns of one tensor; else a tuple.
    """

    cells: tuple[NodeSpec | None, ...]
    joined_state: bool = False


NodeSpec: TypeAlias = "CellSpec | DropoutSpec | ResidualSpec | DeviceSpec | MapSpec | StackSpec"
