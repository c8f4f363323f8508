"""Kernels run step by step, as on a device where one for the whole sequence does not fit."""

from __future__ import annotations

import pytest

from cellweave.ops.common import _triton_backend
from cellweave.ops.common._triton_schedule import Chip
from cellweave.ops.gru import _triton as gru
from cellweave.ops.lstm import _triton as lstm
from cellweave.ops.rnn import _triton as rnn

#: Holds no program at all.
TINY = Chip(1, 0)


def take_steps(patch: pytest.MonkeyPatch, chip: Chip = TINY) -> None:
    """Let the device be one on which nothing fits."""
    for module in (_triton_backend, lstm, gru, rnn):
        patch.setattr(module, "chip", lambda device=None: chip)
