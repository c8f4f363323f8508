"""Streams of random ops, and the table that saves them."""

from __future__ import annotations

import pytest
import torch

import cellweave as cw
from cellweave.ops.common import Site, Stream, StreamTable, random_uniform, signed64
from helpers.tolerances import assert_same_bits
from oracles.philox import uniform


def test_peek_does_not_move_and_advance_does() -> None:
    stream = Stream(5, 6)
    first = stream.peek((2, 3), torch.float32, "cpu")
    assert torch.equal(first, stream.peek((2, 3), torch.float32, "cpu"))
    stream.advance(6)
    assert stream.block == 256 * 6
    assert torch.equal(stream.peek((4,), torch.float64, "cpu"), random_uniform((4,), torch.float64, 5, 6, 256 * 6))
    stream.advance(4, draws=3)
    assert stream.block == 256 * 18
    stream.advance(4, draws=-3)
    assert stream.block == 256 * 6


def test_peek_several_draws() -> None:
    stream = Stream(5, 6, 7)
    assert torch.equal(stream.peek((2,), torch.float32, None, 3), random_uniform((2,), torch.float32, 5, 6, 7, draws=3))


def test_blocks_carry_past_64_bits() -> None:
    stream = Stream(1, 2, 2**64 - 256)
    stream.advance(2)
    assert_same_bits(
        "past the carry", stream.peek((5,), torch.float32, None)[0], uniform((5,), "float32", 1, 2, 2**64 + 256)
    )
    stream.advance(2, draws=-1)
    assert_same_bits("back", stream.peek((5,), torch.float32, None)[0], uniform((5,), "float32", 1, 2, 2**64 - 256))


def test_a_site_asks_for_its_seeds_once() -> None:
    table, asked = StreamTable(), []

    def seeds() -> tuple[int, int]:
        asked.append(1)
        return 3, 4

    stream = table.get(Site("input", 0), seeds)
    assert table.get(Site("input", 0), seeds) is stream and len(asked) == 1
    others = [Site("input", 1), Site("state", 0), Site("input", 0, node=1), Site("input", 0, call=1)]
    assert len({id(table.get(site, seeds)) for site in [Site("input", 0), *others]}) == 5
    assert list(table.sites()) == [Site("input", 0), *others]


def test_round_trip_through_a_tensor() -> None:
    table = StreamTable()
    rows = {
        Site("input", 0): (0, 2**31 - 1, 0),
        Site("state", 7, 2, 9): (2**64 - 1, 2**63, 2**64 - 256),
        Site("output", 1): (87654321, 5, 256),
    }
    for site, (seed, seed2, block) in rows.items():
        table.get(site, lambda pair=(seed, seed2): pair).block = block
    saved = table.to_tensor()
    assert saved.dtype == torch.int64 and saved.shape == (3, 8)
    other = StreamTable()
    other.get(Site("output", 5), lambda: (1, 1))
    other.load_tensor(saved, "here")
    assert {s: (t.seed, t.seed2, t.block) for s in other.sites() for t in [other.get(s, lambda: (0, 0))]} == rows
    assert torch.equal(other.to_tensor(), saved)


def test_an_empty_table() -> None:
    table = StreamTable()
    assert table.to_tensor().shape == (0, 8)
    table.get(Site("input", 0), lambda: (1, 2))
    table.load_tensor(torch.zeros(0, 8, dtype=torch.int64), "here")
    assert not list(table.sites())


def test_the_table_is_on_the_cpu() -> None:
    with torch.device("meta"):
        assert StreamTable().to_tensor().device.type == "cpu"


@pytest.mark.parametrize(
    "bad", [torch.zeros(2, 7, dtype=torch.int64), torch.zeros(8, dtype=torch.int64), torch.zeros(2, 8)], ids=str
)
def test_other_tables_are_refused(bad: torch.Tensor) -> None:
    with pytest.raises(cw.ShapeError, match=r"here: expected a stream table int64 \[sites, 8\], got"):
        StreamTable().load_tensor(bad, "here")


def test_a_refused_table_changes_nothing() -> None:
    table = StreamTable()
    table.get(Site("input", 0), lambda: (1, 2))
    bad = table.to_tensor().repeat(2, 1)
    bad[1, 0] = 3
    with pytest.raises(cw.ShapeError, match=r"here: expected mask kinds 0..2.*got 3"):
        table.load_tensor(bad, "here")
    assert list(table.sites()) == [Site("input", 0)]


@pytest.mark.parametrize("value, signed", [(0, 0), (2**63 - 1, 2**63 - 1), (2**63, -(2**63)), (2**64 - 1, -1)])
def test_signed64(value: int, signed: int) -> None:
    assert signed64(value) == signed
