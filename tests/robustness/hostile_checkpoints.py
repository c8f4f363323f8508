"""Hostile and damaged checkpoint files. Each says what it tries; none may do more than raise a CheckpointError."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from cellweave.checkpoint._slice_keys import slice_key
from cellweave.checkpoint._wire import message_field, number_field, varint
from helpers.checkpoint_bytes import (
    BOOL,
    HEADER,
    MAGIC,
    STRING,
    block,
    bundle,
    constant,
    entries,
    entry,
    handle,
    one,
    table,
    table_of_blocks,
    tensor_of,
    v1,
    v1_meta,
)

EIGHT = b"\0\0\x80\x3f\0\0\0\x40"  # 1.0 and 2.0
ENDLESS = b"\xff" * 11
SOUND = bundle({b"v": entry(data=EIGHT)}, EIGHT)
HUGE = 1 << 62


@dataclass(frozen=True)
class Attack:
    """Files to write, the path to open, and a fact that the error must state. `v` is read unless opening fails."""

    name: str
    tries: str
    files: dict[str, bytes]
    fact: str
    path: str = "m"


def index(name: str, tries: str, content: bytes, fact: str) -> Attack:
    return Attack(name, tries, {"m.index": content, "m.data-00000-of-00001": EIGHT}, fact)


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def key_bomb() -> bytes:
    """Each key is one byte longer than the last and stores that byte only."""
    parts = [(0, b"", HEADER), *((length, b"k", b"") for length in range(12_000))]
    return table_of_blocks([block(entries(*parts))])


def strings(
    lengths: list[int], rest: bytes, *, checksum: int | None = None, shape: tuple[int, ...] = (2,)
) -> dict[str, bytes]:
    data = b"".join(map(varint, lengths)) + rest
    return one(entry(STRING, shape, data=data, checksum=checksum), data)


def sliced(
    shape: tuple[int, ...], slices: list[tuple[tuple[int, int], ...]], pieces: dict[bytes, bytes]
) -> dict[str, bytes]:
    whole = entry(1, shape, size=0, checksum=0, slices=slices)
    return bundle({b"v": whole, **pieces}, EIGHT * 4)


def two_floats(part: tuple[tuple[int, int], ...]) -> dict[bytes, bytes]:
    return {slice_key("v", part): entry(1, (2,), data=EIGHT)}


def snappy(content: bytes) -> bytes:
    return table_of_blocks([block(content, kind=1)])


FIRST, SECOND = ((0, 2),), ((2, 2),)

TABLES = [
    index("empty index", "an index of no bytes", b"", "48 bytes"),
    index("short index", "an index shorter than a footer", SOUND["m.index"][-20:], "48 bytes"),
    index("cut index", "an index whose beginning is gone", SOUND["m.index"][30:], "index block"),
    index("other magic", "a table of another kind", SOUND["m.index"][:-1] + b"\0", "0xdb4775248b80fb57"),
    index("endless footer", "a number in the footer that never ends", b"\xff" * 40 + MAGIC, "64 bits"),
    index(
        "index far away",
        "an index block behind the file's end",
        table_of_blocks([], b"", handle(0, 0) + handle(HUGE, 9)),
        str(HUGE),
    ),
    index(
        "index of 2^62 bytes",
        "a block as large as the address space",
        table_of_blocks([], b"", handle(0, 0) + handle(0, HUGE)),
        str(HUGE + 5),
    ),
    index(
        "flipped index block",
        "one bit of the index block",
        flipped(SOUND["m.index"], len(SOUND["m.index"]) - 60),
        "checksum",
    ),
    index("flipped block", "one bit of the first block", flipped(SOUND["m.index"], 12), "checksum"),
    index(
        "unknown compression",
        "a kind of compression nobody wrote",
        table_of_blocks([block(entries((0, b"", HEADER)), kind=7)]),
        "kind 7",
    ),
    index(
        "same block often",
        "work by asking for one block a thousand times",
        (
            lambda b: table_of_blocks(
                [b], block(entries(*((0, b"%04d" % i, handle(0, len(b) - 5)) for i in range(1000))))
            )
        )(block(entries((0, b"", HEADER)))),
        "a block from byte",
    ),
    index(
        "key beyond block",
        "a key longer than its block",
        table_of_blocks([block(varint(0) + varint(999) + varint(0) + b"k" + struct.pack("<II", 0, 1))]),
        "within its block",
    ),
    index(
        "value beyond block",
        "a value longer than its block",
        table_of_blocks([block(varint(0) + varint(1) + varint(HUGE) + b"k" + struct.pack("<II", 0, 1))]),
        "within its block",
    ),
    index(
        "shares too much",
        "a key that shares more than the last one has",
        table_of_blocks([block(entries((0, b"", HEADER), (200, b"k", b"")))]),
        "lengths 200",
    ),
    index(
        "four billion restarts",
        "a list of restart points larger than the block",
        table_of_blocks([block(entries((0, b"", HEADER), count=(1 << 32) - 1))]),
        "restart points",
    ),
    index(
        "block of two bytes",
        "a block without room for its number of restarts",
        table_of_blocks([block(b"\0\0")]),
        "at least 4 bytes",
    ),
    index(
        "unsorted keys",
        "a search that a wrong order misleads",
        table_of_blocks([block(entries((0, b"", HEADER), (0, b"v", entry()), (0, b"b", entry())))]),
        "sorted keys",
    ),
    index(
        "same key twice",
        "two entries for one name",
        table_of_blocks([block(entries((0, b"", HEADER), (0, b"v", entry()), (0, b"v", entry())))]),
        "sorted keys",
    ),
    index("key bomb", "memory for 72 MB of keys from a file of 50 KB", key_bomb(), "bytes in all"),
    index(
        "key of 100 KB", "one key as long as a block", table({b"": HEADER, b"k" * 100_000: entry()}), "keys of at most"
    ),
    index("no blocks", "a table without entries", table_of_blocks([]), "a header"),
    index("name in no text", "a name that is no UTF-8", table({b"": HEADER, b"\xff\xfe": entry()}), "UTF-8"),
    index("Snappy bomb", "a block that claims a gigabyte", snappy(varint(1 << 30) + b"\0"), "times"),
    index(
        "Snappy before start",
        "a copy from before the block's start",
        snappy(varint(8) + b"\x04abcd" + b"\x01\xff"),
        "Snappy",
    ),
    index(
        "Snappy copy of nothing",
        "a copy at distance 0, which would never end",
        snappy(varint(8) + b"\x00a" + b"\x01\x00"),
        "Snappy",
    ),
    index("Snappy literal beyond", "a literal longer than the block", snappy(varint(60) + b"\xe8abc"), "Snappy"),
    index("Snappy long literal", "a literal of 4 GB", snappy(varint(9) + b"\xfc\xff\xff\xff\xff" + b"abc"), "Snappy"),
    index("Snappy too short", "a block that decodes to less than it claims", snappy(varint(9) + b"\x00a"), "9 bytes"),
]

HEADERS = [
    Attack("no header", "a table without the empty key", {"m.index": table({b"v": entry()})}, "a header"),
    Attack(
        "a billion shards", "a billion data files", bundle({b"v": entry()}, header=number_field(1, 10**9)), "data files"
    ),
    Attack(
        "minus one shard",
        "a negative number of data files",
        bundle({b"v": entry()}, header=number_field(1, -1)),
        "data files",
    ),
    Attack(
        "big-endian",
        "numbers in another byte order",
        bundle({b"v": entry()}, header=HEADER + number_field(2, 1)),
        "little-endian",
    ),
    Attack(
        "from the future",
        "a version that only later readers know",
        bundle({}, header=number_field(1, 1) + message_field(3, number_field(2, 9))),
        "version 9",
    ),
    Attack("header cut", "a header whose message ends too early", bundle({}, header=HEADER[:-1]), "field 3"),
]

ENTRIES = [
    Attack("2^62 elements", "an allocation of 2^64 bytes", one(entry(shape=(HUGE,), data=EIGHT)), "bytes for float32"),
    Attack(
        "matching 2^40 elements",
        "a size that fits its shape but no file",
        one(entry(shape=(1 << 40,), size=1 << 42)),
        str(1 << 42),
    ),
    Attack(
        "overflowing shape",
        "a product of sizes that is 0 in 64 bits",
        one(entry(shape=(1 << 32, 1 << 32), size=0)),
        "2^63",
    ),
    Attack(
        "negative size",
        "an axis of -1 elements",
        one(number_field(1, 1) + message_field(2, message_field(2, number_field(1, -1)))),
        "known sizes",
    ),
    Attack(
        "unknown rank",
        "a shape that is not known",
        one(number_field(1, 1) + message_field(2, number_field(3, 1))),
        "unknown rank",
    ),
    Attack("300 axes", "more axes than arrays have", one(entry(shape=(1,) * 300, size=4)), "32 axes"),
    Attack("100 axes", "more axes than NumPy has", one(entry(shape=(1,) * 100, size=4, data=EIGHT[:4]), EIGHT), "axes"),
    Attack(
        "offset behind end", "bytes behind the file's end", one(entry(data=EIGHT, offset=1 << 50)), "a file of 8 bytes"
    ),
    Attack("size beyond end", "bytes past the file's end", one(entry(shape=(3,), size=12)), "a file of 8 bytes"),
    Attack("negative offset", "bytes before the file's start", one(entry(data=EIGHT, offset=-8)), "not negative"),
    Attack("negative length", "a size below 0", one(entry(size=-8)), "not negative"),
    Attack("size of another shape", "fewer bytes than the shape needs", one(entry(shape=(3,), data=EIGHT)), "12 bytes"),
    Attack("shard 5 of 1", "a data file that the header does not count", one(entry(data=EIGHT, shard=5)), "number 5"),
    Attack("data file missing", "a bundle without its data", {"m.index": SOUND["m.index"]}, "No such file"),
    Attack("data file cut", "a data file that lost its end", one(entry(data=EIGHT), EIGHT[:5]), "a file of 5 bytes"),
    Attack("flipped data", "one bit of a tensor", one(entry(data=EIGHT), flipped(EIGHT, 3)), "checksum"),
    Attack("bool of 2", "a bool that is neither true nor false", one(entry(BOOL, (8,), data=EIGHT), EIGHT), "0 or 1"),
    Attack("dtype 77", "a dtype that does not exist", one(entry(77, data=EIGHT)), "77"),
    Attack("resource", "a dtype without bytes", one(entry(20, data=EIGHT)), "resource"),
    Attack("endless number", "a number of eleven bytes", one(b"\x08" + ENDLESS), "64 bits"),
    Attack("group", "a kind of field that protobuf gave up", one(b"\x0b"), "kind 3"),
    Attack("field 0", "a field without a number", one(b"\x00\x00"), "field number 0"),
    Attack("message beyond entry", "a shape longer than its entry", one(b"\x12\x7f"), "a length of 127"),
    Attack("number for a shape", "a field of another kind", one(b"\x10\x01"), "kind 2 of field 2"),
    Attack("cut checksum", "a checksum of two bytes", one(b"\x35\x00\x00"), "4 bytes in field 6"),
]

STRINGS = [
    Attack(
        "2^40 strings",
        "a list of 2^40 texts from 8 bytes",
        one(entry(STRING, (1 << 40,), data=EIGHT), EIGHT),
        "at most 8 strings",
    ),
    Attack("long string", "a text longer than its tensor", strings([HUGE, 0], b"\0\0\0\0"), "bytes in all"),
    Attack("wrong lengths checksum", "lengths that were changed", strings([1, 1], b"\0\0\0\0ab"), "of the lengths"),
    Attack("endless length", "a length that never ends", one(entry(STRING, data=ENDLESS), ENDLESS), "64 bits"),
    Attack("no lengths", "strings of no bytes", one(entry(STRING, size=0, checksum=0), EIGHT), "at most 0 strings"),
]

SLICES = [
    Attack(
        "overlapping slices", "an element that is stored twice", sliced((4,), [FIRST, FIRST], two_floats(FIRST)), "once"
    ),
    Attack(
        "gap between slices",
        "elements that nobody wrote",
        sliced((5,), [FIRST, SECOND], two_floats(FIRST) | two_floats(SECOND)),
        "once",
    ),
    Attack(
        "slice outside", "a slice behind the shape's end", sliced((2,), [SECOND], two_floats(SECOND)), "within shape"
    ),
    Attack("negative slice", "a slice that starts before 0", sliced((2,), [((-1, 2),)], {}), "within shape"),
    Attack("slice of other rank", "a slice with two axes of a vector", sliced((2,), [((0, 2), (0, 1))], {}), "1 axes"),
    Attack(
        "missing slice", "a slice without an entry", sliced((4,), [FIRST, SECOND], two_floats(FIRST)), "slice 1 of 2"
    ),
    Attack(
        "slice of another shape",
        "a slice larger than it says",
        sliced((4,), [FIRST, SECOND], two_floats(FIRST) | {slice_key("v", SECOND): entry(1, (9,), size=36)}),
        "a slice float32[2]",
    ),
    Attack(
        "slice of slices",
        "a slice that is partitioned itself",
        sliced((4,), [FIRST, SECOND], two_floats(FIRST) | {slice_key("v", SECOND): entry(1, (2,), slices=[FIRST])}),
        "a slice float32[2]",
    ),
    Attack(
        "same bytes for all slices",
        "8 KB from 32 bytes, and more from more",
        sliced(
            (2_000,),
            [((at, 2),) for at in range(0, 2_000, 2)],
            {k: v for at in range(0, 2_000, 2) for k, v in two_floats(((at, 2),)).items()},
        ),
        "in all",
    ),
    Attack(
        "2^60 elements in slices",
        "an allocation for the whole before its parts are looked at",
        sliced((1 << 60,), [((0, 1 << 59),), ((1 << 59, 1 << 59),)], {}),
        "slice 0",
    ),
]

FILES_OF_V1 = [
    Attack("V1 without header", "a table that is no checkpoint", {"m": table({b"x": b""})}, "a header"),
    Attack(
        "V1 without data",
        "a variable that is only listed",
        {"m": table({b"": v1_meta(b"v", (2,), 1, [((0, -1),)])})},
        "none",
    ),
    Attack("V1 without slices", "a variable that is nowhere", {"m": table({b"": v1_meta(b"v", (2,), 1, [])})}, "once"),
    Attack("V1 fewer values", "a value that stands for 2^40", v1(message_field(5, EIGHT[:4]), (1 << 40,)), "values"),
    Attack("V1 more values", "more values than elements", v1(message_field(5, EIGHT), (1,)), "at most 1 values"),
    Attack("V1 half a float", "values that end within a number", v1(message_field(5, EIGHT[:7])), "multiple of 4"),
    Attack("V1 endless number", "integers that never end", v1(message_field(7, b"\xff" * 40), dtype=3), "end"),
    Attack(
        "V1 long number",
        "an integer of eleven bytes",
        v1(message_field(7, ENDLESS + b"\x01"), (1,), dtype=3),
        "10 bytes",
    ),
    Attack(
        "V1 large int8",
        "an integer that its dtype cannot hold",
        v1(message_field(7, varint(300) + varint(1)), dtype=6),
        "values of int8",
    ),
    Attack("V1 flipped", "one bit of a tensor", {"m": flipped(v1(message_field(5, EIGHT))["m"], 40)}, "checksum"),
    Attack("V1 no table", "a file of text", {"m": b"weights: none\n" * 9}, "a table of"),
    Attack(
        "V1 shard missing",
        "a sharded file without its second half",
        {"m-00000-of-00002": v1(message_field(5, EIGHT))["m"]},
        "m-00001-of-00002",
    ),
    Attack(
        "V1 shards of two kinds",
        "files of two checkpoints",
        dict.fromkeys(("m-00000-of-00001", "m-00000-of-00002"), b""),
        "one checkpoint",
    ),
]

GRAPHS = [
    Attack(
        "empty constant",
        "a constant without a value",
        {"m.pb": message_field(1, message_field(1, b"v") + message_field(2, b"Const"))},
        "tensor",
        "m.pb",
    ),
    Attack(
        "cut graph",
        "a node longer than the file",
        {"m.pb": constant(tensor_of((2,), rest=message_field(4, EIGHT)))[:-3]},
        "field 1",
        "m.pb",
    ),
    Attack(
        "short content",
        "fewer bytes than the shape needs",
        {"m.pb": constant(tensor_of((HUGE,), rest=message_field(4, EIGHT)))},
        "8 (byte",
        "m.pb",
    ),
    Attack(
        "two values for 2^40",
        "memory for values that the file does not hold",
        {"m.pb": constant(tensor_of((1 << 40,), rest=message_field(5, EIGHT)))},
        "repeated",
        "m.pb",
    ),
    Attack(
        "nameless node",
        "a node without a name",
        {"m.pb": message_field(1, message_field(2, b"Const"))},
        "a name",
        "m.pb",
    ),
    Attack("text graph", "a graph in text form", {"m.pb": b'node { name: "v" op: "Const" }'}, "m.pb", "m.pb"),
    Attack(
        "empty SavedModel",
        "a SavedModel without a graph",
        {"saved_model.pb": number_field(1, 1)},
        "a graph",
        "saved_model.pb",
    ),
    Attack(
        "name of the node in no text", "a name that is no UTF-8", {"m.pb": constant(b"", name=b"\xff")}, "UTF-8", "m.pb"
    ),
]

STATES = [
    Attack(
        "state without path",
        "a state file that names nothing",
        {"checkpoint": b"all_model_checkpoint_paths: 'm'\n"},
        "model_checkpoint_path",
        "checkpoint",
    ),
    Attack(
        "state of 2 MB",
        "a state file as large as a checkpoint",
        {"checkpoint": b"#" * (2 << 20)},
        "a text of at most",
        "checkpoint",
    ),
    Attack(
        "state with a zero byte",
        "a path that ends early in C",
        {"checkpoint": b'model_checkpoint_path: "m\\000n"'},
        "a path",
        "checkpoint",
    ),
    Attack(
        "state that names itself",
        "a search that never ends",
        {"checkpoint": b'model_checkpoint_path: "checkpoint"'},
        "a table of",
        "checkpoint",
    ),
    Attack(
        "state in no text",
        "a state file that is no UTF-8",
        {"checkpoint": b'model_checkpoint_path: "\xff"'},
        "UTF-8",
        "checkpoint",
    ),
    Attack(
        "state that names nothing there",
        "a checkpoint that is gone",
        {"checkpoint": b'model_checkpoint_path: "gone"'},
        "no such file",
        "checkpoint",
    ),
    Attack(
        "state that names 99,999 files",
        "a list of names as long as a number in a name says",
        {"checkpoint": b'model_checkpoint_path: "m-?????-of-99999"'},
        "m-00000-of-99999",
        "checkpoint",
    ),
]

ATTACKS = [*TABLES, *HEADERS, *ENTRIES, *STRINGS, *SLICES, *FILES_OF_V1, *GRAPHS, *STATES]
