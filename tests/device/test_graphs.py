"""Compiled modules on a device: cuDNN's layers and our kernels in one graph, with what eager calls give."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import cellweave as cw
from helpers.tolerances import assert_close

T, B, D, N = 5, 4, 6, 7
MODULES: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("LSTM", {"num_layers": 2, "bidirectional": True}),
    "reset after": ("GRU", {}),
    "masks": ("LSTM", {"input_dropout": 0.3, "state_dropout": 0.3, "zoneout": 0.2}),
}


@pytest.mark.parametrize("lengths", [False, True], ids=["whole", "lengths"])
@pytest.mark.parametrize("name", MODULES)
def test_in_a_graph(name: str, lengths: bool, device: str) -> None:
    torch._dynamo.reset()
    kind, additions = MODULES[name]
    torch.manual_seed(0)
    module = getattr(cw.nn, kind)(D, N, **additions, device=device)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True, dynamic=True)
    options = {"lengths": torch.tensor([T, 0, 2, T], device=device)} if lengths else {}
    with cw.use_backend(None if device == "cuda" else "triton"):
        for steps in (T, T - 1):
            x = torch.randn(steps, B, D, device=device)
            given = {key: value.clamp(max=steps) for key, value in options.items()}
            found = []
            for call in (module, compiled):
                torch.manual_seed(3)
                leaf = x.clone().requires_grad_()
                outputs = call(leaf, **given)[0]
                found.append([outputs, *torch.autograd.grad(outputs.sin().sum(), [leaf, *module.parameters()])])
            for number, (a, b) in enumerate(zip(found[1], found[0], strict=True)):
                assert_close(f"{steps} steps, result {number}", a, b, 1e-5)
