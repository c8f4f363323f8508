"""The only reader of environment variables. docs/reference/environment.md lists them."""

from __future__ import annotations

import os

from cellweave._errors import BackendError

NATIVE = "CELLWEAVE_NATIVE"
ISA = "CELLWEAVE_ISA"


def native_is_wanted() -> bool:
    """False if `CELLWEAVE_NATIVE` is 0: the native core stays off.

    Raises:
        BackendError: a value other than 0, 1 or nothing.
    """
    value = os.environ.get(NATIVE, "")
    if value not in ("", "0", "1"):
        raise BackendError(
            f"{NATIVE}: expected 0 or 1, got {value!r}. Unset it to use the native core where it is built."
        )
    return value != "0"


def wanted_isa() -> str | None:
    """The instruction set that `CELLWEAVE_ISA` names; None leaves the choice to the native core."""
    return os.environ.get(ISA) or None
