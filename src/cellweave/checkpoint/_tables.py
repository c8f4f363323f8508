"""Sorted tables of keys and values, as LevelDB writes them: blocks, an index of the blocks, a footer."""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterator
from typing import NamedTuple

from cellweave.checkpoint._crc32c import crc32c, masked
from cellweave.checkpoint._files import File
from cellweave.checkpoint._limits import KEY_BYTES_FLOOR, MAX_ENTRIES, MAX_KEY_BYTES, MAX_KEY_EXPANSION
from cellweave.checkpoint._place import Place
from cellweave.checkpoint._snappy import decompress
from cellweave.checkpoint._wire import read_varint

FOOTER_SIZE = 48
MAGIC = 0xDB4775248B80FB57
TRAILER_SIZE = 5  # the kind of compression and the checksum of block and kind
PLAIN, SNAPPY = 0, 1


class Handle(NamedTuple):
    """Where a block lies."""

    offset: int
    size: int


def is_table(file: File) -> bool:
    """Whether a file ends as a table does."""
    if file.size < FOOTER_SIZE:
        return False
    return bytes(file.read(file.size - 8, 8, file.place)) == struct.pack("<Q", MAGIC)


class Table:
    """A table in a file. Reads a block when an entry of it is asked for, and checks its checksum.

    Raises:
        CheckpointError: the footer or the index is damaged.
    """

    def __init__(self, file: File) -> None:
        self._file = file
        self._place = file.place
        self._last_keys: list[bytes] = []
        self._handles: list[Handle] = []
        self._read_index(self._footer())

    def __len__(self) -> int:
        """The number of blocks."""
        return len(self._handles)

    def entries(self) -> Iterator[tuple[bytes, memoryview]]:
        """All keys and values, sorted by key."""
        before = b""
        count = 0
        for number, handle in enumerate(self._handles):
            place = self._place.within(f"block {number}")
            for key, value in self._parse(self._block(handle, place), place):
                if key <= before and count:
                    raise place.error("sorted keys", f"{_text(key)} after {_text(before)}")
                before = key
                count += 1
                if count > MAX_ENTRIES:
                    raise place.error(f"at most {MAX_ENTRIES} entries", "more")
                yield key, value

    def find(self, key: bytes) -> memoryview | None:
        """The value of one key."""
        number = bisect_left(self._last_keys, key)
        if number == len(self._handles):
            return None
        place = self._place.within(f"block {number}")
        for found, value in self._parse(self._block(self._handles[number], place), place):
            if found == key:
                return value
        return None

    def _footer(self) -> Handle:
        """The handle of the index block."""
        place = self._place.within("footer")
        if self._file.size < FOOTER_SIZE:
            raise place.error(f"at least {FOOTER_SIZE} bytes", f"a file of {self._file.size}")
        start = self._file.size - FOOTER_SIZE
        footer = self._file.read(start, FOOTER_SIZE, place)
        if footer[-8:] != struct.pack("<Q", MAGIC):
            raise place.error(f"the number {MAGIC:#x} at its end", f"{int.from_bytes(footer[-8:], 'little'):#x}")
        numbers, at = [], 0
        for _ in range(4):
            number, at = read_varint(footer, at, FOOTER_SIZE - 8, place)
            numbers.append(number)
        return Handle(*numbers[2:])

    def _read_index(self, handle: Handle) -> None:
        place = self._place.within("index block")
        end = 0
        for key, value in self._parse(self._block(handle, place), place):
            offset, at = read_varint(value, 0, len(value), place)
            size, at = read_varint(value, at, len(value), place)
            # Blocks that overlap would let a small file ask for the same work many times.
            if offset < end:
                raise place.error(f"a block from byte {end} on", f"one from byte {offset} on")
            end = offset + size + TRAILER_SIZE
            if self._last_keys and key <= self._last_keys[-1]:
                raise place.error("sorted keys", f"{_text(key)} after {_text(self._last_keys[-1])}")
            self._last_keys.append(key)
            self._handles.append(Handle(offset, size))

    def _block(self, handle: Handle, place: Place) -> bytearray:
        """A block's content, its checksum verified."""
        # Sizes of a file are below 2^63, and so is the sum that `read` compares with it.
        raw = self._file.read(handle.offset, handle.size + TRAILER_SIZE, place)
        kind = raw[-TRAILER_SIZE]
        stored = int.from_bytes(raw[-4:], "little")
        found = masked(crc32c(memoryview(raw)[:-4]))
        if stored != found:
            raise place.error(f"checksum {stored:#010x}", f"{found:#010x}", handle.offset, "The file is damaged.")
        if kind == PLAIN:
            del raw[-TRAILER_SIZE:]
            return raw
        if kind == SNAPPY:
            return decompress(memoryview(raw)[:-TRAILER_SIZE], place)
        raise place.error("a block that is plain (0) or compressed by Snappy (1)", f"kind {kind}", handle.offset)

    def _parse(self, block: bytearray, place: Place) -> Iterator[tuple[bytes, memoryview]]:
        """A block's entries: shared length, own length, value length, own part of the key, value."""
        limit = max(KEY_BYTES_FLOOR, MAX_KEY_EXPANSION * self._file.size)
        end = _entries_end(block, place)
        view = memoryview(block)
        key, at, total = b"", 0, 0
        while at < end:
            here = at
            if end - at > 3 and block[at] | block[at + 1] | block[at + 2] < 0x80:  # three numbers of one byte each
                shared, own, size = block[at : at + 3]
                at += 3
            else:
                shared, at = read_varint(block, at, end, place)
                own, at = read_varint(block, at, end, place)
                size, at = read_varint(block, at, end, place)
            if shared > len(key) or own > end - at or size > end - at - own:
                raise place.error("an entry within its block", f"lengths {shared}, {own} and {size}", here)
            if shared + own > MAX_KEY_BYTES:
                raise place.error(f"keys of at most {MAX_KEY_BYTES} bytes", f"{shared + own}", here)
            key = key[:shared] + block[at : at + own]
            total += len(key)
            if total > limit:
                raise place.error(f"keys of at most {limit} bytes in all", "more", here)
            at += own
            yield key, view[at : at + size]
            at += size


def _entries_end(block: bytearray, place: Place) -> int:
    """Where the entries end: positions of 4 bytes each follow, then their number."""
    if len(block) < 4:
        raise place.error("a block of at least 4 bytes", f"{len(block)}")
    restarts = int.from_bytes(block[-4:], "little")
    if restarts > (len(block) - 4) // 4:
        raise place.error(f"at most {(len(block) - 4) // 4} restart points", f"{restarts}")
    return len(block) - 4 - 4 * restarts


def _text(key: bytes) -> str:
    return repr(key[:80])
