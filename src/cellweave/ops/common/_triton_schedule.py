"""Who owns what in a persistent kernel: units to programs, rows to groups, operands to pieces. Plain arithmetic."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import NamedTuple

#: Rows of a group. Source: a product's tile needs 16; at 64 the LSTM's forward kernel spills registers.
_GROUP_ROWS = (16, 32)
#: Units of a program: with fewer than 8, four gates fill no tile of a product; more than 64 do not fit beside weights.
_PROGRAM_UNITS = (8, 16, 32, 64)
#: The smallest side of a product's operand.
_LEAST_PIECE = 16
#: Warps of a program; with 16, kernels spill registers.
WARPS = 8
#: A product is split over the warps along its summed side: else each warp repeats all of it. A part's tile, which a
#: warp holds in registers, has at most so many elements.
_SPLIT_TILE = 1024
_SUM_BYTES = 4  # of an element of it


class Chip(NamedTuple):
    """What a device offers: multiprocessors, and the bytes of shared memory that one program may use."""

    processors: int
    shared: int


#: NVIDIA H100 and H200; what kernels are compiled for where no device is at hand. Of the 227 KiB that a program may
#: use, 3 are left to the compiler.
HOPPER = Chip(132, 224 << 10)


class Product(NamedTuple):
    """A product that every step makes: all rows of a group times a program's slice of a weight.

    Attributes:
        summed: Its summed side.
        columns: How many columns all programs share out.
        per_unit: Of those, how many belong to one unit of the cell; 0: they are shared out by themselves.
    """

    summed: int
    columns: int
    per_unit: int


@dataclass(frozen=True)
class Schedule:
    """How a kernel's work is shared out.

    Attributes:
        rows: Rows of a group.
        groups: They share rows and never wait for each other.
        units: Units of a program.
        programs: Of a group.
        split: Parts of each piece.
        sides: The pieces of each product's summed side.
        shared: Bytes of shared memory that a program needs at most.
    """

    rows: int
    groups: int
    units: int
    programs: int
    split: int
    sides: tuple[tuple[int, int], ...] = ()
    shared: int = 0

    @property
    def grid(self) -> int:
        """Programs of a launch; all must be on the chip at once, since they wait for each other."""
        return self.groups * self.programs

    def share(self, columns: int) -> int:
        """Columns of one program where `columns` are shared out by themselves: a power of two, at least 8."""
        return max(_PROGRAM_UNITS[0], power_of_two(-(-columns // self.programs)))


def power_of_two(number: int) -> int:
    """The smallest power of two that is not below the number."""
    return 1 << max(0, number - 1).bit_length()


def pieces(size: int) -> tuple[int, int]:
    """One or two powers of two that cover `size`, each at least 16; the second is 0 where one is enough.

    Triton's tiles have sides that are powers of two: 768 is 512 + 256, not 1024.
    """
    whole = max(_LEAST_PIECE, power_of_two(size))
    if whole in (size, _LEAST_PIECE):
        return whole, 0
    rest = max(_LEAST_PIECE, power_of_two(size - whole // 2))
    return (whole, 0) if rest >= whole // 2 else (whole // 2, rest)


@functools.lru_cache(maxsize=1024)
def plan_programs(
    units: int, rows: int, products: tuple[Product, ...], itemsize: int, chip: Chip, *, one_operand: bool = False
) -> Schedule | None:
    """The schedule with the fewest rows in a group, then the fewest units in a program; None: nothing fits the chip.

    Args:
        units, rows: H and B. products: Of one step. itemsize: Bytes of an element. chip: Where it runs.
        one_operand: All products have the same one.
    """
    whole = tuple(pieces(product.summed) for product in products)
    halves = tuple((side[0] // 2, side[0] // 2) if side[1] == 0 and side[0] > _LEAST_PIECE else side for side in whole)
    for group in _GROUP_ROWS:
        for share in _PROGRAM_UNITS:
            for sides in (whole, halves):  # an operand's second piece takes the place of the first
                found = _schedule(units, rows, group, share, products, sides, itemsize, one_operand=one_operand)
                if found is not None and found.grid <= chip.processors and found.shared <= chip.shared:
                    return found
    return None


def _schedule(
    units: int,
    rows: int,
    group: int,
    share: int,
    products: tuple[Product, ...],
    sides: tuple[tuple[int, int], ...],
    itemsize: int,
    *,
    one_operand: bool,
) -> Schedule | None:
    split = max(1, min(WARPS, min(piece for side in sides for piece in side if piece) // _LEAST_PIECE))
    found = Schedule(group, -(-rows // group), share, -(-units // share), split, sides)
    columns = [p.per_unit * share if p.per_unit else found.share(p.columns) for p in products]
    operand = group * max(piece for side in sides for piece in side)
    if group * max(columns) > _SPLIT_TILE:
        return None
    weights = itemsize * sum(sum(side) * width for side, width in zip(sides, columns, strict=True))
    sums = _SUM_BYTES * split * group * max(columns) if split > 1 else 0
    # float32 that is not rounded to TF32 is multiplied from shared memory: there an operand outlives the first sums
    stays = one_operand and itemsize == _SUM_BYTES
    beside = itemsize * operand + sums if stays else max(itemsize * operand, sums)
    return dataclasses.replace(found, shared=weights + beside)


#: Columns of a tile of the kernels of single steps, which are elementwise, and elements of one: four for each thread.
_STEP_COLUMNS, _STEP_ELEMENTS = (16, 128), 512


#: Columns for each of its warps that a tile of whole rows has at most; the fewest and the most warps of a program.
_WARP_COLUMNS, _STEP_WARPS = 128, (4, 32)
#: The longest row that a tile can hold whole.
LONGEST_ROW = _WARP_COLUMNS * _STEP_WARPS[1]


def step_tile(rows: int, width: int, *, whole_rows: bool = False) -> tuple[int, int]:
    """Rows and columns of a program's tile of `[rows, width]` where programs wait for nobody: powers of two.

    Args:
        whole_rows: A tile has all columns, up to `LONGEST_ROW`.
    """
    columns = max(_STEP_COLUMNS[0], power_of_two(width))
    if not whole_rows:
        columns = min(_STEP_COLUMNS[1], columns)
    return min(power_of_two(rows), max(1, _STEP_ELEMENTS // columns)), columns


def step_warps(columns: int) -> int:
    """Warps of a program whose tile has so many columns."""
    return max(_STEP_WARPS[0], columns // _WARP_COLUMNS)
