"""Where a recurrence's weights and gates lie for the native core, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from cellweave.ops.common._library import ACTIVATION_CODES, LSTM


@dataclass(frozen=True)
class InputProduct:
    """Columns of the gate buffer that are inputs times one weight, plus one bias.

    Attributes:
        kernel, bias: Numbers of the weights; a bias may be missing.
        first, last: Columns of the buffer, in units of H, `last` excluded.
    """

    kernel: int
    bias: int | None
    first: int
    last: int


@dataclass(frozen=True)
class RecurrentProduct:
    """Columns of a weight's recurrent part, whose gradient is operands times gradients of gates.

    Attributes:
        weight: Its number.
        joined: Its rows lie below those of the inputs.
        column: First column in the weight, in units of H.
        first, last: Columns of the gate buffer, in units of H, `last` excluded.
        reset: The operand is r * h (a GRU that resets before the product), not h.
    """

    weight: int
    joined: bool
    column: int
    first: int
    last: int
    reset: bool = False


class GateWeight(NamedTuple):
    """Where a gate's recurrent weights lie.

    Attributes:
        weight: Number of the weight.
        joined: Its rows lie below those of the inputs.
        column, columns: First column, and how many the weight has, in units of H.
    """

    weight: int
    joined: bool
    column: int
    columns: int


@dataclass(frozen=True, eq=False)
class NativeLayout:
    """A cell as the native core sees it.

    The gate buffer holds, one after another, a dense matrix per group of blocks (`groups`); each has a row for each
    step and batch row, and H columns a block.

    Attributes:
        op: Recurrence, as `cellweave.h` numbers it.
        names: The weights, in the order in which the fields below number them.
        units, width: H and P.
        columns: Blocks that backward needs; forward alone makes do with `forward_columns`.
        gates: Block of each gate, by the gate's number, from `first_gate` on.
        gate_weights: The recurrent weights of each gate.
        inputs, recurrent: What torch multiplies before and after the loops.
        row_biases: Number of a bias `[2, 3H]`: the inputs' row and the state's.
        peepholes: Numbers of the diagonal weights for f, i, o; None for i where gates are coupled.
        projection: Number of the projection.
        clip_passes: The bound on c lets the whole gradient through.
        norms: Numbers of gamma and beta of each layer normalization, by the core's number of it; None: there is none.
        norm_epsilon: Added to a row's variance.
        first_gate: 1 for an LSTM with coupled gates, which has no gate 0.
        kernels: Numbers of the weights in `inputs` and `recurrent`.
        packed: Numbers of the weights that the core packs: those and the projection.
        groups: First and last (excluded) block of each matrix in the gate buffer: the blocks of one input product, and
            those that no inputs meet.
        transposed: Weights have a row for each unit: what is said of columns above holds for rows of kernels.
    """

    op: int
    names: tuple[str, ...]
    units: int
    width: int
    columns: int
    forward_columns: int
    gates: tuple[int, ...]
    gate_weights: tuple[GateWeight, ...]
    inputs: tuple[InputProduct, ...]
    recurrent: tuple[RecurrentProduct, ...]
    activation: int
    gate_activation: int
    row_biases: int | None = None
    peepholes: tuple[int, int | None, int] | None = None
    projection: int | None = None
    forget_bias: float = 0.0
    cell_clip: float | None = None
    proj_clip: float | None = None
    transposed: bool = False
    clip_passes: bool = False
    first_gate: int = 0
    norms: tuple[tuple[int, int] | None, ...] = ()
    norm_epsilon: float = 0.0
    kernels: tuple[int, ...] = field(init=False)
    packed: tuple[int, ...] = field(init=False)
    groups: tuple[tuple[int, int], ...] = field(init=False)

    def __post_init__(self) -> None:
        """Number the weights whose gradients are products over all steps."""
        numbers = {product.kernel for product in self.inputs} | {part.weight for part in self.recurrent}
        object.__setattr__(self, "kernels", tuple(sorted(numbers)))
        last = () if self.projection is None else (self.projection,)
        object.__setattr__(self, "packed", (*self.kernels, *last))
        ranges = [(product.first, product.last) for product in self.inputs]
        ranges += [(self.forward_columns, self.columns)] if self.forward_columns < self.columns else []
        object.__setattr__(self, "groups", tuple(ranges))

    def group_of(self, block: int) -> tuple[int, int]:
        """The group that a block is in."""
        return next(group for group in self.groups if group[0] <= block < group[1])

    @property
    def norm_numbers(self) -> int:
        """How many numbers a row of a step keeps for the backward pass of its normalizations."""
        return len(self.norms) + (1 if self.norms and self.op == LSTM else 0)

    @property
    def clips_projection(self) -> bool:
        """Backward needs the projected h as it was before its clip."""
        return self.projection is not None and self.proj_clip is not None


def gate_places(layout: NativeLayout, depth: int) -> dict[str, list[tuple[str, int, int, int]]]:
    """The weights that inputs `[B, depth]` and h meet, as `folded` takes them."""
    H, names = layout.units, layout.names
    inputs = [
        (names[product.kernel], 0, (column - product.first) * H, gate)
        for gate, column in enumerate(layout.gates)
        for product in layout.inputs
        if product.first <= column < product.last
    ]
    h = [
        (names[weight.weight], depth if weight.joined else 0, weight.column * H, gate)
        for gate, weight in enumerate(layout.gate_weights)
    ]
    return {"input": inputs, "h": h}


def norm_numbers(names: tuple[str, ...], norms: tuple[str | None, ...]) -> tuple[tuple[int, int] | None, ...]:
    """The numbers of the weights `<norm>/gamma` and `<norm>/beta` for each norm."""
    return tuple(n and (names.index(f"{n}/gamma"), names.index(f"{n}/beta")) for n in norms)  # type: ignore[misc]


def activation_code(activation: object) -> int:
    """The core's number of an activation; -1 where it has none."""
    return ACTIVATION_CODES.get(activation, -1) if isinstance(activation, str) else -1
