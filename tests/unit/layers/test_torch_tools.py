"""What PyTorch users put around a model, around unrolls: autocast, function transforms, parametrizations, penalties."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.utils import parametrizations

import cellweave as cw
from cellweave import keras
from cellweave.ops.common._library import core, missing_reason
from helpers.tolerances import assert_close, assert_same_bits

B, T, D, N = 3, 5, 4, 6
F32: dict[str, Any] = {"dtype": "float32"}
LENGTHS = torch.tensor([5, 2, 4])
needs_native = pytest.mark.skipif(
    missing_reason() is not None, reason=f"only the native core computes in the weights' dtype: {missing_reason()}"
)


class Model(nn.Module):
    """Linear, an unroll with lengths, Linear, a cuDNN layer, Linear."""

    def __init__(self, cell: Any) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(D, D), nn.Linear(N, N), nn.Linear(N, 2)
        self.cell, self.top = cell, cw.CudnnLSTM(1, N)
        self.seen: list[torch.Tensor] = []
        with torch.no_grad():
            self(torch.zeros(B, T, D))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.first(x)
        outputs, state = cw.dynamic_rnn(self.cell, inner, LENGTHS[: len(x)].clamp(max=x.shape[1]), **F32)
        top, last = self.top(self.middle(outputs).transpose(0, 1), training=True)
        self.seen = [inner, outputs, *torch.utils._pytree.tree_leaves(state), top, *last]
        return self.last(top.transpose(0, 1))


CELLS: dict[str, Any] = {
    "gru": lambda: cw.GRUCell(N),
    "lstm": lambda: cw.DropoutWrapper(cw.LSTMCell(N, use_peepholes=True), 0.8, 0.8, 0.8, seed=3),
    "stack": lambda: cw.MultiRNNCell([keras.GRUCell(D), cw.ResidualWrapper(cw.BasicRNNCell(D)), cw.LSTMCell(N)]),
}


@needs_native
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize("name", CELLS)
def test_autocast(name: str, half: torch.dtype) -> None:
    """Products outside run in half precision; the unroll, its state and its gradients in the weights' dtype."""
    model = Model(CELLS[name]())
    x = torch.randn(B, T, D)
    with torch.autocast("cpu", dtype=half):
        assert cw.explain(model.cell, model.first(x), LENGTHS, **F32).backends[0] == "native"
        loss = model(x).float().square().sum()
    inner, *found = model.seen
    assert inner.dtype == half and {value.dtype for value in found} == {torch.float32}
    grads = torch.autograd.grad(loss, list(model.parameters()))
    assert all(grad.dtype == torch.float32 and grad.isfinite().all() and grad.any() for grad in grads)
    if name != "lstm":  # its masks are others in a second run
        exact, _ = cw.dynamic_rnn(model.cell, inner.float(), LENGTHS, **F32)
        if half == torch.bfloat16 and core().has_bfloat16:
            assert_close("outputs", found[0], exact, 1e-2)
        else:
            assert_same_bits("outputs", found[0], exact)
        plain = torch.autograd.grad(model(x).square().sum(), list(model.parameters()))
        for number, (a, b) in enumerate(zip(grads, plain, strict=True)):
            assert_close(f"gradient {number}", a, b, 0.05)


@needs_native
@pytest.mark.parametrize("name", CELLS)
def test_autocast_in_compiled_code(name: str) -> None:
    torch._dynamo.reset()
    model = Model(CELLS[name]()).eval()
    run = torch.compile(lambda x: model(x), backend="aot_eager", fullgraph=True, dynamic=True)
    for steps in (5, 3):
        x = torch.randn(B, steps, D)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert_close(f"{steps} steps", run(x), model(x), 1e-2)


def test_gradients_of_each_sample() -> None:
    model = Model(CELLS["gru"]())
    x, weights = torch.randn(B, T, D), dict(model.named_parameters())

    def loss(given: Any, row: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(model, given, (row[None],)).square().sum()

    rows = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, x)
    for number in range(B):
        alone = torch.autograd.grad(loss(weights, x[number]), list(weights.values()))
        for name, expected in zip(weights, alone, strict=True):
            assert_close(f"row {number}, {name}", rows[name][number], expected, 1e-5)


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # torch's own, when jvp is first used
@pytest.mark.parametrize("name", ["gru", "stack"])
def test_forward_mode(name: str) -> None:
    cell = CELLS[name]()
    run = lambda x: cw.dynamic_rnn(cell, x, LENGTHS, dtype="float64")[0]  # noqa: E731
    x, tangent = torch.randn(B, T, D, dtype=torch.float64), torch.randn(B, T, D, dtype=torch.float64)
    cw.dynamic_rnn(cell, x.float(), LENGTHS, **F32)
    cell.double()
    _, found = torch.func.jvp(run, (x,), (tangent,))
    step = 1e-6
    assert_close("tangent", found, (run(x + step * tangent) - run(x - step * tangent)) / (2 * step), 1e-8)


@pytest.mark.parametrize("name", ["gru", "stack"])
def test_a_gradient_penalty(name: str) -> None:
    """A loss made of gradients: what the fast path gives is what single steps give."""
    torch.manual_seed(1)
    model = Model(CELLS[name]()).double()
    x = torch.randn(B, T, D, dtype=torch.float64, requires_grad=True)
    found = []
    for backend in (None, "reference"):
        with cw.use_backend(backend):
            outputs, _ = cw.dynamic_rnn(model.cell, x, LENGTHS, dtype="float64")
            (slope,) = torch.autograd.grad(outputs.sin().sum(), [x], create_graph=True)
            penalty = (slope.norm(dim=2) - 1).square().sum()
            found.append(torch.autograd.grad(penalty, [x, *model.cell.parameters()]))
    for number, (a, b) in enumerate(zip(*found, strict=True)):
        assert a.any()
        assert_close(f"gradient {number}", a, b, 1e-10)


@pytest.mark.parametrize("tool", ["weight_norm", "spectral_norm", "orthogonal"])
def test_parametrizations(tool: str) -> None:
    """A weight that is computed from others is woven like any weight, also in a cuDNN layer."""
    torch.manual_seed(1)
    model = Model(CELLS["gru"]()).eval()
    getattr(parametrizations, tool)(model.cell, "candidate_kernel")
    for name in ("weight_ih_l0", "weight_hh_l0"):
        getattr(parametrizations, tool)(model.top, name)
    x, found = torch.randn(B, T, D), []
    for backend in (None, "reference"):
        with cw.use_backend(backend):
            value = model(x)
            found.append([value, *torch.autograd.grad(value.sin().sum(), list(model.parameters()))])
    for number, (a, b) in enumerate(zip(*found, strict=True)):
        assert_close(f"result {number}", a, b, 1e-5)
    originals = [n for n, _ in model.named_parameters() if "parametrizations" in n]
    assert len(originals) == (6 if tool == "weight_norm" else 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = model.cell.candidate_kernel.detach().clone()
    model(x).square().sum().backward()
    optimizer.step()
    assert not torch.equal(model.cell.candidate_kernel, before)


UNROLLS: dict[str, Any] = {
    "dynamic_rnn": lambda x, n, **k: cw.dynamic_rnn(k["cell"], x, n, **F32)[0],
    "bidirectional": lambda x, n, **k: cw.bidirectional_dynamic_rnn(k["cell"], k["other"], x, n, **F32)[0][1],
    "cudnn": lambda x, n, **k: k["layer"](x.transpose(0, 1), sequence_lengths=n)[0].transpose(0, 1),
    "nn": lambda x, n, **k: k["module"](x, lengths=n)[0],
}


def called(name: str) -> Any:
    """An unroll of inputs and lengths, with its variables."""
    parts = {
        "cell": cw.LSTMCell(N), "other": cw.GRUCell(N), "layer": cw.CudnnGRU(1, N),
        "module": cw.nn.GRU(D, N, batch_first=True),
    }  # fmt: skip
    run = lambda x, n: UNROLLS[name](x, n, **parts)  # noqa: E731
    run(torch.zeros(B, T, D), None)
    return run


@pytest.mark.parametrize("lengths", [None, [5, 2, 4], LENGTHS], ids=["none", "list", "tensor"])
@pytest.mark.parametrize("name", UNROLLS)
def test_fakes_have_shapes(name: str, lengths: Any) -> None:
    """As tools that estimate memory call a model: nothing has values."""
    run = called(name)
    with FakeTensorMode(allow_non_fake_inputs=True):
        outputs = run(torch.zeros(B, T, D), lengths)
    assert isinstance(outputs, FakeTensor)
    assert outputs.shape == (B, T, N)


@pytest.mark.parametrize("name", UNROLLS)
def test_traced_with_symbols(name: str) -> None:
    """As `make_fx` traces: by steps, whose number stays, for any number of rows."""
    run, x = called(name), torch.randn(B, T, D)
    graph = make_fx(lambda x: run(x, None), tracing_mode="symbolic", _allow_non_fake_inputs=True)(x)
    for rows in (B, 7):
        x = torch.randn(rows, T, D)
        assert_close(f"{rows} rows", graph(x), run(x, None), 1e-6)
