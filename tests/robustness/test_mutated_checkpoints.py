"""A short, fixed run of damaged files; `fuzz_checkpoints.py` searches for more."""

from __future__ import annotations

import random
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from cellweave.checkpoint._crc32c import crc32c
from helpers.checkpoint_set import DEFAULT
from robustness.fuzz_checkpoints import FORMS, attempt, inputs

ROUNDS = 12  # damaged copies of each sound input
MOST_SECONDS = 1.0
SOUND = list(inputs(DEFAULT))
SPECIAL = [b"\xff", b"\x00", b"\x80", b"\xff\xff\xff\xff\x0f", b"\xff" * 9 + b"\x01", b"\x7f", b"\x08\x01"]


@pytest.fixture(scope="module", autouse=True)
def traced_memory() -> Iterator[None]:
    crc32c(bytes(1 << 20))  # tables that are made once
    tracemalloc.start()
    yield
    tracemalloc.stop()


def damaged(data: bytes, chance: random.Random) -> bytes:
    """A copy with a few bytes changed, put in, taken out or moved; the first byte, which says the form, stays."""
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        at = chance.randrange(1, len(out) + 1)
        action = chance.randrange(5)
        if action == 0 and at < len(out):
            out[at] ^= 1 << chance.randrange(8)
        elif action == 1:
            out[at:at] = chance.choice(SPECIAL)
        elif action == 2:
            del out[at : at + chance.randrange(1, 9)]
        elif action == 3:
            start = chance.randrange(1, len(out) + 1)
            out[at:at] = out[start : start + chance.randrange(1, 40)]
        else:
            del out[max(at, len(out) // 2) :]
    return bytes(out)


def test_every_form_has_a_sound_input() -> None:
    assert {data[0] for data in SOUND} == set(range(len(FORMS))) - {
        4
    }  # an index block of its own is made from mutations


@pytest.mark.parametrize("number", range(len(SOUND)))
def test_damaged_files_are_read_or_refused(number: int, tmp_path: Path) -> None:
    chance = random.Random(number)
    for _ in range(ROUNDS):
        data = damaged(SOUND[number], chance)
        start = time.perf_counter()
        attempt(data, tmp_path)
        assert time.perf_counter() - start < MOST_SECONDS


@pytest.mark.parametrize("form", range(len(FORMS)), ids=lambda number: FORMS[number][0].replace(" ", "-"))
def test_noise_is_refused(form: int, tmp_path: Path) -> None:
    chance = random.Random(form)
    for size in (0, 1, 2, 7, 48, 60, 300):
        attempt(bytes([form]) + chance.randbytes(size), tmp_path)


def test_cut_files_are_refused(tmp_path: Path) -> None:
    """A file cut at any place near its end or start."""
    for data in SOUND:
        for size in {1, 2, 20, len(data) // 2, len(data) - 60, len(data) - 48, len(data) - 9, len(data) - 1}:
            attempt(data[: max(size, 1)], tmp_path)
