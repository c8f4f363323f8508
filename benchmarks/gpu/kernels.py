"""Triton kernels that measure a device: how fast programs meet, exchange data, read what all of them read."""

from __future__ import annotations

import triton
import triton.language as tl

from cellweave.ops.common._triton_device import arrive, wait


@triton.jit(do_not_specialize=["ROUNDS"])
def barrier_rounds(counters, ROUNDS, PROGRAMS: tl.constexpr, SPINS: tl.constexpr):
    """All programs meet ROUNDS times, as those of our recurrences do. counters: int32 `[1, 2]`, zeros."""
    arrivals = 0
    for _ in range(ROUNDS):
        arrive(counters, PROGRAMS)
        arrivals += PROGRAMS
        wait(counters, arrivals, PROGRAMS, SPINS)


@triton.jit(do_not_specialize=["ROUNDS"])
def flag_rounds(
    slots, counters, ROUNDS, PROGRAMS: tl.constexpr, ALL: tl.constexpr, WIDTH: tl.constexpr, SPINS: tl.constexpr
):  # fmt: skip
    """Each program writes its part of a slot and waits until no other part of it is NaN any more, ROUNDS times.

    slots: float32 `[ROUNDS + 1, PROGRAMS * WIDTH]`, NaN; the last slot takes each program's result: the mean of a slot
    is its next value, so that no round can begin before the one ahead of it is over. ALL: a power of two that covers a
    slot. counters: as above; only to tell of a program that gave up.
    """
    part = tl.program_id(0)
    mine, every = part * WIDTH + tl.arange(0, WIDTH), tl.arange(0, ALL)
    inside = every < PROGRAMS * WIDTH
    value = tl.zeros((WIDTH,), tl.float32) + part
    for step in range(ROUNDS):
        slot = slots + step * (PROGRAMS * WIDTH)
        tl.store(slot + mine, value)
        seen = tl.load(slot + every, mask=inside, other=0.0, volatile=True)
        missing = tl.sum((seen != seen).to(tl.int32))
        if SPINS == 0:
            while missing > 0:
                seen = tl.load(slot + every, mask=inside, other=0.0, volatile=True)
                missing = tl.sum((seen != seen).to(tl.int32))
        else:
            looks = 1
            while (missing > 0) & (looks < SPINS):
                seen = tl.load(slot + every, mask=inside, other=0.0, volatile=True)
                missing = tl.sum((seen != seen).to(tl.int32))
                looks += 1
        tl.store(counters + 1, 1, mask=missing > 0)
        value = tl.zeros((WIDTH,), tl.float32) + tl.sum(seen) / (PROGRAMS * WIDTH)
    tl.store(slots + ROUNDS * (PROGRAMS * WIDTH) + mine, value)


@triton.jit(do_not_specialize=["ROUNDS"])
def shared_reads(
    operand, sums, counters, ROUNDS, SIZE: tl.constexpr, BLOCK: tl.constexpr, COPIES: tl.constexpr,
    SPINS: tl.constexpr,
):  # fmt: skip
    """Every program reads all of an operand, past its own cache, ROUNDS times, and adds up what it read.

    operand: float32 `[COPIES, SIZE]`; copies take turns, so that no read can be saved. sums: float32 `[programs]`.
    counters, SPINS: nobody waits here.
    """
    total = tl.zeros((BLOCK,), tl.float32)
    for step in range(ROUNDS):
        copy = operand + (step % COPIES) * SIZE
        for first in range(0, SIZE, BLOCK):
            total += tl.load(copy + first + tl.arange(0, BLOCK), cache_modifier=".cg")
    tl.store(sums + tl.program_id(0), tl.sum(total))


@triton.jit
def bump(x, EARLY: tl.constexpr):
    """Adds 1 to one number. EARLY: the next launch may begin meanwhile, and waits for this one by itself."""
    if EARLY:
        tl.extra.cuda.gdc_wait()
    tl.store(x, tl.load(x) + 1.0)
    if EARLY:
        tl.extra.cuda.gdc_launch_dependents()


@triton.jit
def nothing(x):
    """Of a launch, what is left without work."""
