"""The only reader of environment variables. docs/reference/environment.md lists them."""

from __future__ import annotations

import os

from cellweave._errors import BackendError

NATIVE = "CELLWEAVE_NATIVE"
ISA = "CELLWEAVE_ISA"
STEP_GRAPHS = "CELLWEAVE_STEP_GRAPHS"


def native_is_wanted() -> bool:
    """False if `CELLWEAVE_NATIVE` is 0: the native core stays off.

    Raises:
        BackendError: a value other than 0, 1 or nothing.
    """
    return _switch(NATIVE, "Unset it to use the native core where it is built.") != "0"


def wanted_isa() -> str | None:
    """The instruction set that `CELLWEAVE_ISA` names; None leaves the choice to the native core."""
    return os.environ.get(ISA) or None


def step_graphs_are_wanted() -> bool:
    """True if `CELLWEAVE_STEP_GRAPHS` is 1: kernels of single steps are put into CUDA graphs.

    Raises:
        BackendError: a value other than 0, 1 or nothing.
    """
    return _switch(STEP_GRAPHS, "Unset it to launch every step by itself.") == "1"


def _switch(name: str, advice: str) -> str:
    value = os.environ.get(name, "")
    if value not in ("", "0", "1"):
        raise BackendError(f"{name}: expected 0 or 1, got {value!r}. {advice}")
    return value
