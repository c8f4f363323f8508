"""Yardsticks: how fast torch multiplies matrices at the same number of threads."""

from __future__ import annotations

from typing import Any

import torch
from program import Program
from registry import GATES, LARGE_PRODUCT, Case


def make(name: str, case: Case) -> Program:
    """One large product for "sgemm"; for "own products" all of the case's training step, at their own shapes."""
    return Program(_large() if name == "sgemm" else _own(case), dict)


def _large() -> Any:
    m, k, n = LARGE_PRODUCT
    a, b, out = torch.randn(m, k), torch.randn(k, n), torch.empty(m, n)
    return lambda: torch.mm(a, b, out=out)


def _own(case: Case) -> Any:
    rows, wide = case.T * case.B, GATES[case.kind] * case.H
    x, h = torch.randn(rows, case.I), torch.randn(rows, case.H)
    kernel, recurrent = torch.randn(case.I, wide), torch.randn(case.H, wide)
    gates = torch.empty(rows, wide)
    step, gate_step = torch.empty(case.B, case.H), torch.empty(case.B, wide)
    d_x, d_kernel, d_recurrent = torch.empty_like(x), torch.empty_like(kernel), torch.empty_like(recurrent)

    def call() -> None:
        torch.mm(x, kernel, out=gates)
        for now in h.split(case.B):
            torch.mm(now, recurrent, out=gate_step)
        for now in gates.split(case.B):
            torch.mm(now, recurrent.T, out=step)
        torch.mm(gates, kernel.T, out=d_x)
        torch.mm(x.T, gates, out=d_kernel)
        torch.mm(h.T, gates, out=d_recurrent)

    return call
