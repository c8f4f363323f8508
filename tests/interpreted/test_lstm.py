"""The LSTM's kernels, interpreted: values and gradients of everything against the oracle and the reference."""

from __future__ import annotations

import pytest
import torch

from cellweave.ops.common._triton_autograd import run_loop, with_products
from cellweave.ops.common._triton_schedule import pieces
from cellweave.ops.lstm import _triton
from cellweave.specs import LSTMSpec
from helpers.layer_cases import LayerCase, make_call, make_data
from helpers.layer_checks import check_layer
from helpers.tolerances import assert_same_bits
from helpers.triton_cases import kernel_cases, variant_named

pytestmark = pytest.mark.usefixtures("nan_poison")
LSTM, ALL = variant_named("lstm"), variant_named("all")


@pytest.mark.parametrize("case", kernel_cases(LSTMSpec), ids=lambda case: case.id)
def test_against_the_oracle(case: LayerCase) -> None:
    check_layer(case, "triton")


def test_groups_of_rows_do_not_wait_for_each_other() -> None:
    """19 rows are two groups, of which the second has three rows."""
    check_layer(LayerCase(ALL, 2, 19, 9, "rows", "ragged", "given", dtype="float32"), "triton")


def test_operands_of_two_pieces() -> None:
    """36 units are tiles of 32 and 16, their 144 gates 128 and 16."""
    assert (pieces(36), pieces(144)) == ((32, 16), (128, 16))
    check_layer(LayerCase(LSTM, 2, 2, 36, dtype="float32"), "triton")


def test_without_gradients_nothing_changes() -> None:
    case = LayerCase(ALL, 3, 3, 5, "twice", "ragged", "given", dtype="float32")
    call = make_call(case, make_data(case))
    out, state, _ = _triton.TRITON.run(call)
    with torch.no_grad():
        again, last, _ = _triton.TRITON.run(call)
    for name, a, b in zip(("out", "c", "h"), (again, *last), (out, *state), strict=True):
        assert_same_bits(name, a, b)
        assert not a.requires_grad


def test_the_same_bits_every_time() -> None:
    case = LayerCase(ALL, 2, 2, 11, "rows", dtype="float32")
    call = make_call(case, make_data(case))
    runs = []
    for _ in range(2):
        out, state, _ = _triton.TRITON.run(call)
        runs.append([out, *state, *torch.autograd.grad(out.sum(), [call.x, *call.weights.values()])])
    for number, (a, b) in enumerate(zip(*runs, strict=True)):
        assert_same_bits(f"result {number}", a, b)


def test_a_program_that_waits_in_vain_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two programs of a group of which the grid starts only one."""
    case = LayerCase(LSTM, 2, 2, 11, dtype="float32")
    loop, tensors = _triton.OP.loop_of(make_call(case, make_data(case)))
    dense = [None if t is None else t.detach().contiguous() for t in tensors]
    launch, _, _ = loop.forward_launch(with_products(loop, dense), save=False)
    launch = launch._replace(grid=1, arguments=launch.arguments | {"SPINS": 3})
    with pytest.raises(RuntimeError, match="waited in vain"):
        launch.run()


def test_loops_give_no_gradient_nobody_asked_for() -> None:
    case = LayerCase(LSTM, 2, 2, 3, dtype="float32")
    call = make_call(case, make_data(case))
    loop, tensors = _triton.OP.loop_of(call)
    given = [None if t is None else t.detach() for t in tensors]
    given[7] = given[7].clone().requires_grad_()  # type: ignore[union-attr]
    out, *_ = run_loop(loop, given)
    (d_weight,) = torch.autograd.grad(out.sum(), [given[7]])
    assert torch.isfinite(d_weight).all() and d_weight.abs().max() > 0
