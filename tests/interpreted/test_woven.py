"""A composition woven onto the kernels, from the public call down."""

from __future__ import annotations

import pytest
import torch

import cellweave as cw
from helpers.tolerances import assert_close


def _outputs(backend: str) -> tuple[list[torch.Tensor], tuple[str, ...]]:
    torch.manual_seed(3)
    cell = cw.MultiRNNCell(
        [
            cw.DropoutWrapper(cw.LSTMCell(5, use_peepholes=True), state_keep_prob=0.7, variational_recurrent=True,
                              input_size=5, dtype=torch.float32, seed=4),
            cw.ResidualWrapper(cw.DropoutWrapper(cw.GRUCell(5), output_keep_prob=0.6, seed=5)),
        ]
    )  # fmt: skip
    inputs = torch.randn(3, 4, 5, requires_grad=True)
    cell.build([3, 5])
    with cw.use_backend(backend):
        plan = cw.explain(cell, inputs, sequence_length=torch.tensor([4, 2, 0]), show=False)
        out, state = cw.dynamic_rnn(cell, inputs, sequence_length=torch.tensor([4, 2, 0]), dtype=torch.float32)
    leaves = [out, *state[0], state[1]]
    weights = list(cell.parameters())
    grads = torch.autograd.grad(torch.stack([leaf.sin().sum() for leaf in leaves]).sum(), [inputs, *weights])
    return [*leaves, *grads], plan.backends


def test_woven_as_the_reference() -> None:
    expected, _ = _outputs("reference")
    got, backends = _outputs("triton")
    assert backends == ("triton", "triton")
    for number, (a, b) in enumerate(zip(got, expected, strict=True)):
        assert_close(f"result {number}", a, b, 2e-6)


def test_with_gates_computed_again() -> None:
    expected, _ = _outputs("triton")
    with cw.recompute_gates():
        got, _ = _outputs("triton")
    for number, (a, b) in enumerate(zip(got, expected, strict=True)):
        assert_close(f"result {number}", a, b, 2e-6)


def test_what_it_cannot_run_it_says() -> None:
    cell = cw.LSTMCell(5, dtype=torch.float64)
    with (
        cw.use_backend("triton"),
        pytest.raises(cw.BackendError, match="float32, float16 and bfloat16, not in float64"),
    ):
        cw.dynamic_rnn(cell, torch.zeros(2, 3, 4, dtype=torch.float64), dtype=torch.float64)
