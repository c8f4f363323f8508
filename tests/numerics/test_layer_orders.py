"""Any order of the gates' columns, joined or split kernels: native against the reference."""

from __future__ import annotations

import itertools

import pytest
import torch

from cellweave.ops.common import LayerCall, RunContext
from cellweave.specs import CellSpec, GRUSpec, LSTMSpec, RunSpec
from helpers.layer_cases import backend_of
from helpers.tolerances import assert_close

GRUS = [
    GRUSpec(5, "tanh", "sigmoid", after, "".join(order), False, biased, transposed=transposed)
    for order in itertools.permutations("ruc")
    for after in (False, True)
    for biased in (False, True)
    for transposed in (False, True)
]
LSTMS = [
    LSTMSpec(5, gate_order=order, forget_bias=0.5, joined_kernel=joined, peepholes=True, transposed=transposed)
    for order in ("ijfo", "ifjo", "jofi", "ofij", "fijo")
    for joined, transposed in ((False, False), (True, False), (False, True))
]


def _name(cell: CellSpec) -> str:
    layout = "by-unit" if cell.transposed else "joined" if cell.joined_kernel else "split"
    if isinstance(cell, GRUSpec):
        return f"gru-{cell.gate_order}-{'after' if cell.reset_after else 'before'}-{'biased' * cell.use_bias}-{layout}"
    return f"lstm-{cell.gate_order}-{layout}"  # type: ignore[union-attr]


@pytest.mark.parametrize("cell", GRUS + LSTMS, ids=_name)
def test_against_the_reference(cell: CellSpec) -> None:
    run = RunSpec(cell)
    reason = backend_of(run, "native").refuses(run, RunContext(torch.float64, "cpu", 4, 3, 6, True, False))
    if reason is not None:
        pytest.skip(f"native: {reason}")

    def normal(*shape: int) -> torch.Tensor:
        return (0.5 * torch.randn(shape, dtype=torch.float64)).requires_grad_()

    weights = {weight.name: normal(*weight.shape) for weight in cell.weights(6)}
    call = LayerCall(run, normal(4, 3, 6), tuple(normal(3, 5) for _ in range(1 + isinstance(cell, LSTMSpec))), weights)
    results = []
    for name in ("native", "reference"):
        out, last, _ = backend_of(run, name).run(call)
        loss = (out * torch.arange(5)).sum() + sum((leaf.cos()).sum() for leaf in last)
        results.append([out, *last, *torch.autograd.grad(loss, [call.x, *call.state, *weights.values()])])
    for number, (got, expected) in enumerate(zip(*results, strict=True)):
        assert_close(f"result {number}", got, expected, 1e-14)
