"""Checkpoint files made by hand, so that any part of them can be wrong."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping, Sequence

from cellweave.checkpoint._crc32c import crc32c, masked
from cellweave.checkpoint._shapes import WHOLE, Slice, shape_message, slice_message
from cellweave.checkpoint._slice_keys import slice_key
from cellweave.checkpoint._table_writer import write_table
from cellweave.checkpoint._wire import fixed32_field, message_field, number_field, varint

MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)
HEADER = number_field(1, 1) + message_field(3, number_field(1, 1))
FLOAT, STRING, BOOL, VARIANT = 1, 7, 10, 21


def table(entries: Mapping[bytes, bytes]) -> bytes:
    """A sound table."""
    file = io.BytesIO()
    write_table(file, sorted(entries.items()))
    return file.getvalue()


def block(content: bytes, kind: int = 0, checksum: int | None = None) -> bytes:
    """A block with its kind and checksum."""
    raw = content + bytes([kind])
    return raw + struct.pack("<I", masked(crc32c(raw)) if checksum is None else checksum)


def entries(*parts: tuple[int, bytes, bytes], restarts: Sequence[int] = (0,), count: int | None = None) -> bytes:
    """A block's content: how much of the key is shared, the rest of the key, the value."""
    body = b"".join(varint(s) + varint(len(key)) + varint(len(value)) + key + value for s, key, value in parts)
    number = len(restarts) if count is None else count
    return body + struct.pack(f"<{len(restarts)}I", *restarts) + struct.pack("<I", number)


def handle(offset: int, size: int) -> bytes:
    """Where a block lies."""
    return varint(offset) + varint(size)


def table_of_blocks(blocks: Sequence[bytes], index: bytes | None = None, footer: bytes | None = None) -> bytes:
    """A table of blocks as they are given; its index names each of them under the keys b"0", b"1", ..."""
    out, handles = b"", []
    for number, raw in enumerate(blocks):
        handles.append((0, b"%c" % (0x60 + number), handle(len(out), len(raw) - 5)))
        out += raw
    index = block(entries(*handles)) if index is None else index
    start = len(out)
    out += index
    ends = handle(0, 0) + handle(start, len(index) - 5) if footer is None else footer
    return out + ends.ljust(40, b"\0") + MAGIC


def entry(
    dtype: int = FLOAT,
    shape: Sequence[int] = (2,),
    *,
    data: bytes = b"",
    offset: int = 0,
    size: int | None = None,
    shard: int = 0,
    checksum: int | None = None,
    slices: Sequence[Slice] = (),
    extra: bytes = b"",
) -> bytes:
    """A BundleEntryProto of `data`, with anything else than the truth where it is given."""
    return (
        number_field(1, dtype)
        + message_field(2, shape_message(tuple(shape)))
        + number_field(3, shard)
        + number_field(4, offset)
        + number_field(5, len(data) if size is None else size)
        + fixed32_field(6, masked(crc32c(data)) if checksum is None else checksum)
        + b"".join(message_field(7, slice_message(part)) for part in slices)
        + extra
    )


def bundle(named: Mapping[bytes, bytes], data: bytes = b"", header: bytes = HEADER) -> dict[str, bytes]:
    """The files of a bundle."""
    return {"m.index": table({b"": header, **named}), "m.data-00000-of-00001": data}


def one(value: bytes, data: bytes = b"\0" * 8) -> dict[str, bytes]:
    """A bundle of one variable called v."""
    return bundle({b"v": value}, data)


def v1_meta(name: bytes, shape: Sequence[int], dtype: int, slices: Sequence[Slice]) -> bytes:
    """The header of a V1 file with one variable."""
    parts = b"".join(message_field(4, slice_message(part)) for part in slices)
    tensor = message_field(1, name) + message_field(2, shape_message(tuple(shape))) + number_field(3, dtype) + parts
    return message_field(1, message_field(1, tensor))


def v1(values: bytes, shape: Sequence[int] = (2,), dtype: int = FLOAT) -> dict[str, bytes]:
    """A V1 file of one variable called v with these fields as its values."""
    part = ((0, WHOLE),) * len(shape)
    saved = message_field(2, message_field(1, b"v") + message_field(2, slice_message(part)) + message_field(3, values))
    return {"m": table({b"": v1_meta(b"v", shape, dtype, [part]), slice_key("v", part): saved})}


def constant(tensor: bytes, name: bytes = b"v") -> bytes:
    """A GraphDef with one constant."""
    kind = message_field(5, message_field(1, b"dtype") + message_field(2, number_field(6, FLOAT)))
    value = message_field(5, message_field(1, b"value") + message_field(2, message_field(8, tensor)))
    return message_field(1, message_field(1, name) + message_field(2, b"Const") + kind + value)


def tensor_of(shape: Sequence[int], *, dtype: int = FLOAT, rest: bytes = b"") -> bytes:
    """A TensorProto."""
    return number_field(1, dtype) + message_field(2, shape_message(tuple(shape))) + rest
