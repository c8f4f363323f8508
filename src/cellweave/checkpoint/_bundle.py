"""V2 bundles: a table `PREFIX.index` of entries, and the data in `PREFIX.data-SSSSS-of-NNNNN`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cellweave.checkpoint._crc32c import crc32c, crc32c_of, masked
from cellweave.checkpoint._dtypes import STRING, DType, dtype_of, readable
from cellweave.checkpoint._files import MAP_FROM, File, Files
from cellweave.checkpoint._join import join
from cellweave.checkpoint._limits import MAX_SHARDS
from cellweave.checkpoint._place import Place
from cellweave.checkpoint._shapes import Shape, Slice, read_shape, read_slice, resolve_slice, slice_shape
from cellweave.checkpoint._slice_keys import SLICE_KEY, slice_key
from cellweave.checkpoint._strings import read_strings
from cellweave.checkpoint._tables import Table
from cellweave.checkpoint._variables import Array, VariableInfo, as_array, frozen
from cellweave.checkpoint._wire import FIXED32, LENGTH, VARINT, decode, expect, fields, signed

_VERSION = 1  # of the format: what TensorFlow has written since 0.12


@dataclass(frozen=True)
class Entry:
    """A BundleEntryProto. `slices` as they stand in the file: a length of -1 means the whole axis."""

    dtype: DType
    shape: Shape
    shard: int
    offset: int
    size: int
    checksum: int
    slices: tuple[Slice, ...]


def index_path(prefix: Path) -> Path:
    """The file with a bundle's table."""
    return prefix.with_name(f"{prefix.name}.index")


def data_path(prefix: Path, shard: int, shards: int) -> Path:
    """One of a bundle's data files."""
    return prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{shards:05d}")


def is_data_of(path: Path, prefix: Path) -> bool:
    """Whether a path is one of a bundle's data files, however many the bundle has."""
    return re.fullmatch(re.escape(prefix.name) + r"\.data-\d{5}-of-\d{5}", path.name) is not None


class Bundle:
    """A V2 bundle as a source of variables.

    Args:
        prefix: The path without `.index`.
        verify: Whether tensors are checked against their checksums. The table is always checked.
    """

    format = "V2 bundle"

    def __init__(self, prefix: Path, *, verify: bool = True) -> None:
        self._prefix, self._verify = prefix, verify
        index = File(index_path(prefix))
        self._place = index.place
        self._files = Files()
        try:
            self._entries = {key: bytes(value) for key, value in Table(index).entries()}
        finally:
            index.close()
        header = self._entries.pop(b"", None)
        if header is None:
            raise self._place.error("a header", "a table without one")
        self.shards = _read_header(header, self._place.within("header"))
        self._keys = {decode(key, self._place): key for key in self._entries if not key.startswith(SLICE_KEY)}

    def names(self) -> list[str]:
        """All names."""
        return list(self._keys)

    def entry(self, name: str) -> Entry:
        """The entry of a whole variable."""
        return _read_entry(self._entries[self._keys[name]], self._place.of(name))

    def info(self, name: str) -> VariableInfo:
        """What the table says of a variable."""
        entry = self.entry(name)
        return VariableInfo(name, entry.dtype.name, entry.shape, self._resolved(entry, name))

    def read(self, name: str) -> Array:
        """A variable's data."""
        place = self._place.of(name)
        entry = self.entry(name)
        if not entry.slices:
            return self.array(entry, name)
        slices = self._resolved(entry, name)
        pieces = self.pieces(name, entry)
        # Data that is not there cannot be asked for many times over.
        available = sum(self._data(shard, place).size for shard in {piece.shard for piece in pieces})
        if sum(piece.size for piece in pieces) > available:
            raise place.error(f"slices of at most {available} bytes in all", "more")
        dtype = readable(entry.dtype, place)
        return frozen(join(entry.shape, dtype, slices, lambda number: self.array(pieces[number], name), place))

    def _resolved(self, entry: Entry, name: str) -> tuple[Slice, ...]:
        place = self._place.of(name)
        return tuple(resolve_slice(part, entry.shape, place) for part in entry.slices)

    def close(self) -> None:
        """Close the data files; arrays that map them stay valid."""
        self._files.close()

    def pieces(self, name: str, entry: Entry) -> list[Entry]:
        """The entries of a partitioned variable's slices, in the order of its own entry."""
        slices = self._resolved(entry, name)
        place = self._place.of(name)
        pieces = []
        for number, (part, resolved) in enumerate(zip(entry.slices, slices, strict=True)):
            key = slice_key(name, part)
            if key not in self._entries:
                raise place.error(f"an entry for slice {number} of {len(slices)}", "none")
            piece = _read_entry(self._entries[key], place.within(f"slice {number}"))
            if (piece.dtype, piece.shape, piece.slices) != (entry.dtype, slice_shape(resolved), ()):
                raise place.error(f"a slice {entry.dtype.name}{list(slice_shape(resolved))}", _text(piece))
            pieces.append(piece)
        return pieces

    def chunks(self, entry: Entry, name: str) -> Iterator[memoryview]:
        """An entry's bytes as they stand in the file, piece by piece in one buffer; not compared with the checksum."""
        if entry.size:
            file = self._data(entry.shard, self._place.of(name))
            yield from file.chunks(entry.offset, entry.size, file.place.of(name))

    def _data(self, shard: int, place: Place) -> File:
        if shard >= self.shards:
            raise place.error(f"one of {self.shards} data files", f"number {shard}")
        return self._files.get(data_path(self._prefix, shard, self.shards))

    def array(self, entry: Entry, name: str) -> Array:
        """An entry's values."""
        place = self._place.of(name)
        dtype = readable(entry.dtype, place)
        count = math.prod(entry.shape)
        if entry.dtype is not STRING and entry.size != count * dtype.itemsize:
            raise place.error(f"{count * dtype.itemsize} bytes for {_text(entry)}", f"{entry.size}")
        if entry.size == 0 and entry.dtype is not STRING:
            return frozen(np.empty(entry.shape, dtype))
        file = self._data(entry.shard, place)
        place = file.place.of(name)
        if entry.dtype is STRING:
            data = memoryview(file.read(entry.offset, entry.size, place))
            return frozen(read_strings(data, count, entry.shape, entry.checksum if self._verify else None, place))
        raw = file.view(entry.offset, entry.size, place)
        if self._verify:
            # Read again and not through the mapping, whose pages would count as this process's memory.
            mapped = entry.size >= MAP_FROM
            found = masked(crc32c_of(file.chunks(entry.offset, entry.size, place)) if mapped else crc32c(raw))
            if found != entry.checksum:
                raise place.error(
                    f"checksum {entry.checksum:#010x}", f"{found:#010x}", entry.offset, "The file is damaged."
                )
        if dtype == np.bool_ and raw.max(initial=0) > 1:
            raise place.error("bools of 0 or 1", f"{raw.max()}", entry.offset)
        return frozen(as_array(raw, dtype, entry.shape))


def _read_header(data: bytes, place: Place) -> int:
    """The number of data files. BundleHeaderProto: `num_shards` 1, `endianness` 2, `version` 3."""
    shards = 1
    for field in fields(data, 0, len(data), place):
        if field.number == 1:
            shards = signed(expect(field, VARINT, place).value)
        elif field.number == 2 and field.value:
            raise place.error("little-endian data", "big-endian data. Write it again on a little-endian machine")
        elif field.number == 3:
            _check_version(data, expect(field, LENGTH, place).start, field.end, place)
    if not 0 < shards <= MAX_SHARDS:
        raise place.error(f"1 to {MAX_SHARDS} data files", f"{shards}")
    return shards


def _check_version(data: bytes, start: int, end: int, place: Place) -> None:
    """VersionDef: `min_consumer` 2 is the oldest reader that understands the file."""
    for field in fields(data, start, end, place):
        if field.number == 2 and expect(field, VARINT, place).value > _VERSION:
            raise place.error(f"a bundle that readers of version {_VERSION} understand", f"version {field.value}")


def _read_entry(data: bytes, place: Place) -> Entry:
    """BundleEntryProto: `dtype` 1, `shape` 2, `shard_id` 3, `offset` 4, `size` 5, `crc32c` 6, `slices` 7."""
    numbers = {1: 0, 3: 0, 4: 0, 5: 0, 6: 0}
    shape: Shape = ()
    slices: list[Slice] = []
    for field in fields(data, 0, len(data), place):
        if field.number == 2:
            shape = read_shape(data, expect(field, LENGTH, place).start, field.end, place)
        elif field.number == 7:
            slices.append(read_slice(data, expect(field, LENGTH, place).start, field.end, place))
        elif field.number in numbers:
            numbers[field.number] = expect(field, FIXED32 if field.number == 6 else VARINT, place).value
    if max(numbers.values()) >= 1 << 63:
        raise place.error("numbers that are not negative", f"{[signed(number) for number in numbers.values()]}")
    dtype = dtype_of(numbers[1], place)
    return Entry(dtype, shape, numbers[3], numbers[4], numbers[5], numbers[6], tuple(slices))


def _text(entry: Entry) -> str:
    return f"{entry.dtype.name}{list(entry.shape)}"
