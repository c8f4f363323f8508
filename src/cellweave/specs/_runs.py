"""One layer over a whole sequence, as frozen data: a cell and all that acts inside its time loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cellweave.specs._cells import CellSpec

#: What a mask multiplies: a step's inputs, the states h and c that it hands on, or its output. Or which elements of the
#: new h or c are kept, where the others stay what they were before the step: zoneout.
MaskPlace = Literal["input", "h", "c", "output", "zone_h", "zone_c"]
#: The places of zoneout.
ZONES = ("zone_h", "zone_c")


@dataclass(frozen=True)
class MaskSpec:
    """One random mask of a layer run.

    Attributes:
        place: Where it acts.
        per_step: A fresh mask at every step; else one mask serves all steps.
        per_row: Each batch row has a row of its own (a mask per step always has); else all rows share one.
    """

    place: MaskPlace
    per_step: bool
    per_row: bool


@dataclass(frozen=True)
class RunSpec:
    """One layer over a whole sequence.

    Attributes:
        cell: The recurrence.
        masks: Random masks, in the order in which a step draws them.
        residual: The outputs, after their masks, are added to the run's own inputs as they were before any mask.
        lengths: Rows have lengths of their own: outputs past them are zero, states stay.
        resets: Some steps start a row's state anew.
        reverse: Each row is read backwards, its first `lengths[b]` steps only; output t belongs to input t.
        all_states: The state after every step is asked for.
    """

    cell: CellSpec
    masks: tuple[MaskSpec, ...] = ()
    residual: bool = False
    lengths: bool = False
    resets: bool = False
    reverse: bool = False
    all_states: bool = False
