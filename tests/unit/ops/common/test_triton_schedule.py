"""Who owns what in a persistent kernel: every unit, row and column once, and never more than the chip has."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import pytest

from cellweave.ops.common._triton_schedule import HOPPER, Chip, Product, Schedule, pieces, plan_programs, step_tile

UNITS, ROWS = st.integers(1, 2500), st.integers(1, 600)
CHIPS = st.sampled_from([HOPPER, Chip(16, 96 << 10), Chip(66, 160 << 10)])


def lstm(units: int, projection: int) -> tuple[Product, ...]:
    """An LSTM's products, forward."""
    return (Product(projection, 4 * units, 4), Product(units, projection, 0))


@hypothesis.given(st.integers(1, 10_000))
def test_pieces_cover_what_they_must(size: int) -> None:
    first, second = pieces(size)
    for piece in (first, second):
        assert piece == 0 or (piece >= 16 and piece & (piece - 1) == 0)
    assert first + second >= size and (second == 0 or second < first < size)
    assert first + second <= max(16, 2 * size - 1)


def test_pieces_by_hand() -> None:
    found = {size: pieces(size) for size in (1, 16, 17, 36, 49, 768, 1024, 1500)}
    assert found == {
        1: (16, 0), 16: (16, 0), 17: (32, 0), 36: (32, 16), 49: (64, 0), 768: (512, 256), 1024: (1024, 0),
        1500: (1024, 512),
    }  # fmt: skip


@hypothesis.settings(max_examples=200)
@hypothesis.given(UNITS, ROWS, st.sampled_from([2, 4]), CHIPS)
def test_everything_has_one_owner_and_fits(units: int, rows: int, itemsize: int, chip: Chip) -> None:
    width = max(1, units // 2)
    found = plan_programs(units, rows, lstm(units, width), itemsize, chip)
    if found is None:
        return
    assert found.grid <= chip.processors and found.shared <= chip.shared
    _owned_once(found.programs, found.units, units)
    _owned_once(found.groups, found.rows, rows)
    share = found.share(width)
    assert found.programs * share >= width and share & (share - 1) == 0
    for (first, second), product in zip(found.sides, lstm(units, width), strict=True):
        assert first + second >= product.summed
        assert all(piece % found.split == 0 and piece // found.split >= 16 for piece in (first, second) if piece)


def _owned_once(owners: int, share: int, count: int) -> None:
    owned = [item for owner in range(owners) for item in range(owner * share, (owner + 1) * share) if item < count]
    assert owned == list(range(count))
    assert (owners - 1) * share < count, "an owner without anything"


@pytest.mark.parametrize(
    "units, rows, itemsize, expected",
    [
        (768, 16, 2, (16, 1, 8, 96)),
        (1024, 16, 2, (16, 1, 8, 128)),
        (256, 64, 2, (16, 4, 8, 32)),
        (512, 64, 2, (16, 4, 16, 32)),
        (1024, 64, 2, None),
        (1024, 16, 4, (16, 1, 8, 128)),
        (4096, 1, 2, None),
    ],
)
def test_an_lstm_on_hopper(units: int, rows: int, itemsize: int, expected: tuple[int, ...] | None) -> None:
    found = plan_programs(units, rows, (Product(units, 4 * units, 4),), itemsize, HOPPER)
    assert (None if found is None else (found.rows, found.groups, found.units, found.programs)) == expected


def test_an_operand_in_halves_where_all_of_it_leaves_no_room() -> None:
    product = (Product(4096, 1024, 1),)
    whole, tight = (plan_programs(1024, 16, product, 2, Chip(132, size << 10)) for size in (224, 160))
    assert isinstance(whole, Schedule) and isinstance(tight, Schedule)
    assert (whole.sides, tight.sides) == (((4096, 0),), ((2048, 2048),))
    assert whole.shared == (64 + 128) << 10 and tight.shared == (64 + 64) << 10


@hypothesis.given(st.integers(1, 10_000), st.integers(1, 10_000))
def test_tiles_of_single_steps(rows: int, width: int) -> None:
    """Powers of two of at most 512 elements, none of them wider or higher than it must be."""
    high, wide = step_tile(rows, width)
    assert high & (high - 1) == 0 and wide & (wide - 1) == 0
    assert high * wide <= 512 and 16 <= wide <= 128
    assert high == 1 or high < 2 * rows
    assert wide == 16 or wide < 2 * width
