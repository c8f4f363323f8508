"""Session runs: what is drawn once per run, and which random op each call of a layer is.

TF1 fetched a whole unroll in one `session.run`; noise made outside the loop was drawn once per run, and an op inside a
loop drew once per step. Here one unroll call is one run, and so is one call of a layer outside any unroll.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any


class Loop:
    """A loop whose body's ops are the same ops at every step.

    Attributes:
        steps: Number of steps; None when not known.
        step: Number of the current step, from 0.
        drawn: Per mask: (undo, draws made), so that steps that TF1 would not have run can be taken back.
    """

    def __init__(self, run: Run, steps: int | None, outer: Loop | None = None) -> None:
        self.run = run
        self.outer = outer
        self.steps = steps
        self.step = -1
        self.cache: dict[Hashable, Any] = {}
        self.drawn: dict[Hashable, tuple[Callable[[int], None], int]] = {}
        self._ops: dict[tuple[int, int], int] = {}
        self._calls: dict[int, int] = {}

    def next_step(self) -> None:
        """Begin the next step: the layers' calls are counted anew."""
        self.step += 1
        self._calls.clear()

    @property
    def steps_left(self) -> int:
        """Steps still to come, this one included; 1 where the number of steps is not known."""
        return 1 if self.steps is None else self.steps - self.step

    def op_of(self, layer: object) -> int:
        """Number of the op that this call of `layer` is, the same at every step."""
        call = self._calls.get(id(layer), 0)
        self._calls[id(layer)] = call + 1
        key = (id(layer), call)
        if key not in self._ops:
            self._ops[key] = self.run.new_op(layer) if self.outer is None else self.outer.op_of(layer)
        return self._ops[key]

    def take_back(self, steps: int) -> None:
        """Move every stream drawn in this loop back by `steps` steps."""
        for undo, draws in self.drawn.values():
            undo(min(steps, draws))


class Run:
    """One session run."""

    def __init__(self) -> None:
        self.node = 0
        self.loop: Loop | None = None
        self.memo: dict[Hashable, Any] = {}
        self.fed: dict[str, Any] = {}
        self._calls: dict[tuple[int, int], int] = {}
        self._kept: dict[int, object] = {}

    def keep(self, thing: object) -> int:
        """Its `id`, which no other object gets while the run lasts."""
        self._kept[id(thing)] = thing
        return id(thing)

    def new_op(self, layer: object) -> int:
        """Number of a new op of `layer` in the node that runs."""
        key = (self.node, self.keep(layer))
        self._calls[key] = self._calls.get(key, 0) + 1
        return self._calls[key] - 1

    def op_of(self, layer: object) -> int:
        """Number of the op that a call of `layer` is: one per call, or one per call in a loop's body."""
        return self.new_op(layer) if self.loop is None else self.loop.op_of(layer)

    def ops_made(self, layer: object) -> int:
        """How many ops of `layer` the node that runs has: the number of its next one outside a loop."""
        return self._calls.get((self.node, id(layer)), 0)

    @contextmanager
    def rehearsal(self) -> Iterator[None]:
        """Calls inside count as no ops."""
        calls = dict(self._calls)
        try:
            yield
        finally:
            self._calls = calls


class _Current(threading.local):
    run: Run | None = None


_current = _Current()


def current_run() -> Run:
    """The run that is open, or a new one for a call outside every run."""
    return Run() if _current.run is None else _current.run


def run_is_open() -> bool:
    """Whether several calls are one session run here."""
    return _current.run is not None


@contextmanager
def session_run() -> Iterator[Run]:
    """Make everything inside one session run, as a TF1 graph fetched at once was.

    Variational masks are drawn once and shared by all calls inside. Each hand-written call of a layer inside is an op
    of its own: with a seed, every one starts at the same place of its stream. Inside another run it does nothing.
    A run belongs to its thread: coroutines of one thread that wait inside share it.
    """
    if _current.run is not None:
        yield _current.run
        return
    _current.run = run = Run()
    try:
        yield run
    finally:
        _current.run = None


@contextmanager
def running_loop(steps: int | None) -> Iterator[Loop]:
    """A loop of `steps` steps (None: unknown) in the open run, or in a run of its own."""
    with session_run() as run:
        outer = run.loop
        run.loop = Loop(run, steps, outer)
        try:
            yield run.loop
        finally:
            run.loop = outer
