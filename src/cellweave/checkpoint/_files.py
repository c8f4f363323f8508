"""Files that are read by position, never past their end."""

from __future__ import annotations

import mmap
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cellweave._errors import CheckpointError
from cellweave.checkpoint._limits import MAX_OPEN_FILES
from cellweave.checkpoint._place import Place

Bytes = npt.NDArray[np.uint8]

#: Bytes that checksums take at a time: the second cache holds them.
CHUNK = 1 << 18

#: From this many bytes on a tensor is mapped and not copied. A process may hold some 65 thousand mappings.
MAP_FROM = 1 << 18


#: How the files begin that a clone of a repository has in place of large ones.
_LFS = b"version https://git-lfs.github.com/spec/"


class File:
    """A regular file, open for reading.

    Args:
        path: The file.
    Raises:
        CheckpointError: there is no such file, it is no regular file, it cannot be opened, it is a pointer of Git LFS.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.place = Place(str(path))
        self._lock = threading.Lock()
        try:
            if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for its writer
                raise self.place.error("a file", "something else, such as a folder, a pipe or a device")
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise CheckpointError(f"{path}: expected a file that can be read, got {error.strerror}.") from error
        self.size = os.fstat(self._file.fileno()).st_size
        if self.read(0, min(self.size, len(_LFS)), self.place) == _LFS:
            self.close()
            raise self.place.error("TensorFlow's bytes", "a pointer of Git LFS to them", advice="Run git lfs pull.")

    def close(self) -> None:
        """Close the file; arrays that map it stay valid."""
        self._file.close()

    def check(self, offset: int, size: int, place: Place) -> None:
        """Raise unless these bytes lie within the file."""
        if offset > self.size or size > self.size - offset:
            raise place.error(f"{size} bytes from byte {offset} on", f"a file of {self.size} bytes")

    def read(self, offset: int, size: int, place: Place) -> bytearray:
        """A copy of these bytes."""
        self.check(offset, size, place)
        buffer = bytearray(size)
        self._fill(memoryview(buffer), offset, place)
        return buffer

    def chunks(self, offset: int, size: int, place: Place) -> Iterator[memoryview]:
        """These bytes, piece by piece in one buffer that each piece overwrites."""
        self.check(offset, size, place)
        buffer = memoryview(bytearray(min(size, CHUNK)))
        for start in range(0, size, CHUNK):
            piece = buffer[: min(CHUNK, size - start)]
            self._fill(piece, offset + start, place)
            yield piece

    def view(self, offset: int, size: int, place: Place) -> Bytes:
        """These bytes, read-only: mapped where they are many, else a copy. A mapping lives as long as the array."""
        self.check(offset, size, place)
        if size < MAP_FROM:
            return np.frombuffer(bytes(self.read(offset, size, place)), np.uint8)
        below = offset % mmap.ALLOCATIONGRANULARITY
        self._ensure_open()
        mapping = mmap.mmap(self._file.fileno(), below + size, access=mmap.ACCESS_READ, offset=offset - below)
        return np.frombuffer(mapping, np.uint8, count=size, offset=below)

    def _fill(self, buffer: memoryview, offset: int, place: Place) -> None:
        self._ensure_open()
        with self._lock:
            self._file.seek(offset)
            done = 0
            while done < len(buffer):
                count = self._file.readinto(buffer[done:])
                if not count:
                    raise place.error(f"{len(buffer)} bytes from byte {offset} on", f"the file's end after {done}")
                done += count

    def _ensure_open(self) -> None:
        if self._file.closed:
            raise CheckpointError(f"{self.path}: expected an open checkpoint, got a closed one. Open it again.")


class Files:
    """The data files of a checkpoint, opened when first needed; few of them at a time."""

    def __init__(self) -> None:
        self._open: OrderedDict[Path, File] = OrderedDict()
        self._closed = False

    def get(self, path: Path) -> File:
        """The open file at `path`."""
        if self._closed:
            raise CheckpointError(f"{path}: expected an open checkpoint, got a closed one. Open it again.")
        file = self._open.pop(path, None) or File(path)
        self._open[path] = file
        if len(self._open) > MAX_OPEN_FILES:
            self._open.popitem(last=False)[1].close()
        return file

    def close(self) -> None:
        """Close all of them."""
        self._closed = True
        for file in self._open.values():
            file.close()
        self._open.clear()
