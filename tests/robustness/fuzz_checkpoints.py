"""Any bytes as a checkpoint: they are read, or refused with a CheckpointError. Nothing else, and without much memory.

`python tests/robustness/fuzz_checkpoints.py -max_total_time=600` runs it under atheris (`pip install atheris`), which
looks for inputs that reach new code. `test_mutated_checkpoints.py` runs a short, fixed set of inputs through the same
function.
"""

from __future__ import annotations

import sys
import tempfile
import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path

if __name__ == "__main__":
    import atheris

    sys.path.insert(0, str(Path(__file__).parents[1]))
    with atheris.instrument_imports(include=["cellweave.checkpoint"]):
        import cellweave.checkpoint  # noqa: F401 - before anything else imports it, so that its branches are seen

from cellweave import CheckpointError
from cellweave.checkpoint import open_checkpoint, read_graph
from cellweave.checkpoint._crc32c import crc32c
from helpers import checkpoint_bytes as made

MEMORY_FACTOR = 4  # of the input's size
MEMORY_FLOOR = 4 << 20  # bytes: buffers, and what Python's objects cost beyond their bytes
DATA = bytes(range(64))

Files = dict[str, bytes]


def _bundle(data: bytes) -> Files:
    size = int.from_bytes(data[:2], "little")
    return {"m.index": data[2 : 2 + size], "m.data-00000-of-00001": data[2 + size :]}


def _entries(data: bytes) -> Files:
    """Sound tables around entries that are not: three values behind their lengths."""
    parts, at = [], 0
    for _ in range(3):
        size = data[at] if at < len(data) else 0
        parts.append(data[at + 1 : at + 1 + size])
        at += 1 + size
    return made.bundle({b"a": parts[0], b"v": parts[1], made.slice_key("v", ((0, 2),)): parts[2]}, DATA)


def _strings(data: bytes) -> Files:
    return made.one(made.entry(made.STRING, (data[0] if data else 0,), data=data), data)


def _v1(data: bytes) -> Files:
    dtype, dims = (data[0] if data else 0), (data[1] if len(data) > 1 else 0)
    return made.v1(data[2:], (dims,), dtype)


#: By the first byte of an input: the files that the rest of it makes, and the path to open.
FORMS: list[tuple[str, Callable[[bytes], Files], str]] = [
    ("bundle", _bundle, "m"),
    ("entries", _entries, "m"),
    ("header", lambda data: made.bundle({b"v": made.entry(data=DATA[:8])}, DATA[:8], header=data), "m"),
    ("block", lambda data: {"m.index": made.table_of_blocks([made.block(data)])}, "m"),
    ("index block", lambda data: {"m.index": made.table_of_blocks([], made.block(data))}, "m"),
    ("Snappy", lambda data: {"m.index": made.table_of_blocks([made.block(data, kind=1)])}, "m"),
    ("strings", _strings, "m"),
    ("V1", lambda data: {"m": data}, "m"),
    ("V1 header", lambda data: {"m": made.table({b"": data})}, "m"),
    ("V1 values", _v1, "m"),
    ("graph", lambda data: {"m.pb": data}, "m.pb"),
    ("constant", lambda data: {"m.pb": made.constant(data)}, "m.pb"),
    ("meta graph", lambda data: {"m.meta": data}, "m.meta"),
    ("SavedModel", lambda data: {"saved_model.pb": data}, "saved_model.pb"),
    ("state", lambda data: {"checkpoint": data}, "checkpoint"),
]
NUMBERS = {name: number for number, (name, _, _) in enumerate(FORMS)}


def inputs(directory: Path) -> Iterable[bytes]:
    """Inputs that are sound: the small files of a set of checkpoints."""
    for path in sorted(directory.rglob("*")):
        data = path.read_bytes() if path.is_file() and path.stat().st_size < 1 << 16 else b""
        if path.suffix == ".index":
            rest = b"".join(other.read_bytes() for other in sorted(path.parent.glob(f"{path.stem}.data-*")))
            yield bytes([NUMBERS["bundle"]]) + len(data).to_bytes(2, "little") + data + rest
            yield bytes([NUMBERS["block"]]) + data[:-53]
        elif path.suffix in (".pb", ".meta"):
            name = {"saved_model.pb": "SavedModel"}.get(path.name, "meta graph" if path.suffix == ".meta" else "graph")
            yield bytes([NUMBERS[name]]) + data
        elif path.name == "checkpoint":
            yield bytes([NUMBERS["state"]]) + data
        elif path.name.startswith("old.ckpt"):
            yield bytes([NUMBERS["V1"]]) + data
    entry = made.entry(data=DATA[:8])
    whole = made.entry(1, (4,), size=0, checksum=0, slices=[((0, 2),), ((2, 2),)])
    yield bytes([NUMBERS["entries"]]) + b"".join(bytes([len(part)]) + part for part in (entry, whole, entry))
    yield bytes([NUMBERS["header"]]) + made.HEADER
    yield bytes([NUMBERS["Snappy"]]) + b"\x14\x10abcde\x2e\x05\x00\x00z"
    yield bytes([NUMBERS["strings"]]) + b"\x02\x01\x00\x00\x00\x00\x00abc"
    yield bytes([NUMBERS["V1 header"]]) + made.v1_meta(b"v", (2,), 1, [((0, -1),)])
    yield bytes([NUMBERS["V1 values"]]) + b"\x03\x02\x3a\x02\x05\x06"
    yield bytes([NUMBERS["constant"]]) + made.tensor_of((2,), rest=made.message_field(5, DATA[:8]))


def attempt(data: bytes, folder: Path) -> None:
    """Read what an input makes; an error other than CheckpointError, or too much memory, is a finding."""
    _, make, name = FORMS[data[0] % len(FORMS)] if data else FORMS[0]
    files = make(data[1:])
    for file, content in files.items():
        (folder / file).write_bytes(content)
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    try:
        _read(folder / name)
    except CheckpointError:
        pass
    finally:
        for file in files:
            (folder / file).unlink()
    peak = tracemalloc.get_traced_memory()[1] - before
    most = MEMORY_FACTOR * sum(map(len, files.values())) + MEMORY_FLOOR
    if peak > most:
        raise MemoryError(f"expected at most {most} bytes, got {peak}")


def _read(path: Path) -> None:
    if path.suffix == ".meta":
        for node in read_graph(path).nodes:
            for name in node.attrs:
                _ = node.attrs[name]
        return
    with open_checkpoint(path) as checkpoint:
        for name in checkpoint:
            try:
                _ = checkpoint.variables[name]
                _ = checkpoint[name]
            except CheckpointError:  # the other variables may still be read
                continue


def main() -> None:
    """Run under atheris, from the golden checkpoints on."""
    crc32c(bytes(1 << 20))  # its tables are made once and count for no input
    tracemalloc.start()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as corpus:
        for number, data in enumerate(inputs(Path(__file__).parents[1] / "golden" / "checkpoints")):
            (Path(corpus) / f"{number:03d}").write_bytes(data)
        options = ["-max_len=65536", "-timeout=5", "-rss_limit_mb=2048", *sys.argv[1:], corpus]
        atheris.Setup([sys.argv[0], *options], lambda data: attempt(data, Path(folder)))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
