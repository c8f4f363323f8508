"""First and second derivatives of whole layers against finite differences."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cellweave.ops.common import LayerCall
from helpers.layer_cases import VARIANTS, LayerCase, LayerVariant, backend_of, make_call, make_data, needs_backend
from helpers.tolerances import assert_close

#: Everything at once on the smallest sizes that have a first, a middle and a last step, and a row that ends early.
EVERYTHING: dict[str, Any] = {
    "masks": "twice", "lengths": "ragged", "resets": "given", "residual": True, "states": True,
}  # fmt: skip
BACKWARDS = ("rnn-split", "gru", "gru-after", "lstm-split", "all")
TORCH = ("rnn", "rnn-relu", "gru-after", "lstm", "lstm-split", "proj")


def _function(case: LayerCase, backend: str) -> tuple[Any, list[torch.Tensor]]:
    """Outputs and last state as a function of everything that gradients flow to."""
    data = make_data(case)
    call = make_call(case, data)
    names, leaves = list(call.weights), len(call.state)
    sources = [call.x, *call.state, *(call.reset_state or ()), *call.weights.values()]
    run = backend_of(data.run, backend).run

    def function(x: torch.Tensor, *rest: torch.Tensor) -> Any:
        weights = dict(zip(names, rest[-len(names) :], strict=True))
        fresh = rest[leaves : -len(names)] or None
        made = LayerCall(
            call.spec, x, rest[:leaves], weights, call.masks, call.lengths, call.resets, fresh, call.threads
        )
        out, last, states = run(made)
        return (out, *last, *states)

    return function, sources


@pytest.mark.parametrize(
    ("backend", "masks"), [("reference", "twice"), *(("native", masks) for masks in ("twice", "zones", "expected"))]
)
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_everything_at_once(backend: str, variant: LayerVariant, masks: str) -> None:
    case = LayerCase(variant, 3, 2, 2, **(EVERYTHING | {"masks": masks}), reverse=variant.name in BACKWARDS)
    needs_backend(backend, case)
    if variant.name == "block":
        pytest.skip("its clip passes gradients that differences do not see: the oracle judges them in test_layers")
    function, sources = _function(case, backend)
    torch.autograd.gradcheck(function, sources, fast_mode=True)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_second_derivatives(variant: LayerVariant) -> None:
    case = LayerCase(variant, 2, 2, 2, "variational", "ragged", "given", residual=True)
    needs_backend("native", case)
    function, sources = _function(case, "native")
    torch.autograd.gradgradcheck(function, sources, fast_mode=True)


@pytest.mark.parametrize("name", TORCH)
def test_torch_layers(name: str) -> None:
    variant = next(v for v in VARIANTS if v.name == name)
    case = LayerCase(variant, 3, 2, 2, "input", "ragged", reverse=True)
    function, sources = _function(case, "torch")
    torch.autograd.gradcheck(function, sources, fast_mode=True)


@pytest.mark.parametrize("backend", ["reference", "native"])
def test_a_weight_made_from_the_inputs(backend: str) -> None:
    """Second derivatives count each way from x to the result once, also where a weight depends on x."""
    case = LayerCase(VARIANTS[0], 2, 2, 2)
    needs_backend(backend, case)
    function, (x, h, kernel, bias) = _function(case, backend)

    def dependent(x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = function(x, h, kernel * x.sum(), bias)[0]
        return out

    x = x.detach().requires_grad_()
    torch.autograd.gradcheck(dependent, x)
    torch.autograd.gradgradcheck(dependent, x)
    (plain,) = torch.autograd.grad(dependent(x).sum(), x)
    (differentiable,) = torch.autograd.grad(dependent(x).sum(), x, create_graph=True)
    assert_close("d x", differentiable, plain, 1e-13)
