"""Names of parametrized cases."""

from __future__ import annotations

import re
from typing import Any


def named(value: Any) -> str:
    """The value as text without its address, which differs between processes."""
    return re.sub(r" (at|of type object at) 0x[0-9a-f]+", "", repr(value))
