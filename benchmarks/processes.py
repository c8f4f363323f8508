"""Worker processes: started in their environment when first needed, asked with a deadline, started anew if one ends."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from registry import CONTESTANTS

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = HERE.parent / ".cache" / "bench"
#: One process for each, and one that only measures memory, by forking.
MEMORY = "memory"
_SLOWEST_ANSWER = 300.0  # seconds
_SLOWEST_END = 10.0


class ContestantError(Exception):
    """A contestant, or its worker, could not do what it was asked; the text says why."""


def interpreter(environment: str) -> Path:
    return Path(sys.executable) if environment == "project" else ENVIRONMENTS / environment / "bin" / "python"


def installed(environment: str) -> bool:
    return environment == "project" or (ENVIRONMENTS / environment / ".ready").exists()


class AskedProcess:
    """A process that answers lines, and the pipes to it."""

    def __init__(self, command: Sequence[str | Path], environment: Mapping[str, str], log: Path) -> None:
        self._log = log.open("ab")
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, env=environment
        )
        self._answers: queue.Queue[bytes] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put(b"")

    def ask(self, deadline: float, **request: Any) -> dict[str, Any]:
        """Its answer.

        Raises:
            ContestantError: it failed, took longer than `deadline` seconds, or its process ended.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            line = self._answers.get(timeout=deadline)
        except queue.Empty:
            self.close()
            raise ContestantError(f"no answer in {deadline:g} s") from None
        except (BrokenPipeError, ValueError):  # it ended before, and its pipe may be closed
            line = b""
        if not line:
            self.close()
            raise ContestantError("its process ended")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ContestantError(answer["error"])
        return answer

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        """End the process, which may be busy or dead already; one that a device holds on to is left to itself."""
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_SLOWEST_END)
        self._reader.join(_SLOWEST_END)
        for stream in (self._process.stdin, self._process.stdout, self._log):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()


class WorkerProcess(AskedProcess):
    """A worker with its environment's libraries."""

    def __init__(self, environment: str, threads: int, log: Path) -> None:
        super().__init__([interpreter(environment), HERE / "worker.py"], _environment(threads), log)


def _environment(threads: int) -> dict[str, str]:
    """The caller's, with every library's number of threads set."""
    count = str(threads)
    return {
        **os.environ,
        "BENCH_THREADS": count,
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "NPROC": count,  # XLA's thread pools
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "",
        "JAX_PLATFORMS": "cpu",
        "TORCHINDUCTOR_CACHE_DIR": str(ENVIRONMENTS / "inductor"),
        "PYTHONPATH": str(HERE),
    }


class Workers:
    """All processes of a run, by name."""

    def __init__(self, threads: int, log: Path) -> None:
        self._threads, self._log = threads, log
        self._running: dict[str, WorkerProcess] = {}

    def get(self, process: str) -> WorkerProcess:
        worker = self._running.get(process)
        if worker is None or not worker.running:
            environments = {contestant.process: contestant.environment for contestant in CONTESTANTS}
            worker = WorkerProcess(environments.get(process, "project"), self._threads, self._log)
            self._running[process] = worker
        return worker

    def ask(self, process: str, deadline: float = _SLOWEST_ANSWER, **request: Any) -> dict[str, Any]:
        return self.get(process).ask(deadline, **request)

    def drop_all(self) -> None:
        """Forget all programs that are set up."""
        for worker in self._running.values():
            if worker.running:
                worker.ask(_SLOWEST_ANSWER, do="drop")

    def close(self) -> None:
        for worker in self._running.values():
            worker.close()
