"""Files that are either whole or not there, whatever stops the program."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from cellweave.checkpoint._bundle_writer import sync_folder


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file beside its final place, force it to the disk, and rename it over `path`.

    Args:
        path: The file; an earlier one stays whole until the new one replaces it.
        write: Writes the content into the open binary file that it is given.
    Raises:
        OSError: the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_folder(path.parent)
