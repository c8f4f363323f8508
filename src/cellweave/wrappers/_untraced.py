"""How compiled code draws a mask. Imported while torch.compile runs: it has then imported itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


@torch.compiler.disable(reason="cellweave: a random mask is drawn here, from a stream that is no tensor")  # type: ignore[untyped-decorator, no-untyped-call]
def outside(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function outside of compiled graphs."""
    return function(*args)
