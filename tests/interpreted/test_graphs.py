"""Layers on the kernels in compiled code: operators in one graph, with what eager calls give."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

import cellweave as cw
from cellweave import keras
from cellweave.ops.common._library import missing_reason
from cellweave.ops.common._triton_autograd import dense_tensors, with_products
from cellweave.ops.gru._triton import OP as GRU
from cellweave.ops.lstm._triton import OP as LSTM
from cellweave.ops.rnn._triton import OP as RNN
from helpers import nest
from helpers.layer_cases import LayerCase, make_call, make_data
from helpers.tolerances import assert_close
from helpers.triton_cases import variant_named

T, B, D, N = 4, 3, 5, 5
DROP: dict[str, Any] = {"input_keep_prob": 0.5, "output_keep_prob": 0.5, "state_keep_prob": 0.5, "seed": 3}
VARIATIONAL: dict[str, Any] = {**DROP, "variational_recurrent": True, "input_size": D, "dtype": "float32"}
LENGTHS = torch.tensor([4, 2, 0])
OPS = {"rnn": RNN, "gru": GRU, "lstm": LSTM}

CELLS: dict[str, Any] = {
    "rnn": lambda: cw.BasicRNNCell(N),
    "gru": lambda: cw.GRUCell(N),
    "gru after": lambda: keras.GRUCell(N),
    "lstm": lambda: cw.LSTMCell(N, num_proj=3, use_peepholes=True, cell_clip=0.7, proj_clip=0.5),
    "masks": lambda: cw.MultiRNNCell(
        [cw.DropoutWrapper(cw.LSTMCell(N), **VARIATIONAL), cw.ResidualWrapper(cw.DropoutWrapper(cw.GRUCell(N), **DROP))]
    ),
}


@pytest.fixture(autouse=True)
def fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def results(call: Any, x: torch.Tensor, parameters: list[torch.Tensor]) -> list[torch.Tensor]:
    x = x.clone().requires_grad_()
    leaves = nest.flatten(call(x))
    total = torch.stack([leaf.sin().sum() for leaf in leaves]).sum()
    return [*leaves, *torch.autograd.grad(total, [x, *parameters])]


def compiled(call: Any) -> Any:
    return torch.compile(call, backend="aot_eager", fullgraph=True, dynamic=True)


def first_graph_only(steps: int) -> Any:
    """The graph that the first call makes has to do for the others."""
    return torch._dynamo.config.patch(error_on_recompile=steps != T)


@pytest.mark.parametrize(("name", "options"), [("masks", "whole"), *((name, "lengths and resets") for name in CELLS)])
def test_unrolls(name: str, options: str) -> None:
    found = []
    for wrap in (lambda call: call, compiled):
        torch.manual_seed(3)
        cw.set_random_seed(1)
        cell = CELLS[name]()
        cell(torch.zeros(B, D), cell.get_initial_state(batch_size=B, dtype="float32"))

        def call(x: torch.Tensor, cell: Any = cell) -> Any:
            given: dict[str, Any] = {}
            if options != "whole":
                given = {"sequence_length": LENGTHS, "resets": x[..., 0] > 0.5}
            return cw.dynamic_rnn(cell, x, dtype="float32", **given)

        run = wrap(call)
        data = torch.randn(B, T, D, generator=torch.Generator().manual_seed(5))
        with cw.use_backend("triton"):
            for steps in (T, T - 1):
                with first_graph_only(steps):
                    found += [results(run, data[:, :steps], list(cell.parameters()))]
    for turn in range(2):
        for number, (a, b) in enumerate(zip(found[2 + turn], found[turn], strict=True)):
            assert_close(f"{turn} result {number}", a, b, 2e-6)


MODULES: dict[str, tuple[str, dict[str, Any]]] = {
    "rnn": ("RNN", {"bidirectional": True}),
    "gru": ("GRU", {"state_dropout": 0.3, "input_dropout": 0.3, "residual": True}),
    "lstm": ("LSTM", {"num_layers": 2, "state_dropout": 0.3, "variational": False, "zoneout": 0.2}),
    "normalized": ("GRU", {"layer_norm": True, "state_dropout": 0.3}),
    "normalized lstm": ("LSTM", {"layer_norm": True}),
    "gates": ("LSTM", {"mask_per_gate": True, "input_dropout": 0.3, "state_dropout": 0.3, "bidirectional": True}),
    "gates of all rows": (
        "GRU",
        {"mask_per_gate": True, "mask_per_row": False, "input_dropout": 0.3, "state_dropout": 0.3},
    ),
}


@pytest.mark.parametrize(("name", "training"), [*((name, True) for name in MODULES), ("lstm", False)])
def test_modules(name: str, training: bool) -> None:
    kind, additions = MODULES[name]
    torch.manual_seed(0)
    module = getattr(cw.nn, kind)(D, N, **additions).train(training)

    def call(x: torch.Tensor) -> Any:
        return module(x, lengths=LENGTHS.clamp(max=x.shape[0]), return_all_states=True)

    run = compiled(call)
    with cw.use_backend("triton"):
        for steps in (T, T - 1):
            x = torch.randn(steps, B, D)
            pairs = []
            for function in (call, run):
                torch.manual_seed(7)
                with first_graph_only(steps):
                    pairs.append(results(function, x, list(module.parameters())))
            for number, (a, b) in enumerate(zip(pairs[1], pairs[0], strict=True)):
                assert_close(f"{steps} result {number}", a, b, 2e-6)


@pytest.mark.parametrize("shape", [(0, B), (T, 0)])
def test_nothing_to_run(shape: tuple[int, int]) -> None:
    """The operators by themselves: a graph has no such sizes of its own."""
    cell = cw.LSTMCell(N)
    cell(torch.zeros(B, D), cell.get_initial_state(batch_size=B, dtype="float32"))
    x = torch.randn(*shape, D, requires_grad=True)
    state = [torch.randn(shape[1], N, requires_grad=True) for _ in range(2)]

    def call(x: torch.Tensor) -> Any:
        return cw.dynamic_rnn(cell, x, initial_state=cw.LSTMStateTuple(*state), time_major=True)

    with cw.use_backend("triton"):
        outputs, new = compiled(call)(x)
        assert outputs.shape == (*shape, N)
        for before, after in zip(state, new, strict=True):
            assert torch.equal(before, after)
        grads = torch.autograd.grad(new[0].sum() + 2 * new[1].sum() + outputs.sum(), [x, *state])
    assert grads[0].shape == x.shape
    assert all(bool((grad == wanted).all()) for grad, wanted in zip(grads[1:], (1, 2), strict=True))


def test_export() -> None:
    module = cw.nn.LSTM(D, N, num_layers=2, state_dropout=0.3, residual=True).eval()
    steps, rows = torch.export.Dim("steps", min=2), torch.export.Dim("rows", min=2)
    with cw.use_backend("triton"):
        program = torch.export.export(
            module, (torch.randn(T, B, D),), {"lengths": LENGTHS},
            dynamic_shapes={"input": {0: steps, 1: rows}, "lengths": {0: rows}},
        )  # fmt: skip
        x, lengths = torch.randn(T - 1, 2, D), torch.tensor([3, 1])
        expected, _ = module(x, lengths=lengths)
    assert sum("lstm_triton_forward" in str(node.target) for node in program.graph.nodes) == 2
    assert_close("outputs", program.module()(x, lengths=lengths)[0], expected, 2e-6)


def test_onnx() -> None:
    """A file is written from the native operators, whatever runs the layers."""
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    if missing_reason() is not None:
        pytest.skip(f"{missing_reason()}")
    from cellweave.onnx import export

    module = cw.nn.LSTM(D, N, bidirectional=True).eval()
    with cw.use_backend("triton"):
        program = export(module, (torch.randn(T, B, D),))
    assert [node.op_type for node in program.model_proto.graph.node].count("LSTM") == 1


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm"])
def test_results_lie_as_operators_say_before_they_run(name: str) -> None:
    """Whichever way a state lies: compilers make code for what the fake kernels gave."""
    case = LayerCase(variant_named(name), 2, 3, 4, "none", dtype="float32")
    call = make_call(case, make_data(case))
    call = replace(call, state=tuple(leaf.t().contiguous().t() for leaf in call.state))
    loop, tensors = OPS[name].loop_of(call)
    ready = with_products(loop, dense_tensors(tensors))
    expected, _ = loop.unfilled(ready[0], save=True)
    for a, b in zip(loop.forward(ready, save=True)[0], expected, strict=True):
        assert a.stride() == b.stride()
