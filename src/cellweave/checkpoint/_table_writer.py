"""Sorted tables as TensorFlow's writer lays them out, uncompressed."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import BinaryIO

from cellweave.checkpoint._crc32c import crc32c, masked
from cellweave.checkpoint._tables import FOOTER_SIZE, MAGIC, PLAIN
from cellweave.checkpoint._wire import varint

# Source of both: `table::Options` in TensorFlow's table_options.h.
BLOCK_SIZE = 1 << 18
RESTART_INTERVAL = 16

_OVERLY_LARGE = 2  # an entry of so many blocks' size gets a block of its own


class _Block:
    """A block under construction."""

    def __init__(self, restart_interval: int) -> None:
        self._interval = restart_interval
        self.clear()

    def clear(self) -> None:
        self._content, self._restarts, self._since, self._last = bytearray(), [0], 0, b""

    @property
    def empty(self) -> bool:
        return not self._content

    @property
    def size(self) -> int:
        return len(self._content) + 4 * len(self._restarts) + 4

    def add(self, key: bytes, value: bytes) -> None:
        shared = 0
        if self._since < self._interval:
            shared = _common(self._last, key)
        else:
            self._restarts.append(len(self._content))
            self._since = 0
        self._content += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        self._last = key
        self._since += 1

    def finish(self) -> bytes:
        return bytes(self._content) + struct.pack(f"<{len(self._restarts) + 1}I", *self._restarts, len(self._restarts))


def write_table(file: BinaryIO, entries: Iterable[tuple[bytes, bytes]]) -> None:
    """Write the entries, which are sorted by key, as a table."""
    writer = _Writer(file)
    for key, value in entries:
        writer.add(key, value)
    writer.finish()


class _Writer:
    def __init__(self, file: BinaryIO) -> None:
        self._file, self._offset = file, 0
        self._block, self._index = _Block(RESTART_INTERVAL), _Block(1)
        self._pending: bytes | None = None  # the handle of a block whose separator waits for the next key
        self._last = b""
        self._any = False

    def add(self, key: bytes, value: bytes) -> None:
        if self._any and len(key) + len(value) >= _OVERLY_LARGE * BLOCK_SIZE:
            self._flush()
        if self._pending is not None:
            self._index.add(_separator(self._last, key), self._pending)
            self._pending = None
        self._last, self._any = key, True
        self._block.add(key, value)
        if self._block.size >= BLOCK_SIZE:
            self._flush()

    def finish(self) -> None:
        self._flush()
        meta = self._write(_Block(RESTART_INTERVAL))
        if self._pending is not None:
            self._index.add(_successor(self._last), self._pending)
        footer = meta + self._write(self._index)
        self._file.write(footer.ljust(FOOTER_SIZE - 8, b"\0") + struct.pack("<Q", MAGIC))

    def _flush(self) -> None:
        if not self._block.empty:
            self._pending = self._write(self._block)
            self._block.clear()

    def _write(self, block: _Block) -> bytes:
        """Write a block with its kind and checksum; its handle."""
        content = block.finish()
        raw = content + bytes([PLAIN])
        self._file.write(raw + struct.pack("<I", masked(crc32c(raw))))
        handle = varint(self._offset) + varint(len(content))
        self._offset += len(raw) + 4
        return handle


def _common(one: bytes, other: bytes) -> int:
    """How many bytes two keys share at their beginning."""
    if other.startswith(one):
        return len(one)
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _separator(last: bytes, following: bytes) -> bytes:
    """A short key from `last` on and before `following`."""
    common = _common(last, following)
    if common < min(len(last), len(following)) and last[common] + 1 < following[common]:
        return last[:common] + bytes([last[common] + 1])
    return last


def _successor(key: bytes) -> bytes:
    """A short key from `key` on."""
    for at, byte in enumerate(key):
        if byte != 0xFF:
            return key[:at] + bytes([byte + 1])
    return key
