"""Masks that are drawn a second time: where random streams stood when a part of a model first ran."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch

from cellweave._errors import ModeError

#: Of each stream that moved: how to read its place, how to set it, and its place before.
_Journal = dict[Hashable, tuple[Callable[[], Any], Callable[[Any], None], Any]]


class _Recording(threading.local):
    def __init__(self) -> None:
        self.journals: list[_Journal] = []
        self.repeating = 0


_recording = _Recording()


def note_place(key: Hashable, read: Callable[[], Any], write: Callable[[Any], None], place: Any) -> None:
    """Say where in a random stream a part of a model begins to draw; only the first time counts.

    Args:
        key: Of the stream. read, write: Get and set where it stands. place: Where it was drawn from.
    """
    for journal in _recording.journals:
        if key not in journal:
            journal[key] = (read, write, place)


def note_draw(key: Hashable, read: Callable[[], Any], write: Callable[[Any], None]) -> None:
    """Say that a random stream is about to move.

    Args:
        key: Of the stream. read, write: Get and set where it stands.
    Raises:
        ModeError: a backward pass computes a part of a model again and would draw other masks than the first time.
    """
    if _recording.journals:
        note_place(key, read, write, read())
    if not _recording.repeating and _is_second_run(torch.is_grad_enabled()):
        raise ModeError(
            "cellweave: expected a backward pass to draw no new masks, got a second run of a part with random masks. "
            "Give torch.utils.checkpoint use_reentrant=False and context_fn=cellweave.repeated_masks, outside of "
            "compiled code."
        )


def refuse_repeats(*, grad: bool) -> None:
    """Say that compiled code is about to draw from where nobody can send it back.

    Args:
        grad: Whether gradients were enabled around it, which is not to be seen inside of an operator.
    Raises:
        ModeError: the code is part of what runs twice.
    """
    if _recording.journals or _recording.repeating or _is_second_run(grad):
        raise ModeError(
            "cellweave: expected a compiled cell outside of what torch.utils.checkpoint runs twice, got one whose "
            "random masks would differ the second time. Leave the cell out of torch.compile there, or take a layer "
            "in its place."
        )


def _is_second_run(grad: bool) -> bool:
    """Gradients are asked for within a backward pass: what a hook computes there mostly goes without."""
    return grad and torch._C._current_graph_task_id() != -1


def repeated_masks() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Contexts for a part of a model that runs twice with the same random masks.

    For activation checkpointing: `torch.utils.checkpoint.checkpoint(part, x, use_reentrant=False,
    context_fn=repeated_masks)`. Without it the second run, in the backward pass, raises.

    Returns:
        One to run the part in first, one to run it in again; afterwards the random streams stand where they stood
        before the second run.
    """
    journal: _Journal = {}
    return _AtEachUse(lambda: _first_run(journal)), _AtEachUse(lambda: _second_run(journal))


class _AtEachUse(threading.local, AbstractContextManager[None]):
    """A context that is entered anew each time, also by several threads: a graph that is kept runs backward again.

    Args:
        make: A context for one use.
    """

    def __init__(self, make: Callable[[], AbstractContextManager[None]]) -> None:
        self._make = make
        self._open: list[AbstractContextManager[None]] = []

    def __enter__(self) -> None:
        context = self._make()
        context.__enter__()
        self._open.append(context)

    def __exit__(self, *error: Any) -> bool | None:
        return self._open.pop().__exit__(*error)


@contextmanager
def _first_run(journal: _Journal) -> Iterator[None]:
    _recording.journals.append(journal)
    try:
        yield
    finally:
        _recording.journals.pop()


@contextmanager
def _second_run(journal: _Journal) -> Iterator[None]:
    later = [(write, read()) for read, write, _ in journal.values()]
    for _, write, place in journal.values():
        write(place)
    _recording.repeating += 1
    try:
        yield
    finally:
        _recording.repeating -= 1
        for write, place in later:
            write(place)
