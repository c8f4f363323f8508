"""Models that run torch.nn's modules on other tensors than their parameters, by its list `_flat_weights`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import cellweave
from helpers.tolerances import assert_close
from helpers.torch_pairs import NAMES, assert_alike, twins


def scaled(module: Any) -> list[torch.Tensor]:
    """Its weights as torch.nn runs on them, the recurrent ones halved."""
    named = zip(module._flat_weights_names, module._flat_weights, strict=True)
    return [weight * 0.5 if name.startswith("weight_hh") else weight for name, weight in named]


def in_forward(home: Any) -> type[Any]:
    """A subclass as people write them, whose call puts other weights in and takes them out."""

    class Scaled(home.LSTM):  # type: ignore[misc]
        def forward(self, inputs: Any, hx: Any = None) -> Any:
            held = self._flat_weights
            self._flat_weights = scaled(self)
            result = super().forward(inputs, hx)
            self._flat_weights = held
            return result

    return Scaled


def all_of_them(module: Any) -> None:
    module._flat_weights = scaled(module)


def one_of_them(module: Any) -> None:
    module._flat_weights[1] = torch.full_like(module._flat_weights[1], 0.25)


def without_parameters(module: Any) -> None:
    held = [weight.detach() * 0.5 for weight in module._flat_weights]
    for name in module._flat_weights_names:
        delattr(module, name)
    module._flat_weights = held


def replaced_behind(module: Any) -> None:
    one_of_them(module)
    module._parameters["weight_hh_l0"] = nn.Parameter(module._parameters["weight_hh_l0"].detach() * 0.5)


def moved_behind(module: Any) -> None:
    one_of_them(module)
    module.double().float()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "change", [all_of_them, one_of_them, without_parameters, replaced_behind, moved_behind], ids=lambda f: f.__name__
)
def test_as_torch(name: str, change: Callable[[Any], None]) -> None:
    pair = twins(name, 5, 7, 2, bidirectional=True)
    before = pair[1](torch.ones(4, 3, 5))[0]
    for module in pair:
        change(module)
    assert_alike(pair, torch.randn(4, 3, 5))
    if change is not moved_behind:
        assert not torch.allclose(pair[1](torch.ones(4, 3, 5))[0], before)


def test_subclass_that_changes_them_in_its_call() -> None:
    theirs, ours = in_forward(nn)(5, 7), in_forward(cellweave.nn)(5, 7)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(4, 3, 5)
    assert_alike((theirs, ours), x)
    compiled = torch.compile(ours, backend="aot_eager", fullgraph=True)
    assert_close("compiled", compiled(x)[0], theirs(x)[0], 5e-6)


def test_stream_runs_on_them() -> None:
    module = cellweave.nn.GRU(5, 7)
    x, stream = torch.randn(2, 3, 5), cellweave.nn.Stream(module, batch_size=3)
    stream.step(x[0])
    one_of_them(module)
    with torch.no_grad():
        again = stream.step(x[1])
        assert torch.equal(again, module(x[1:], module_state(x[:1], module))[0][0])


def module_state(x: torch.Tensor, module: Any) -> torch.Tensor:
    """The state after steps that ran on the parameters."""
    plain = cellweave.nn.GRU(5, 7)
    plain.load_state_dict(module.state_dict())
    return plain(x)[1]  # type: ignore[no-any-return]


def test_stream_of_weights_that_are_no_parameters() -> None:
    module = cellweave.nn.GRU(5, 7)
    raw = module._parameters.pop("weight_hh_l0")
    assert raw is not None
    module.raw = raw
    x, stream = torch.randn(2, 3, 5), cellweave.nn.Stream(module, batch_size=3)
    outputs = []
    for step, scale in zip(x, (1.0, 0.5), strict=True):
        module.weight_hh_l0 = raw.detach() * scale
        before = stream.state
        outputs.append(stream.step(step))
        with torch.no_grad():
            assert torch.equal(outputs[-1], module(step[None], before)[0][0])
