"""The registry of error probes: one function per id of a golden set's errors.json."""

from __future__ import annotations

import builtins
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

import cellweave as cw

#: TensorFlow's own exception types and what is raised in their place.
FOREIGN: dict[str, type[Exception]] = {"InvalidArgumentError": ValueError}
#: Types that are raised as Python itself raises them; all others come from the library's own tree.
BARE = (IndexError, NotImplementedError, AttributeError)


@dataclass(frozen=True)
class Probe:
    """What to do, and the facts that its message must name."""

    act: Callable[[], Any]
    says: str


PROBES: dict[str, Probe] = {}


def probe(identity: str, says: str = "") -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Register the probe of an id; `says` is a regular expression that its message must match."""

    def register(act: Callable[[], Any]) -> Callable[[], Any]:
        assert identity not in PROBES, f"two probes for {identity}"
        PROBES[identity] = Probe(act, says)
        return act

    return register


def exception_type(name: str) -> type[BaseException]:
    """The Python type that stands for a golden's exception name."""
    found = FOREIGN.get(name) or getattr(builtins, name, None)
    if not (isinstance(found, type) and issubclass(found, BaseException)):
        pytest.fail(f"the golden harness does not know the exception {name!r}: add it to helpers/probes.py")
    return found


def expect_error(
    act: Callable[[], Any], kind: type[BaseException] | tuple[type[BaseException], ...], says: str = ""
) -> None:
    """Fail unless `act` raises `kind`, from the library's own tree, with a message in its form that matches `says`."""
    with pytest.raises(kind, match=says or None) as info:
        act()
    if not isinstance(info.value, BARE):
        assert isinstance(info.value, cw.CellweaveError), f"raised by accident: {info.value!r}"
    if isinstance(info.value, cw.CellweaveError):
        assert re.search(r"^[^:]+: .*expected .*got ", str(info.value), re.DOTALL), f"not in form: {info.value}"


def run_probe(entry: dict[str, Any]) -> None:
    """Check one entry of errors.json; an id without a probe fails by name."""
    known = PROBES.get(entry["id"])
    if known is None:
        pytest.fail(
            f"no probe for {entry['id']!r} ({entry['symbol']}: {entry['condition']}); add it to helpers/probes_*.py"
        )
    with cw.VariableStore():
        if entry["raises"] is None:
            known.act()
        else:
            expect_error(known.act, exception_type(entry["raises"]), known.says)
