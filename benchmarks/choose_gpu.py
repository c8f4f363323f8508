"""Makes the table by which cellweave chooses on CUDA devices out of a run of `make bench-gpu`: choose_gpu.py FILE.jsonl

Of each class of sizes of a recurrence in a dtype it takes the sums of the times of all its cases, cuDNN through
cellweave (`torch`) beside our own kernels (`triton`), and keeps the faster. Where both differ by less than the noise,
or one of them has no time, there is no entry: the order that stands in weave/_choice.py decides.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpu.plan import OURS_ON_CUDNN, TRITON
from gpu.table import case_of, read

from cellweave.weave import _cuda_choice

FILE = Path(_cuda_choice.__file__).with_suffix(".json")
#: Backends by the names of their contestants.
_BACKENDS = {OURS_ON_CUDNN: "torch", TRITON: "triton"}
#: By the names of the library's dtypes. float32 without TF32 has no entries: torch's default has it.
_DTYPES = {"bfloat16": "bfloat16", "float16": "float16", "tf32": "float32"}
#: A difference of less than this share is noise.
_NOISE = 0.03


def choices(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The content of the table's file.

    Raises:
        ValueError: the run was a trial on the processor, or its first line is missing.
    """
    about = next((row for row in rows if "versions" in row), None)
    if about is None or about["trial"]:
        raise ValueError("choose_gpu: expected a run on a CUDA device, got a trial. Its times mean nothing.")
    sums: dict[_cuda_choice.Key, dict[str, float]] = {}
    for row in rows:
        key, times = _key(row), _times(row)
        if key is not None and len(times) == len(_BACKENDS):
            found = sums.setdefault(key, dict.fromkeys(times, 0.0))
            for backend, ms in times.items():
                found[backend] += ms
    entries = [
        {**key._asdict(), "backend": min(times, key=times.__getitem__), "ms": times}
        for key, times in sums.items()
        if min(times.values()) < (1 - _NOISE) * max(times.values())
    ]
    return {
        "made by": "benchmarks/choose_gpu.py; never edited by hand", "device": about["device"],
        "when": about["when"], "versions": about["versions"], "choices": entries,
    }  # fmt: skip


def _key(row: dict[str, Any]) -> _cuda_choice.Key | None:
    if row["phase"] != "ours" or "contestants" not in row or row["dtype"] not in _DTYPES:
        return None
    case = case_of(row)
    units, rows = _cuda_choice.UNITS, _cuda_choice.ROWS
    return _cuda_choice.Key(
        case.kind, _DTYPES[case.dtype], case.training, _cuda_choice.size_class(case.H, units),
        _cuda_choice.size_class(case.B, rows),
    )  # fmt: skip


def _times(row: dict[str, Any]) -> dict[str, float]:
    found = row.get("contestants", {})
    return {backend: found[name]["ms"] for name, backend in _BACKENDS.items() if "ms" in found.get(name, {})}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path, help="a gpu-….jsonl file of benchmarks/run_gpu.py")
    parser.add_argument("--out", type=Path, default=FILE, help=f"default {os.path.relpath(FILE)}")
    options = parser.parse_args(arguments)
    try:
        found = choices(read(options.result))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"choose_gpu: {len(found['choices'])} choices written to {os.path.relpath(options.out)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
