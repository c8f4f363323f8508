"""torch's exporter without what it says of itself."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

#: Say at every export that torchvision is not installed, and which operators of a `Scan` are not folded.
_CHATTY = ("torch.onnx._internal.exporter._registration", "onnxscript.optimizer._constant_folding")
#: Warnings about torch's own parts, and about inputs that share an axis, as lengths and rows do.
_TORCHS_OWN = (".isinstance.treespec, LeafSpec.. is deprecated", "# The axis name: .* will not be used")


@contextmanager
def without_torchs_own_warnings() -> Iterator[None]:
    """Leave out warnings that no caller of cellweave can do anything about."""
    loggers = [logging.getLogger(name) for name in _CHATTY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for message in _TORCHS_OWN:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
