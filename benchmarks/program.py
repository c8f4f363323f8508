"""What a contestant's module hands to its worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Program:
    """One contestant set up for one case.

    call: the work that is timed; it returns when the results are there. results: run once and give outputs `[T, B, H]`
    as "outputs", in training also the gradient of the inputs as "inputs" and those of the weights by cellweave's names,
    all as numpy arrays; for cases with random masks only their shapes matter, and "outputs" must show them.
    """

    call: Callable[[], Any]
    results: Callable[[], dict[str, Any]]


class NotTaken(Exception):  # noqa: N818 (it says no, and why; nothing is broken)
    """The contestant does not compute this case; its text says why."""
