"""The native layers as operators of torch.library: their contract, torch.compile and torch.export."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from cellweave.ops.common import LayerCall
from cellweave.ops.common._native_ops import _saved_again, arguments_of
from helpers.layer_cases import VARIANTS, LayerCase, backend_of, make_call, make_data, needs_backend
from helpers.tolerances import assert_close, assert_same_bits

BY_NAME = {variant.name: variant for variant in VARIANTS}
CASES = [
    LayerCase(BY_NAME["rnn"], 3, 2, 4),
    LayerCase(BY_NAME["gru"], 3, 2, 4, "twice", "ragged", "given", reverse=True),
    LayerCase(BY_NAME["gru-after"], 3, 2, 4, "noise", resets="zeros"),
    LayerCase(BY_NAME["lstm"], 3, 2, 4, dtype="float32"),
    LayerCase(BY_NAME["all"], 3, 2, 4, "steps", "ragged", "given"),
    LayerCase(BY_NAME["gru"], 3, 2, 4, "zones", "ragged", "given", states=True),
    LayerCase(BY_NAME["lstm"], 3, 2, 4, "zoneout", states=True, dtype="float32"),
    LayerCase(BY_NAME["all"], 3, 2, 4, "expected", "ragged", states=True),
    LayerCase(BY_NAME["lstm-unbiased"], 0, 2, 4),
]
#: Of the compiled cases; the rest have others.
FEATURES: dict[str, dict[str, Any]] = {
    "lstm": {}, "lstm-split": {"masks": "expected", "states": True},
    "gru-split": {"masks": "zones", "lengths": "ragged", "states": True, "reverse": True},
}  # fmt: skip
KINDS = {"RNNSpec": "rnn", "GRUSpec": "gru", "LSTMSpec": "lstm"}


@pytest.fixture(autouse=True)
def native_core() -> None:
    needs_backend("native", LayerCase(VARIANTS[0], 1, 1, 1))


@pytest.fixture(autouse=True)
def fresh_compiler() -> Any:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def _detached(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_detached(item) for item in value]
    return value.detach() if isinstance(value, torch.Tensor) else value


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_contract(case: LayerCase) -> None:
    call = make_call(case, make_data(case))
    kind = KINDS[type(call.spec.cell).__name__]
    forward = getattr(torch.ops.cellweave, f"{kind}_forward").default
    backward = getattr(torch.ops.cellweave, f"{kind}_backward").default
    arguments = arguments_of(kind, call)
    torch.library.opcheck(forward, (*arguments, True))
    torch.library.opcheck(forward, (*_detached(arguments), False))
    out, last, saved = forward(*arguments, True)
    _same(_results_of(out, *last, call=call), _results_of(*_values(call)[: 1 + len(last)], call=call))
    saved = _saved_again(arguments, saved, out, last[len(call.state) :])
    sources = sum(len(value) for value in arguments[1:4]) + 1
    needed = [number != 1 for number in range(sources)]
    upstream = (torch.randn_like(out), [torch.randn_like(leaf) for leaf in last])
    torch.library.opcheck(backward, (*_detached(arguments), _detached(saved), *upstream, needed))


def _values(call: LayerCall) -> list[torch.Tensor]:
    out, last, states = backend_of(call.spec, "native").run(call)
    return [out - call.x if call.spec.residual else out, *last, *states]


def _results_of(*values: torch.Tensor, call: LayerCall) -> list[torch.Tensor]:
    """Values, and the gradients of a loss that weighs each element differently."""
    loss = torch.stack([(v * torch.arange(v.numel()).reshape(v.shape).sin()).sum() for v in values]).sum()
    sources = [call.x, *call.state, *(call.reset_state or ()), *call.weights.values()]
    return [*values, *torch.autograd.grad(loss, sources)]


def _results(run: Any, call: LayerCall) -> list[torch.Tensor]:
    return _results_of(*run(call.x, call.state, call.weights, call.lengths), call=call)


def test_only_some_gradients() -> None:
    case = LayerCase(BY_NAME["lstm"], 3, 2, 4)
    expected = _results_of(*_values(call := make_call(case, make_data(case))), call=call)
    call.x.requires_grad_(False)
    call.weights["kernel"].requires_grad_(False)
    out, last, _ = torch.ops.cellweave.lstm_forward(*arguments_of("lstm", call), True)
    grads = torch.autograd.grad(
        torch.stack([(v * torch.arange(v.numel()).reshape(v.shape).sin()).sum() for v in (out, *last)]).sum(),
        [*call.state, call.weights["bias"]],
    )
    _same(grads, [*expected[4:6], expected[7]])


@pytest.mark.parametrize("case", CASES[:-1], ids=lambda case: case.id)
def test_second_derivatives(case: LayerCase) -> None:
    case = dataclasses.replace(case, T=2, H=2, dtype="float64")
    call = make_call(case, make_data(case))
    kind = KINDS[type(call.spec.cell).__name__]
    forward, names = getattr(torch.ops.cellweave, f"{kind}_forward"), list(call.weights)

    def function(x: torch.Tensor, h: torch.Tensor, *weights: torch.Tensor) -> Any:
        changed = {"x": x, "state": (*call.state[:-1], h), "weights": dict(zip(names, weights, strict=True))}
        out, last, _ = forward(*arguments_of(kind, dataclasses.replace(call, **changed)), True)
        return (out, *last)

    torch.autograd.gradgradcheck(function, (call.x, call.state[-1], *call.weights.values()), fast_mode=True)


def _cases(name: str) -> tuple[LayerCall, LayerCall]:
    """A small call and a larger one of the same run, of sizes that no weight has; the masks fit both."""
    features = FEATURES.get(name, {"masks": "variational", "lengths": "ragged", "residual": True})
    made = [LayerCase(BY_NAME[name], T, B, 4, **features) for T, B in ((5, 11), (6, 9))]
    small, large = (make_call(case, make_data(case)) for case in made)
    return small, dataclasses.replace(large, masks=small.masks)


@pytest.mark.parametrize("name", ["rnn", "gru", "gru-after", "all", *FEATURES])
def test_compiled_whole(name: str) -> None:
    """One graph for any number of steps and rows, with the same bits as without the compiler."""
    small, large = _cases(name)
    spec, masks, run = small.spec, small.masks, backend_of(small.spec, "native").run

    def layer(x: Any, state: Any, weights: Any, lengths: Any) -> Any:
        out, last, states = run(LayerCall(spec, x, state, weights, masks, lengths))
        return (out, *last, *states)

    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=True)
    first = _results(compiled, small)
    _same(first, _results(layer, small))
    with torch.compiler.set_stance("fail_on_recompile"):
        got = _results(compiled, large)
    _same(got, _results(layer, large))
    with torch.no_grad():
        values = compiled(small.x, small.state, small.weights, small.lengths)
    _same(values, first[: len(values)], 1e-13)


def _same(got: Any, expected: Any, tolerance: float | None = None) -> None:
    for number, (a, b) in enumerate(zip(got, expected, strict=True)):
        if tolerance is None:
            assert_same_bits(f"result {number}", a, b)
        else:
            assert_close(f"result {number}", a, b, tolerance)


class _Layer(torch.nn.Module):
    def __init__(self, call: LayerCall) -> None:
        super().__init__()
        self.names = list(call.weights)
        self.weights = torch.nn.ParameterList([weight.detach() for weight in call.weights.values()])
        self.spec, self.masks, self.run = call.spec, call.masks, backend_of(call.spec, "native").run

    def forward(self, x: Any, state: Any, lengths: Any) -> Any:
        weights = dict(zip(self.names, self.weights, strict=True))
        out, last, states = self.run(LayerCall(self.spec, x, state, weights, self.masks, lengths))
        return (out, *last, *states)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", ["gru", "all"])
def test_exported_with_any_sizes(name: str, strict: bool) -> None:
    small, large = _cases(name)
    layer, steps, rows = _Layer(small), torch.export.Dim("steps", min=2), torch.export.Dim("rows", min=2)
    shapes = ({0: steps, 1: rows}, tuple({0: rows} for _ in small.state), {0: rows})
    given = [(call.x.detach(), tuple(leaf.detach() for leaf in call.state), call.lengths) for call in (small, large)]
    exported = torch.export.export(layer, given[0], dynamic_shapes=shapes, strict=strict)
    names = [str(node.target) for node in exported.graph.nodes if node.op == "call_function"]
    assert sum("cellweave" in name for name in names) == 1
    for values in given:
        with torch.no_grad():
            _same(exported.module()(*values), layer(*values), 1e-13)
