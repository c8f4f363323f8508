"""Writing V2 bundles: everything under temporary names first, then renamed, the table last."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from cellweave._errors import ArgumentError, ArgumentTypeError
from cellweave.checkpoint._bundle import Bundle, data_path, index_path, is_data_of
from cellweave.checkpoint._checkpoint import Checkpoint
from cellweave.checkpoint._copy import copied
from cellweave.checkpoint._dtypes import BFLOAT16
from cellweave.checkpoint._limits import MAX_SHARDS
from cellweave.checkpoint._pieces import Piece, Whole, layout
from cellweave.checkpoint._place import Place
from cellweave.checkpoint._shapes import Slice, shape_message, slice_message
from cellweave.checkpoint._slice_keys import SLICE_KEY, slice_key
from cellweave.checkpoint._state_file import STATE_FILE, all_named, state_text
from cellweave.checkpoint._table_writer import write_table
from cellweave.checkpoint._wire import fixed32_field, message_field, number_field

_PRODUCER = 1  # the format's version, `kTensorBundleVersion`


def write_checkpoint(
    prefix: str | Path,
    tensors: Mapping[str, Any],
    *,
    slices: Mapping[str, Sequence[Slice]] | None = None,
    num_shards: int | None = None,
    overwrite: bool = False,
    update_state: bool = False,
) -> Path:
    """Write a V2 bundle that TensorFlow reads.

    The same input gives the same bytes: names are sorted, and the files are laid out as TensorFlow's own saver does.
    Values are fetched one at a time, in the order of their names, so a mapping may make them when asked. Everything is
    written under temporary names beside the final ones and then renamed, `PREFIX.index` last: a reader sees a whole
    checkpoint or none.

    Args:
        prefix: The path without `.index`; its folder must exist.
        tensors: Names and values: tensors, arrays, numbers, `bytes`, texts (as UTF-8), arrays of the last two. An open
            `Checkpoint` keeps its dtypes, and as a V2 bundle also its slices and data files unless these are given
            here.
        slices: For partitioned variables the pieces to store: a pair of start and length for each axis, as
            `even_slices` makes them. Default: every variable is stored whole.
        num_shards: The number of data files; pieces are dealt to them in turn. Default: 1.
        overwrite: Whether an earlier checkpoint at `prefix` may be replaced. Its table is taken away before its data
            is.
        update_state: Whether the text file `checkpoint` beside it shall name this one as the latest.
    Returns:
        The prefix.
    Raises:
        ArgumentError: the prefix ends without a name, a variable's name is empty or begins with a zero byte, `slices`
            do not divide a variable or name none, the number of data files is out of range, or there is a checkpoint
            that may not be replaced.
        ArgumentTypeError: a name is no text.
        DTypeError: TF1 has no such dtype.
        CheckpointError: `tensors` is a checkpoint, and it is damaged.
        OSError: a file cannot be written. Nothing is left behind then.
    Source: TensorFlow's tensor_bundle.cc.
    """
    prefix = Path(prefix)
    if prefix.name in ("", ".."):
        raise ArgumentError(f"write_checkpoint: expected a path that ends with a name, got {str(prefix)!r}.")
    _check_names(tensors, slices or {})
    if not overwrite and index_path(prefix).exists():
        raise ArgumentError(f"write_checkpoint: expected no checkpoint at {prefix}, got one. Pass overwrite=True.")
    source = tensors.source if isinstance(tensors, Checkpoint) else None
    pieces: Iterable[Piece | Whole]
    if isinstance(source, Bundle) and slices is None and num_shards is None:
        shards, pieces = source.shards, copied(source, Place(str(prefix)))
    else:
        shards = 1 if num_shards is None else num_shards
        if not 1 <= shards <= MAX_SHARDS:
            raise ArgumentError(f"write_checkpoint: expected 1 to {MAX_SHARDS} data files, got {shards}.")
        pieces = layout(tensors, partial(_fetch, tensors), _slices(tensors) if slices is None else slices, shards)
    _write(prefix, pieces, shards)
    if update_state:
        _write_state(prefix)
    return prefix


def _check_names(tensors: Mapping[str, Any], slices: Mapping[str, Sequence[Slice]]) -> None:
    for name in tensors:
        if not isinstance(name, str):
            raise ArgumentTypeError(f"write_checkpoint: expected names that are texts, got {name!r}.")
        if not name or name.encode().startswith(SLICE_KEY):
            raise ArgumentError(f"write_checkpoint: expected names that do not begin with a zero byte, got {name!r}.")
    unknown = sorted(set(slices) - set(tensors))
    if unknown:
        raise ArgumentError(f"write_checkpoint: expected slices of variables that are written, got {unknown}.")


def _slices(tensors: Mapping[str, Any]) -> Mapping[str, Sequence[Slice]]:
    """The slices that a checkpoint has."""
    if not isinstance(tensors, Checkpoint):
        return {}
    return {name: info.slices for name, info in tensors.variables.items() if info.slices}


def _fetch(tensors: Mapping[str, Any], name: str) -> Any:
    """A value in a form that shows its dtype."""
    if isinstance(tensors, Checkpoint) and tensors.variables[name].dtype == BFLOAT16.name:
        return tensors.read_tensor(name)
    return tensors[name]


def _write(prefix: Path, pieces: Iterable[Piece | Whole], shards: int) -> None:
    """Write all files and rename them; take away what was written if that fails."""
    data = [data_path(prefix, shard, shards) for shard in range(shards)]
    written: list[Path] = []
    try:
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(_temporary(path, written)) for path in data]
            entries = _write_data(files, pieces)
        with _temporary(index_path(prefix), written) as file:
            header = number_field(1, shards) + message_field(3, number_field(1, _PRODUCER))
            write_table(file, [(b"", header), *sorted(entries.items())])
        _commit(prefix, data, written)
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise


def _write_data(files: Sequence[BinaryIO], pieces: Iterable[Piece | Whole]) -> dict[bytes, bytes]:
    """Write the data and give the entries of the table: BundleEntryProto, see `_bundle`."""
    entries: dict[bytes, bytes] = {}
    offsets = [0] * len(files)
    for piece in pieces:
        common = number_field(1, piece.dtype.number) + message_field(2, shape_message(piece.shape))
        if isinstance(piece, Whole):
            slices = b"".join(message_field(7, slice_message(part)) for part in piece.slices)
            entries[piece.name.encode()] = common + slices
            continue
        offset = offsets[piece.shard]
        size, checksum = piece.store(files[piece.shard])
        offsets[piece.shard] += size
        where = number_field(3, piece.shard) + number_field(4, offset) + number_field(5, size)
        key = piece.name.encode() if piece.part is None else slice_key(piece.name, piece.part)
        entries[key] = common + where + fixed32_field(6, checksum)
    return entries


@contextlib.contextmanager
def _temporary(path: Path, written: list[Path]) -> Iterator[BinaryIO]:
    """A file beside `path` to write to, on the disk when the block ends."""
    temporary = _temporary_path(path)
    try:
        opened = temporary.open("wb")
    except OSError as error:  # it speaks of the file that was asked for
        raise OSError(error.errno, error.strerror, str(path)) from error
    with opened as file:
        written.append(temporary)
        yield file
        file.flush()
        os.fsync(file.fileno())


def _temporary_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


def _commit(prefix: Path, data: Sequence[Path], written: list[Path]) -> None:
    """Rename the files; without the table, which goes first and comes last, the others count for nothing."""
    index = index_path(prefix)
    index.unlink(missing_ok=True)
    for path in data:
        os.replace(_temporary_path(path), path)
        written.append(path)
    os.replace(_temporary_path(index), index)
    written.clear()
    for path in prefix.parent.iterdir():
        if is_data_of(path, prefix) and path not in data:  # of an earlier checkpoint with another number of files
            path.unlink(missing_ok=True)
    sync_folder(prefix.parent)


def _write_state(prefix: Path) -> None:
    """Name a checkpoint as the latest of its folder; the others that were named stay in the list."""
    path = prefix.with_name(STATE_FILE)
    before = all_named(path) if path.exists() else []
    content = state_text(prefix.name, [name for name in before if name != prefix.name])
    written: list[Path] = []
    try:
        with _temporary(path, written) as file:
            file.write(content.encode())
        os.replace(_temporary_path(path), path)
    except BaseException:
        for temporary in written:
            temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Force the names in a folder to the disk, where the system can."""
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
