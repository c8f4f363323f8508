"""Times layers on a CUDA device, all in one command: `make bench-gpu`, or `python benchmarks/run_gpu.py`.

It needs torch, Triton and this tree, and ends within its budget. Every result goes to a .jsonl file as soon as it is
there, so that a run that is cut off leaves what it found; the table comes last, and `--report FILE` makes it again.
docs/explanation/gpu.md says what is measured and how to read it. `--device cpu` tries the command itself, with tiny
sizes: its numbers mean nothing, and it writes nowhere but to benchmarks/results/partial and outside of benchmarks.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from gpu.plan import BUDGET
from gpu.session import Session
from gpu.table import read, short, table
from processes import AskedProcess, ContestantError

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RESULTS = HERE / "results"
PARTIAL = RESULTS / "partial"
#: Processes that compile at the same time: each has a context on the device, of about half a GiB.
_MOST_COMPILERS = 16
_CACHE = ROOT / ".cache" / "bench"


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: a trial (default cuda)")
    parser.add_argument("--budget", type=float, default=BUDGET, metavar="SECONDS",
                        help=f"for everything, compiling included (default {BUDGET:g})")  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="DIR", default=PARTIAL,
                        help="where results go (default benchmarks/results/partial)")  # fmt: skip
    parser.add_argument("--report", type=Path, metavar="FILE", help="only write the table of a .jsonl file beside it")
    options = parser.parse_args(arguments)
    if options.budget <= 0:
        parser.error(f"--budget: expected seconds above 0, got {options.budget:g}.")
    out = options.out.resolve()
    if options.device == "cpu" and out.is_relative_to(RESULTS) and not out.is_relative_to(PARTIAL):
        parser.error(
            f"--out: expected a folder outside of {os.path.relpath(RESULTS)} because a trial on the processor is no "
            f"result, got {options.out}."
        )
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    if options.report is not None:
        _write_table(options.report)
        return 0
    if options.device == "cuda" and (missing := _no_device()) is not None:
        print(f"bench-gpu: expected a CUDA device, got none: {missing}. Nothing was measured.", file=sys.stderr)
        return 1
    options.out.mkdir(parents=True, exist_ok=True)
    kind = "gpu" if options.device == "cuda" else "trial"
    lines = options.out / f"{kind}-{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}.jsonl"
    with _environment() as environment:

        def start() -> AskedProcess:
            command = [sys.executable, "-m", "gpu.jobs", options.device]
            return AskedProcess(command, environment, lines.with_suffix(".log"))

        compilers = min(_MOST_COMPILERS, os.cpu_count() or 1) if options.device == "cuda" else 0
        session = Session(options.device, options.budget, lines, start, compilers)
        try:
            session.run()
        except ContestantError as error:
            print(f"bench-gpu: no process could be started: {error}; see {lines.with_suffix('.log')}", file=sys.stderr)
            return 1
        finally:
            session.close()
            if lines.exists():
                _write_table(lines)
    return 0


def _no_device() -> str | None:
    try:
        import torch
    except ImportError as error:
        return str(error)
    if torch.cuda.is_available():
        return None
    return "torch sees none" if torch.version.cuda else f"torch {torch.__version__} was built without CUDA"


def _write_table(lines: Path) -> None:
    rows, path = read(lines), lines.with_suffix(".md")
    path.write_text(table(rows), encoding="utf-8")
    print("\n".join(["", *short(rows), f"bench-gpu: written to {os.path.relpath(lines)} and {os.path.relpath(path)}"]))


@contextmanager
def _environment() -> Iterator[dict[str, str]]:
    """The caller's, with what processes of a run need; cellweave is found in this tree where it is not installed."""
    paths = [str(HERE)]
    with tempfile.TemporaryDirectory() as folder:
        if not _is_installed():
            _note_version(Path(folder))
            paths += [str(ROOT / "src"), folder]
        given = os.environ.get("PYTHONPATH")
        caches: dict[str, Any] = {
            "TRITON_CACHE_DIR": str(_CACHE / "triton"),
            "TORCHINDUCTOR_CACHE_DIR": str(_CACHE / "inductor"),
            "TORCHINDUCTOR_COMPILE_THREADS": "4",  # in each of the processes that compile
            "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # the same bits from call to call
        }
        yield {**caches, **os.environ, "PYTHONPATH": os.pathsep.join([*paths, *([given] if given else [])])}


def _is_installed() -> bool:
    try:
        metadata.version("cellweave")
    except metadata.PackageNotFoundError:
        return False
    return True


def _note_version(folder: Path) -> None:
    """What tells Python the version of a package that is not installed."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    version = project.split('\nversion = "', 1)[1].split('"', 1)[0]
    about = folder / f"cellweave-{version}.dist-info" / "METADATA"
    about.parent.mkdir()
    about.write_text(f"Metadata-Version: 2.1\nName: cellweave\nVersion: {version}\n", encoding="utf-8")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what is there is still put into a table
    sys.exit(main())
