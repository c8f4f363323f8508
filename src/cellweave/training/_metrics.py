"""The metrics file: one JSON object per line, cut back to a snapshot's place when a run resumes."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

#: Largest exponent whose exp is a float; beyond it a perplexity is as good as infinite.
_LARGEST_LOSS = 700.0


def bits_per_token(loss: float) -> float:
    """A loss in nats per token as bits per token (per character, per word)."""
    return loss / math.log(2.0)


def perplexity(loss: float) -> float:
    """A loss in nats per token as perplexity."""
    return math.exp(min(loss, _LARGEST_LOSS))


def loss_fields(loss: float) -> dict[str, float]:
    """A loss under its three names: `loss` (nats per token), `bits` and `perplexity`."""
    return {"loss": loss, "bits": bits_per_token(loss), "perplexity": perplexity(loss)}


class MetricsFile:
    """Appends lines to a metrics file.

    Args:
        path: The file; made if it is missing.
        offset: Bytes to keep of an existing file; what lies beyond is newer than the snapshot that a run resumes from.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self._file = path.open("ab")
        self._file.truncate(min(offset, os.fstat(self._file.fileno()).st_size))

    def write(self, event: str, step: int, values: dict[str, Any]) -> None:
        """Append a line: what happened, after how many steps, and its numbers."""
        line = json.dumps({"event": event, "step": step, **values}, allow_nan=False)
        self._file.write(line.encode() + b"\n")
        self._file.flush()

    def sync(self) -> int:
        """Force all lines to the disk; returns the file's length in bytes."""
        os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All lines of a metrics file; a last line that a kill left unfinished is left out."""
    lines = path.read_bytes().split(b"\n")[:-1]
    return [json.loads(line) for line in lines]
