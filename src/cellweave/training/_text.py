"""Text to learn from: a file of the user's, or the source text of Python's standard library."""

from __future__ import annotations

import hashlib
import os
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cellweave._errors import RunError

#: Characters of the standard library's text that a run reads unless it says otherwise.
STANDARD_LIBRARY_CHARACTERS = 2_000_000
#: Folders of the standard library that hold no library source: tests, tables, tools, installed packages.
_SKIPPED_FOLDERS = (
    "test", "tests", "idle_test", "idlelib", "lib2to3", "turtledemo", "encodings", "pydoc_data", "site-packages",
    "dist-packages", "__pycache__",
)  # fmt: skip


@dataclass(frozen=True)
class Text:
    """A text and where it came from.

    Attributes:
        content: The characters, line ends as line feeds.
        source: The file's path, or "Python standard library".
    """

    content: str
    source: str


def read_text(path: Path) -> Text:
    """Read a text file as strict UTF-8 (a byte order mark is dropped, line ends become line feeds).

    Raises:
        RunError: the file is missing, is no file, cannot be read, is binary, is not UTF-8, or is empty.
    """
    where = f"text file {path}"
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise RunError(f"{where}: expected a text file, got no such file. Check the path.") from error
    except IsADirectoryError as error:
        raise RunError(f"{where}: expected a text file, got a folder. Name one file in it.") from error
    except OSError as error:
        raise RunError(f"{where}: expected a readable text file, got: {error.strerror}.") from error
    if b"\0" in data:
        raise RunError(
            f"{where}: expected text in UTF-8, got a binary file (zero byte at position {data.index(0)}). "
            "Name a text file, or convert it to UTF-8."
        )
    try:
        content = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RunError(
            f"{where}: expected text in UTF-8, got byte 0x{data[error.start]:02x} at position {error.start}. "
            "Name a text file, or convert it to UTF-8."
        ) from error
    if not content.strip():
        raise RunError(f"{where}: expected text, got {'an empty file' if not content else 'only white space'}.")
    return Text(content.replace("\r\n", "\n").replace("\r", "\n"), str(path))


def _source_files(root: Path) -> Iterator[str]:
    """Paths of the modules below `root`, relative to it, with slashes."""
    for folder, inner, files in os.walk(root):
        inner[:] = [name for name in inner if name not in _SKIPPED_FOLDERS]  # not even listed: packages are many
        yield from (Path(folder, name).relative_to(root).as_posix() for name in files if name.endswith(".py"))


def _shuffled(names: Iterable[str]) -> list[str]:
    """Names in an order that has nothing to do with the alphabet and is the same on every machine."""
    return sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())


def standard_library_text(max_characters: int) -> Text:
    """The source text of Python's standard library on this machine, files shuffled in a fixed way.

    In the order of their paths the part that validates would be one or two large modules, and which ones would depend
    on the build of Python.

    Args:
        max_characters: Where the text is cut.
    Raises:
        RunError: this Python came without its library's source files.
    """
    root = Path(sysconfig.get_path("stdlib"))
    pieces: list[str] = []
    length = 0
    for name in _shuffled(_source_files(root)):
        if length >= max_characters:
            break
        try:
            content = (root / name).read_bytes().decode("utf-8")
        except UnicodeDecodeError:
            continue  # a few modules declare another encoding
        pieces.append(content.replace("\r\n", "\n"))
        length += len(pieces[-1])
    if not length:
        raise RunError(
            f"standard library: expected Python source files in {root}, got none. Name a text file to learn from."
        )
    return Text("".join(pieces)[:max_characters], "Python standard library")
