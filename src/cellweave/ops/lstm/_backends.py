"""The ways to run this recurrence over a sequence."""

from __future__ import annotations

from cellweave.ops.lstm._native import NATIVE
from cellweave.ops.lstm._reference import REFERENCE
from cellweave.ops.lstm._torch import TORCH
from cellweave.ops.lstm._triton import TRITON

BACKENDS = (NATIVE, TORCH, TRITON, REFERENCE)
