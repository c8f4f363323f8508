"""The ways to run this recurrence over a sequence."""

from __future__ import annotations

from cellweave.ops.rnn._native import NATIVE
from cellweave.ops.rnn._reference import REFERENCE
from cellweave.ops.rnn._torch import TORCH
from cellweave.ops.rnn._triton import TRITON

BACKENDS = (NATIVE, TORCH, TRITON, REFERENCE)
