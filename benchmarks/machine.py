"""What a result was measured on."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any


def processor() -> str:
    models = _fields("model name")
    return models[0] if models else platform.processor() or platform.machine()


def vectors() -> str:
    """The widest vector instructions that the machine offers."""
    flags = set(" ".join(_fields("flags")[:1]).split())
    known = {"avx512f": "avx512", "avx2": "avx2", "sse2": "sse2"}
    return next((name for flag, name in known.items() if flag in flags), platform.machine().lower())


def machine_class(threads: int) -> str:
    """A short name for machines that such results can be compared on: maker and model, vectors, threads."""
    model = re.sub(r"\(r\)|\(tm\)|\bcpu\b|\bprocessor\b|@.*", " ", processor().lower())
    words = re.findall(r"[a-z0-9]+", model)[:4]
    return "-".join([*words, vectors(), f"{threads}t"])


def physical_cores() -> int:
    """Cores this process may use; threads that share a core count once where the system tells."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    siblings = set()
    for cpu in allowed:
        shared = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        siblings.add(shared.read_text() if shared.exists() else str(cpu))
    return max(1, len(siblings))


def description(threads: int) -> dict[str, Any]:
    return {
        "processor": processor(),
        "vectors": vectors(),
        "cores": physical_cores(),
        "threads": threads,
        "system": platform.system(),
        "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "dtype": "float32",
    }


def _fields(name: str) -> list[str]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    return [line.split(":", 1)[1].strip() for line in lines if line.split(":", 1)[0].strip() == name]
