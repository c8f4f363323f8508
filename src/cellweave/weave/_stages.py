"""What a plan is made of: stages, each of which reads whole sequences and writes one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cellweave.specs import MaskSpec, RunSpec
from cellweave.weave._state_parts import Packing, Piece


@dataclass(frozen=True, eq=False)
class MaskSite:
    """A mask that a dropout wrapper draws.

    Attributes:
        occurrence: Which call of a dropout wrapper it belongs to.
        kind, index: The mask's name: "input", "state" or "output", and its number.
        width: Its columns.
        per_step: It is drawn at every step.
        by_floor: It is rounded as a variational or fed one is.
        held: Drawn at every step, each time from a stream of its own, all of which stand at one place: as
            `static_rnn` draws them. One draw then serves all steps.
    """

    occurrence: int
    kind: str
    index: int
    width: int
    per_step: bool
    by_floor: bool
    held: bool = False


@dataclass(frozen=True, eq=False)
class Placed:
    """A mask where it acts.

    Attributes:
        site: Which, as a number among the program's sites.
        spec: Where and how often it acts.
        columns: Those of its columns that act here, where it spans several states; None: all.
    """

    site: int
    spec: MaskSpec
    columns: tuple[int, int] | None = None


@dataclass(eq=False)
class LayerRun:
    """A cell with all that acts inside its time loop.

    Attributes:
        source, target: Numbers of the sequences read and written.
        node: The cell, as a number among the program's modules.
        spec: Without the options that differ from call to call: lengths, resets, direction.
        masks: Its masks, in the order of the spec's.
        states: Where `(h,)` or `(c, h)` lie.
        depth: Input width.
        weights: Names and shapes that its weights must have.
        choices: Backends chosen so far, by what decided.
        variants: The spec with options, by (lengths, resets, reverse).
    """

    source: int
    target: int
    node: int
    spec: RunSpec
    masks: list[Placed]
    states: tuple[Piece, ...]
    depth: int
    weights: tuple[tuple[str, tuple[int, ...]], ...]
    choices: dict[Any, Any] = field(default_factory=dict)
    variants: dict[tuple[bool, bool, bool], RunSpec] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Masking:
    """Masks on a sequence by itself, where what they give or take is read elsewhere too."""

    source: int
    target: int
    masks: tuple[Placed, ...]


@dataclass(frozen=True, eq=False)
class Adding:
    """The sum of two sequences: a wrapper's inputs, then what is inside it."""

    source: int
    other: int
    target: int


@dataclass(frozen=True, eq=False)
class Stepping:
    """A layer that runs step by step, with all wrappers directly around it.

    Attributes:
        node: What is called at each step.
        part: Pieces in the structure of its state.
        events: How many of the program's mask sites are drawn before its first step.
        reason: Why nothing faster can have it.
    """

    source: int
    target: int
    node: int
    part: Any
    events: int
    reason: str


@dataclass(frozen=True, eq=False)
class Mapping:
    """A wrapper's map of single steps, over a whole sequence at once.

    Attributes:
        source: What is mapped: the wrapper's inputs, or the outputs of what is inside it.
        other: The wrapper's inputs, beside outputs; None: inputs are mapped.
        node: The wrapper, as a number among the program's modules.
    """

    source: int
    other: int | None
    target: int
    node: int

    @property
    def reason(self) -> str:
        """Why compiled code cannot have it."""
        return "a wrapper's map stands outside of its layers"


Stage = LayerRun | Masking | Adding | Mapping | Stepping


@dataclass(eq=False)
class Program:
    """A composition, ready to be bound and run.

    Attributes:
        stages: In the order in which they run.
        sites: Masks in the order in which a step draws them.
        occurrences: Module number of each call of a dropout wrapper, in call order.
        modules: References to all cells and wrappers that stages name; a program keeps none of them alive.
        names: What tables call each of the modules.
        state_size: The composition's own.
        packing: The same, as what takes states apart.
        leaf_pieces: For each leaf of the state, its pieces in column order; a leaf in one piece has one.
        refusal: Why all of it has to run step by step, "" where it has not.
        static: The same as `static_rnn` runs it, once somebody has asked.
        steps: Some layer runs step by step.
        loops: So does one, or masks are drawn per step: a loop has to be open.
        runs: The layers that do not.
        leaf_widths: Of the state's leaves; -1 for one that is no matrix.
        premise: What has to hold for a program that is kept.
        single: The one layer, where there is nothing else and its states are whole leaves; else None.
        start_widths: Widths of the zeros that its state starts from where nothing else is given; None: ask its cells.
    """

    stages: list[Stage]
    sites: list[MaskSite]
    occurrences: list[int]
    modules: list[Callable[[], Any]]
    names: list[str]
    state_size: Any
    packing: Packing
    leaf_pieces: list[list[Piece]]
    refusal: str = ""
    static: Program | None = None
    steps: bool = False
    loops: bool = False
    runs: list[LayerRun] = field(default_factory=list)
    start_widths: list[int] | None = None
    leaf_widths: list[int] = field(default_factory=list)
    premise: Any = None
    single: LayerRun | None = None

    def __post_init__(self) -> None:
        """Note what is asked for at every call."""
        self.steps = any(isinstance(stage, Stepping) for stage in self.stages)
        self.loops = self.steps or any(site.per_step for site in self.sites)
        self.runs = [stage for stage in self.stages if isinstance(stage, LayerRun)]
        if len(self.stages) == len(self.runs) == 1 and all(piece.whole for piece in self.runs[0].states):
            self.single = self.runs[0]
        self.leaf_widths = [
            -1 if any(piece.width is None for piece in pieces) else sum(piece.width or 0 for piece in pieces)
            for pieces in self.leaf_pieces
        ]
