"""Where in a checkpoint something is wrong: the file, the variable, the byte."""

from __future__ import annotations

from typing import NamedTuple

from cellweave._errors import CheckpointError


class Place(NamedTuple):
    """A file, a part of it in words, and the variable that is being read, if any."""

    file: str
    variable: str | None = None
    part: str | None = None

    def of(self, variable: str) -> Place:
        """The same file, with the variable named."""
        return Place(self.file, variable, self.part)

    def within(self, part: str) -> Place:
        """The same file and variable, with a part named."""
        return Place(self.file, self.variable, part)

    def error(self, expected: str, got: str, at: int | None = None, advice: str = "") -> CheckpointError:
        """The error that says what this place should hold and what it holds."""
        where = [self.file]
        if self.variable is not None:
            where.append(f"variable {self.variable!r}")
        if self.part is not None:
            where.append(self.part)
        byte = "" if at is None else f" (byte {at})"
        return CheckpointError(f"{': '.join(where)}: expected {expected}, got {got}{byte}.{advice and ' ' + advice}")
