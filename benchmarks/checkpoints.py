"""Speed and memory of reading and writing checkpoints.

`python benchmarks/checkpoints.py [--megabytes N] [--folder DIR]`. Memory is what the process has beyond its state
before the first write: its own pages (`RssAnon`), and its peak with mapped pages.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from cellweave.checkpoint import open_checkpoint, write_checkpoint

TENSOR_MEGABYTES = 16
VARIABLES = 10_000
ROUNDS = 5


class Made(Mapping[str, np.ndarray]):
    """Tensors that exist while they are looked at."""

    def __init__(self, count: int) -> None:
        self._names = [f"layer_{number:04d}/kernel" for number in range(count)]

    def __getitem__(self, name: str) -> np.ndarray:
        seed = int(name[6:10])
        return np.random.default_rng(seed).random(TENSOR_MEGABYTES << 18, np.float32)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def own_memory() -> float:
    """Megabytes of this process's own pages."""
    text = Path("/proc/self/status").read_text()
    return int(text.split("RssAnon:")[1].split()[0]) / 1024


def peak_memory() -> float:
    """Megabytes at the highest, mapped pages included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def best(action: Callable[[], object]) -> float:
    """Seconds of the fastest of several rounds."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return min(times)


def read_raw(path: Path) -> None:
    """The file as plain reads into one buffer."""
    buffer = bytearray(1 << 20)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def read_raw_whole(path: Path) -> None:
    """The file into memory of its own."""
    path.read_bytes()


def read_bundle(prefix: Path, verify: bool) -> None:
    """Every tensor, one at a time."""
    with open_checkpoint(prefix, verify=verify) as checkpoint:
        for name in checkpoint:
            checkpoint[name].max()


def fetch_bundle(prefix: Path, verify: bool) -> None:
    """Every tensor, one at a time, without looking at its numbers."""
    with open_checkpoint(prefix, verify=verify) as checkpoint:
        for name in checkpoint:
            _ = checkpoint[name]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--folder", default=None)
    options = parser.parse_args()
    tensors = Made(options.megabytes // TENSOR_MEGABYTES)
    _ = tensors["layer_0000/kernel"]
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        prefix = Path(folder) / "m"
        before, peak = own_memory(), peak_memory()
        start = time.perf_counter()
        write_checkpoint(prefix, tensors)
        print(f"write {options.megabytes} MB, numbers drawn meanwhile: {time.perf_counter() - start:.2f} s")
        print(f"  own memory {own_memory() - before:+.1f} MB, peak {peak_memory() - peak:+.1f} MB")
        read_bundle(prefix, True)
        print(f"read them all: own memory {own_memory() - before:+.1f} MB, peak {peak_memory() - peak:+.1f} MB")
        with open_checkpoint(prefix) as checkpoint:
            write_checkpoint(Path(folder) / "copy", checkpoint)
        same = all(
            (prefix.parent / f"copy{end}").read_bytes() == (prefix.parent / f"m{end}").read_bytes()
            for end in (".index",)
        )
        print(f"copied ({'same table' if same else 'ANOTHER TABLE'}): peak {peak_memory() - peak:+.1f} MB")
        data = Path(folder) / "m.data-00000-of-00001"
        raw, whole = best(lambda: read_raw(data)), best(lambda: read_raw_whole(data))
        size = data.stat().st_size / 1e9
        print(f"raw file: {size / raw:.2f} GB/s into one buffer, {size / whole:.2f} GB/s into new memory")
        for verify in (True, False):
            fetched, looked = (
                best(lambda v=verify: fetch_bundle(prefix, v)),
                best(lambda v=verify: read_bundle(prefix, v)),
            )
            print(
                f"bundle, checksums {'verified' if verify else 'ignored'}: fetched {size / fetched:.2f} GB/s, "
                f"and each number looked at {size / looked:.2f} GB/s"
            )
        many = Path(folder) / "many"
        write_checkpoint(many, {f"scope_{n % 7}/layer_{n}/lstm_cell/kernel": np.float32(n) for n in range(VARIABLES)})
        print(f"open {VARIABLES} variables: {best(lambda: open_checkpoint(many).close()) * 1000:.0f} ms")

        def describe() -> None:
            with open_checkpoint(many) as checkpoint:
                assert len(list(checkpoint.variables.items())) == VARIABLES

        print(f"  and describe each: {best(describe) * 1000:.0f} ms")
        print(f"process {os.getpid()}: {len(tensors)} tensors of {TENSOR_MEGABYTES} MB")


if __name__ == "__main__":
    main()
