"""A V2 bundle's content as it stands: the same slices in the same data files, streamed."""

from __future__ import annotations

from functools import partial
from typing import BinaryIO

from cellweave.checkpoint._bundle import Bundle, Entry
from cellweave.checkpoint._dtypes import STRING
from cellweave.checkpoint._pieces import Piece, Whole, store, write_chunks
from cellweave.checkpoint._place import Place
from cellweave.checkpoint._shapes import Slice


def copied(bundle: Bundle, place: Place) -> list[Piece | Whole]:
    """All variables of a bundle, in the order of its data."""
    wholes: list[Piece | Whole] = []
    found: list[tuple[str, Slice | None, Entry]] = []
    for name in sorted(bundle.names()):
        entry = bundle.entry(name)
        if entry.slices:
            wholes.append(Whole(name, entry.dtype, entry.shape, entry.slices))
            found.extend(
                (name, part, piece) for part, piece in zip(entry.slices, bundle.pieces(name, entry), strict=True)
            )
        else:
            found.append((name, None, entry))
    found.sort(key=lambda item: (item[2].shard, item[2].offset))
    return wholes + [_piece(bundle, name, part, entry, place.of(name)) for name, part, entry in found]


def _piece(bundle: Bundle, name: str, part: Slice | None, entry: Entry, place: Place) -> Piece:
    action = _rewrite_strings if entry.dtype is STRING else _stream if entry.dtype.array is not None else _unread
    return Piece(name, part, entry.dtype, entry.shape, entry.shard, partial(action, bundle, entry, name, place))


def _rewrite_strings(bundle: Bundle, entry: Entry, name: str, place: Place, file: BinaryIO) -> tuple[int, int]:
    return store(STRING, bundle.array(entry, name))(file)


def _unread(bundle: Bundle, entry: Entry, name: str, place: Place, file: BinaryIO) -> tuple[int, int]:
    """Bytes of a dtype that is not read here; their checksum is made in ways of its own, and stays."""
    size, _ = write_chunks(file, bundle.chunks(entry, name))
    return size, entry.checksum


def _stream(bundle: Bundle, entry: Entry, name: str, place: Place, file: BinaryIO) -> tuple[int, int]:
    size, checksum = write_chunks(file, bundle.chunks(entry, name))
    if checksum != entry.checksum:
        raise place.error(f"checksum {entry.checksum:#010x}", f"{checksum:#010x}", entry.offset, "The file is damaged.")
    return size, checksum
