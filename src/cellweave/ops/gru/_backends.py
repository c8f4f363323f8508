"""The ways to run this recurrence over a sequence."""

from __future__ import annotations

from cellweave.ops.gru._native import NATIVE
from cellweave.ops.gru._reference import REFERENCE
from cellweave.ops.gru._torch import TORCH
from cellweave.ops.gru._triton import TRITON

BACKENDS = (NATIVE, TORCH, TRITON, REFERENCE)
