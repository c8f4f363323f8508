"""torch's exporter without what it says of itself."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

#: Says at every export that torchvision is not installed.
_CHATTY = "torch.onnx._internal.exporter._registration"
#: Warnings about torch's own parts, and about inputs that share an axis, as lengths and rows do.
_TORCHS_OWN = (".isinstance.treespec, LeafSpec.. is deprecated", "# The axis name: .* will not be used")


@contextmanager
def without_torchs_own_warnings() -> Iterator[None]:
    """Leave out warnings that no caller of cellweave can do anything about."""
    logger = logging.getLogger(_CHATTY)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for message in _TORCHS_OWN:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        logger.setLevel(level)
