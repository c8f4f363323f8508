"""Which backends there are, and which one a caller asked for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from cellweave._errors import ArgumentError
from cellweave.ops import gru, lstm, rnn
from cellweave.ops.common import Backend, RunContext
from cellweave.specs import CellSpec, GRUSpec, LSTMSpec, RNNSpec, RunSpec

#: The backends of each recurrence, by the type of its spec.
BACKENDS: dict[type, tuple[Backend, ...]] = {
    RNNSpec: rnn.BACKENDS,
    GRUSpec: gru.BACKENDS,
    LSTMSpec: lstm.BACKENDS,
}
REFERENCE = "reference"
#: In a plan: the backend that was asked for cannot run the layer.
NOTHING = "none"


class _Asked(threading.local):
    name: str | None = None
    for_files: bool = False


_asked = _Asked()


def asked_backend() -> str | None:
    """The backend that `use_backend` asks for here, or None: choose."""
    return _asked.name


def backends_of(spec: CellSpec) -> tuple[Backend, ...]:
    """The backends that know this recurrence."""
    return BACKENDS[type(spec)]


def backend_names() -> tuple[str, ...]:
    """Names of all backends, each once."""
    return tuple(dict.fromkeys((REFERENCE, *(record.name for known in BACKENDS.values() for record in known))))


def missing_backends() -> dict[str, str]:
    """Why each backend is off on this machine: the reason that it gives to a plain layer of every recurrence.

    Asked for each kind of device that is there; the reason is the one for the last of them.
    """
    devices = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    contexts = [RunContext(torch.float32, device, 1, 1, 1, needs_grad=False, transforms=False) for device in devices]
    found: dict[str, list[str | None]] = {name: [] for name in backend_names()}
    for kind, records in BACKENDS.items():
        for record in records:
            reasons = [record.refuses(RunSpec(kind(1)), context) for context in contexts]
            found[record.name].append(reasons[-1] if all(reasons) else None)
    return {name: reasons[0] or "" for name, reasons in found.items() if reasons and all(reasons)}


@contextmanager
def use_backend(name: str | None) -> Iterator[None]:
    """Run unrolls on one backend only, in this thread, while the block lasts.

    Args:
        name: "reference": step by step, cell by cell. "native": cellweave's own C++ time loops. "torch": torch's fused
            layers, on CUDA devices cuDNN's. "triton": cellweave's own kernels on CUDA devices. None: choose again for
            each layer, as outside every such block.
    Raises:
        ArgumentError: no backend has this name. BackendError, from an unroll inside: the backend cannot run a layer
            of it; the message gives the reason for each.
    """
    if name is not None and name not in backend_names():
        raise ArgumentError(f"use_backend: expected one of {', '.join(backend_names())} or None, got {name!r}.")
    outer, _asked.name = _asked.name, name
    try:
        yield
    finally:
        _asked.name = outer


def writes_files() -> bool:
    """Whether a graph is traced here for `graphs_for_files`."""
    return _asked.for_files


@contextmanager
def graphs_for_files() -> Iterator[None]:
    """In this thread, graphs have the native operators, whatever runs their layers and on whichever device.

    For what translates a graph and never runs it: those operators say in their arguments what a layer computes.
    """
    outer, _asked.for_files = _asked.for_files, True
    try:
        yield
    finally:
        _asked.for_files = outer
