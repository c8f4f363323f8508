"""Unrolls under torch.compile and torch.export: what eager code gives, masks and where their streams stand included."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

import cellweave as cw
from cellweave import keras
from cellweave.ops.common._library import missing_reason
from cellweave.specs import LSTMSpec
from helpers import nest
from properties.compositions import tables

pytestmark = [
    pytest.mark.skipif(
        missing_reason() is not None, reason=f"compiled code runs on the native core: {missing_reason()}"
    ),
    # torch's own, where compiled code stops and where inductor is first used
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
    pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning"),
]

B, T, D, N = 4, 6, 5, 8
XS = torch.linspace(-1.0, 1.0, B * T * D).reshape(B, T, D).sin()
LENGTHS = torch.tensor([6, 2, 0, 4])
DROP: dict[str, Any] = {"input_keep_prob": 0.5, "output_keep_prob": 0.5, "state_keep_prob": 0.5, "seed": 3}
VARIATIONAL: dict[str, Any] = {**DROP, "variational_recurrent": True, "input_size": D, "dtype": "float32"}


@pytest.fixture(autouse=True)
def fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


CELLS: dict[str, Any] = {
    "gru": lambda: cw.GRUCell(N),
    "lstm": lambda: cw.LSTMCell(N, num_proj=D, use_peepholes=True, cell_clip=0.7),
    "joined": lambda: cw.LSTMCell(N, state_is_tuple=False),
    "keras": lambda: keras.LSTMCell(N),
    "stack": lambda: cw.MultiRNNCell([cw.GRUCell(D), cw.ResidualWrapper(cw.LSTMCell(D)), cw.BasicRNNCell(3)]),
    "joined stack": lambda: cw.MultiRNNCell([cw.GRUCell(2), cw.GRUCell(3)], state_is_tuple=False),
    "sums": lambda: cw.ResidualWrapper(cw.MultiRNNCell([cw.GRUCell(4), cw.GRUCell(D)])),
    "dropout": lambda: cw.DropoutWrapper(cw.GRUCell(N), **DROP),
    "variational": lambda: cw.MultiRNNCell(
        [cw.DropoutWrapper(cw.GRUCell(N), **VARIATIONAL), cw.DropoutWrapper(cw.LSTMCell(N), **DROP)]
    ),
    "fed": lambda: cw.DropoutWrapper(cw.GRUCell(N), torch.tensor(0.5), seed=3),
    "tf2 variational": lambda: cw.RNNCellDropoutWrapper(keras.LSTMCell(N), **VARIATIONAL),
    "tf2": lambda: cw.RNNCellDropoutWrapper(keras.GRUCell(N), **DROP),
}


def built(cell: Any) -> Any:
    cell(XS[:, 0], cell.get_initial_state(batch_size=B, dtype="float32"))
    return cell


def history(
    make: Any, call: Any, compiled: dict[str, Any] | None, longest: int = T
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Results and gradients of three calls of several lengths, and where the streams stand."""
    torch.manual_seed(5)
    cw.set_random_seed(1)
    cells = [built(cell) for cell in make()]
    run = (lambda x: call(cells, x)) if compiled is None else torch.compile(lambda x: call(cells, x), **compiled)
    found: list[torch.Tensor] = []
    for steps in (longest, longest - 1, longest):
        x = XS[:, :steps].clone().requires_grad_()
        leaves = nest.flatten(run(x))
        weights = {id(w): w for cell in cells for w in cell.parameters()}.values()
        grads = torch.autograd.grad(
            sum(leaf.square().sum() for leaf in leaves), [x, *weights], allow_unused=True, materialize_grads=True
        )
        found += [*leaves, *grads]
    return found, [table for cell in cells for table in tables(cell)]


def same(make: Any, call: Any, *, atol: float = 1e-6, longest: int = T, **options: Any) -> None:
    options = {"backend": "aot_eager", "fullgraph": True, "dynamic": True, **options}
    expected, found = (nest.flatten(history(make, call, compiled, longest)) for compiled in (None, options))
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(b, a, rtol=0, atol=atol)


@pytest.mark.parametrize("name", ["gru after", "lstm"])
def test_torchs_own_layers(name: str) -> None:
    """In a graph as what they are, where they were asked for and have neither masks nor lengths."""
    make = {"gru after": lambda: [keras.GRUCell(N)], "lstm": lambda: [cw.BasicLSTMCell(N)]}[name]
    with cw.use_backend("torch"):
        # torch takes its layers apart into steps: few of them
        same(make, lambda cells, x: cw.dynamic_rnn(cells[0], x, dtype="float32"), atol=4e-6, longest=3)


@pytest.mark.parametrize(
    ("name", "lengths"),
    [*((name, True) for name in CELLS), *((name, False) for name in ("lstm", "variational", "tf2"))],
)
def test_training(name: str, lengths: bool) -> None:
    def call(cells: Any, x: torch.Tensor) -> Any:
        given = LENGTHS.clamp(max=x.shape[1]) if lengths else None
        return cw.dynamic_rnn(cells[0], x, given, dtype="float32")

    same(lambda: [CELLS[name]()], call)


def test_a_given_state_and_time_major() -> None:
    def call(cells: Any, x: torch.Tensor) -> Any:
        state = cw.LSTMStateTuple(x[:, 0].sum(1, keepdim=True).expand(-1, N), torch.ones(B, N))
        return cw.dynamic_rnn(cells[0], x.transpose(0, 1), initial_state=state, time_major=True)

    same(lambda: [cw.LSTMCell(N)], call)


def test_resets() -> None:
    def call(cells: Any, x: torch.Tensor) -> Any:
        return cw.dynamic_rnn(cells[0], x, dtype="float32", resets=x[..., 0] > 0.3, reset_state=torch.ones(B, N))

    same(lambda: [cw.GRUCell(N)], call)


def bidirectional(cells: Any, x: torch.Tensor) -> Any:
    return cw.bidirectional_dynamic_rnn(*cells, x, LENGTHS.clamp(max=x.shape[1]), dtype="float32")


def twice(cell: Any) -> list[Any]:
    return [cell, cell]


@pytest.mark.parametrize(
    "make",
    [
        lambda: [cw.GRUCell(N), cw.LSTMCell(3)],
        lambda: [cw.DropoutWrapper(cw.GRUCell(N), **kwargs) for kwargs in (DROP, VARIATIONAL)],
        lambda: twice(cw.DropoutWrapper(cw.GRUCell(N), **VARIATIONAL)),
        lambda: twice(cw.DropoutWrapper(cw.GRUCell(N), **DROP)),
    ],
    ids=["plain", "masks", "one run's masks", "two ops"],
)
def test_bidirectional(make: Any) -> None:
    same(make, bidirectional)


def test_outputs_have_the_dtype_that_is_asked_for() -> None:
    cell = built(cw.GRUCell(N))
    run = torch.compile(lambda x, h, dtype: cw.dynamic_rnn(cell, x, initial_state=h, dtype=dtype), backend="aot_eager")
    assert run(XS, torch.zeros(B, N), "float32")[0].dtype == torch.float32
    with pytest.raises(cw.DTypeError, match="output of dtype float64, got float32"):
        run(XS, torch.zeros(B, N), "float64")


def test_bidirectional_lengths_are_checked() -> None:
    cells = [built(cw.GRUCell(N)) for _ in range(2)]
    run = torch.compile(lambda x, n: cw.bidirectional_dynamic_rnn(*cells, x, n, dtype="float32"), backend="aot_eager")
    run(XS, LENGTHS)
    with pytest.raises(RuntimeError, match="expected sequence_length in 0..T"):
        run(XS, LENGTHS + 3)


def test_two_unrolls_in_one_graph() -> None:
    def call(cells: Any, x: torch.Tensor) -> Any:
        return [cw.dynamic_rnn(cells[0], scale * x, dtype="float32") for scale in (1.0, 2.0)]

    same(lambda: [cw.DropoutWrapper(cw.GRUCell(N), **DROP)], call)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lstm", "variational"])
def test_inductor(name: str) -> None:
    same(lambda: [CELLS[name]()], lambda cells, x: cw.dynamic_rnn(cells[0], x, dtype="float32"), backend="inductor")


STOPS: dict[str, Any] = {
    "a layer of steps": (
        lambda: [cw.ResidualWrapper(cw.DropoutWrapper(cw.GRUCell(N), **DROP), residual_fn=lambda x, y: 2 * y)],
        lambda cells, x: cw.dynamic_rnn(cells[0], x, dtype="float32"),
    ),
    "static_rnn": (
        lambda: [cw.DropoutWrapper(cw.GRUCell(N), **DROP)],
        lambda cells, x: cw.static_rnn(cells[0], list(x.unbind(1)), dtype="float32"),
    ),
    "stack_bidirectional_dynamic_rnn": (
        lambda: [cw.DropoutWrapper(cw.GRUCell(N), **DROP), cw.GRUCell(N)],
        lambda cells, x: cw.stack_bidirectional_dynamic_rnn(cells[:1], cells[1:], x, dtype="float32"),
    ),
}


@pytest.mark.parametrize("name", STOPS)
def test_what_a_graph_cannot_have_runs_outside_of_it(name: str) -> None:
    make, call = STOPS[name]
    same(make, call, fullgraph=False)
    with pytest.raises(torch._dynamo.exc.Unsupported, match="cellweave: this unroll runs step by step, or makes its"):
        history(make, call, {"backend": "aot_eager", "fullgraph": True})


def test_a_session_run_inside_is_one_run() -> None:
    def call(cells: Any, x: torch.Tensor) -> Any:
        with cw.session_run():
            return [cw.dynamic_rnn(cells[0], x, dtype="float32") for _ in range(2)]

    same(lambda: [cw.DropoutWrapper(cw.GRUCell(N), **VARIATIONAL)], call, fullgraph=False)


def test_mode_and_cells_are_guarded() -> None:
    cell = built(cw.DropoutWrapper(cw.GRUCell(N), **DROP))
    other = built(cw.DropoutWrapper(cw.GRUCell(N, activation="relu"), **DROP))
    run = torch.compile(lambda c, x: cw.dynamic_rnn(c, x, dtype="float32")[0], backend="aot_eager", fullgraph=True)
    for one in (cell, other):
        one.train()
        assert not torch.equal(run(one, XS), run(one, XS))
        one.eval()
        torch.testing.assert_close(run(one, XS), cw.dynamic_rnn(one, XS, dtype="float32")[0])
        assert torch.equal(run(one, XS), run(one, XS))
    cell.cell = other.cell
    torch.testing.assert_close(run(cell, XS), cw.dynamic_rnn(other, XS, dtype="float32")[0])


@pytest.mark.parametrize("place", ["object", "class"])
def test_a_start_of_its_own_is_guarded(place: str) -> None:
    class Late(cw.GRUCell):
        pass

    inner = Late(N)
    cell = built(cw.MultiRNNCell([inner]))
    run = torch.compile(lambda x: cw.dynamic_rnn(cell, x, dtype="float32")[0], backend="aot_eager")
    zeros = run(XS)
    (inner if place == "object" else Late).zero_state = lambda *_: torch.ones(len(XS), N)
    found = run(XS)
    torch.testing.assert_close(found, cw.dynamic_rnn(cell, XS, dtype="float32")[0])
    assert not torch.equal(found, zeros)


class Learned(cw.LSTMCell):
    """A cell that learns what it starts from."""

    def __init__(self, units: int) -> None:
        super().__init__(units)
        self.first = nn.Parameter(torch.linspace(-0.5, 0.5, 2 * units).reshape(2, units))

    def zero_state(self, batch_size: Any, dtype: Any) -> Any:
        c, h = self.first.unbind()
        return cw.LSTMStateTuple(c.expand(batch_size, -1), h.expand(batch_size, -1))


LEARNED: dict[str, Any] = {
    "cell": lambda: Learned(N),
    "stack": lambda: cw.MultiRNNCell([cw.GRUCell(3), cw.DropoutWrapper(Learned(N)), cw.LSTMCell(2)]),
}


@pytest.mark.parametrize("make", LEARNED.values(), ids=LEARNED)
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_a_start_that_is_learned_stays_in_the_graph(make: Any, lengths: Any) -> None:
    cell = built(make())
    run = torch.compile(
        lambda x: cw.dynamic_rnn(cell, x, lengths if len(x) == B else None, dtype="float32")[0],
        backend="aot_eager", fullgraph=True, dynamic=True,
    )  # fmt: skip
    weights = list(cell.parameters())
    found, wanted = run(XS), cw.dynamic_rnn(cell, XS, lengths, dtype="float32")[0]
    torch.testing.assert_close(found, wanted)
    grads = [torch.autograd.grad(outputs.square().sum(), weights) for outputs in (found, wanted)]
    torch.testing.assert_close(*grads)
    torch.testing.assert_close(run(XS[:2, :3]), cw.dynamic_rnn(cell, XS[:2, :3], dtype="float32")[0])


def test_a_start_that_is_learned_is_exported_as_an_operator() -> None:
    module = Unroll(built(Learned(N))).eval()
    program = exported(module, strict=False)
    assert any("cellweave.lstm_forward" in str(node.target) for node in program.graph.nodes)
    with torch.no_grad():
        for found, wanted in zip(
            nest.flatten(program.module()(XS, LENGTHS)), nest.flatten(module(XS, LENGTHS)), strict=True
        ):
            torch.testing.assert_close(found, wanted)


ASKED = {"learned": LEARNED["stack"], **{name: CELLS[name] for name in ("joined", "keras", "stack")}}


@pytest.mark.parametrize("make", ASKED.values(), ids=ASKED)
def test_a_zero_state_that_is_asked_for_stays_in_the_graph(make: Any) -> None:
    cell = built(make()).eval()

    def call(x: torch.Tensor) -> Any:
        state = cell.get_initial_state(batch_size=x.shape[0], dtype="float32")
        return cw.dynamic_rnn(cell, x, initial_state=state)[0]

    run = torch.compile(call, backend="aot_eager", fullgraph=True, dynamic=True)
    for x in (XS, XS[:2, :3]):
        torch.testing.assert_close(run(x), call(x))


@pytest.mark.parametrize("start", [torch.zeros(1, N), torch.zeros(B, N, dtype=torch.float64), torch.zeros(B, N + 1)])
def test_a_start_that_does_not_fit_raises_in_compiled_code_too(start: torch.Tensor) -> None:
    class Own(cw.GRUCell):
        start: Any = None

        def zero_state(self, batch_size: Any, dtype: Any) -> Any:
            return super().zero_state(batch_size, dtype) if self.start is None else self.start

    cell = built(Own(N))
    cell.start = start
    with pytest.raises((cw.ShapeError, cw.DTypeError), match="Own: expected state"):
        torch.compile(lambda x: cw.dynamic_rnn(cell, x, dtype="float32")[0], backend="aot_eager")(XS)


def test_a_start_that_no_trace_can_follow_is_left_outside() -> None:
    class Counting(cw.GRUCell):
        def zero_state(self, batch_size: Any, dtype: Any) -> Any:
            return cw.get_variable("start", [batch_size, N], initializer=cw.initializers.Ones())

    cell = built(Counting(N))
    run = torch.compile(lambda x: cw.dynamic_rnn(cell, x, dtype="float32")[0], backend="aot_eager")
    torch.testing.assert_close(run(XS), cw.dynamic_rnn(cell, XS, dtype="float32")[0])


class Clipped(cw.LSTMCell):
    """A user's own cell that can be told to compute something else."""

    act, clip = "tanh", 0.5

    def spec(self) -> LSTMSpec:
        return LSTMSpec(N, self.act, cell_clip=self.clip)


@pytest.mark.parametrize("make", [lambda c: c, lambda c: cw.MultiRNNCell([cw.ResidualWrapper(c)])])
def test_what_a_spec_reads_is_guarded(make: Any) -> None:
    inner = Clipped(N)
    x = torch.cat([XS, XS], 2)[..., :N]
    cell = make(inner)
    cw.dynamic_rnn(cell, x, dtype="float32")
    run = torch.compile(lambda x: cw.dynamic_rnn(cell, x, dtype="float32")[0], backend="aot_eager", fullgraph=True)
    found = [run(x)]
    for name, value in (("act", "relu"), ("clip", 0.1), ("clip", 0.2), ("act", "tanh")):
        setattr(inner, name, value)
        found.append(run(x))
        torch.testing.assert_close(found[-1], cw.dynamic_rnn(cell, x, dtype="float32")[0])
        assert not torch.equal(found[-1], found[-2])


def test_an_unbuilt_cell_is_built_outside() -> None:
    cell = cw.GRUCell(N)
    run = torch.compile(lambda x: cw.dynamic_rnn(cell, x, dtype="float32")[0], backend="aot_eager")
    torch.testing.assert_close(run(XS), cw.dynamic_rnn(cell, XS, dtype="float32")[0])
    assert cell.scope_name == "rnn/gru_cell"


class Unroll(nn.Module):
    """An unroll as a module."""

    def __init__(self, cell: Any) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> Any:
        return cw.dynamic_rnn(self.cell, x, lengths, dtype="float32")


def exported(module: nn.Module, *, strict: bool) -> Any:
    rows, steps = torch.export.Dim("rows", min=2, max=64), torch.export.Dim("steps", min=2, max=100)
    shapes = {"x": {0: rows, 1: steps}, "lengths": {0: rows}}
    return torch.export.export(module, (XS, LENGTHS), dynamic_shapes=shapes, strict=strict)


@pytest.mark.parametrize("strict", [False, True], ids=["non-strict", "strict"])
@pytest.mark.parametrize("name", ["stack", "joined stack", "dropout", "keras", "sums"])
def test_export_with_other_sizes(name: str, strict: bool) -> None:
    module = Unroll(built(CELLS[name]()).eval())
    program = exported(module, strict=strict)
    saved = io.BytesIO()
    torch.export.save(program, saved)
    saved.seek(0)
    for back in (program.module(), torch.export.load(saved).module()):
        for rows, steps in ((7, 9), (2, 3), (B, T)):
            x = torch.randn(rows, steps, D)
            lengths = torch.arange(rows) % (steps + 1)
            for a, b in zip(nest.flatten(back(x, lengths)), nest.flatten(module(x, lengths)), strict=True):
                torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_an_export_that_draws_is_refused() -> None:
    with pytest.raises(cw.ModeError, match="dynamic_rnn: expected a cell in evaluation mode to export"):
        exported(Unroll(built(CELLS["dropout"]())), strict=False)
    with pytest.raises(torch._dynamo.exc.Unsupported, match="evaluation mode"):
        exported(Unroll(built(CELLS["dropout"]())), strict=True)


def test_lists_of_lengths_share_a_graph() -> None:
    cell = built(cw.GRUCell(N))
    run = torch.compile(
        lambda x, lengths: cw.dynamic_rnn(cell, x, lengths, dtype="float32")[0],
        backend="aot_eager", fullgraph=True, dynamic=True,
    )  # fmt: skip
    rows, steps = XS.shape[:2]
    for number, lengths in enumerate(([steps - k % steps for k in range(rows)], [0] * rows, [1] * rows)):
        with torch._dynamo.config.patch(error_on_recompile=number > 0):
            found = run(XS, lengths)
        torch.testing.assert_close(found, cw.dynamic_rnn(cell, XS, lengths, dtype="float32")[0])


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # torch's own, when they are first used
@pytest.mark.parametrize("name", ["lstm", "cudnn"])
def test_transforms_inside_leave_the_graph(name: str) -> None:
    """No operator has rules for them; torch's own operations have."""
    cell = built(cw.LSTMCell(N)) if name == "lstm" else cw.CudnnLSTM(1, N)
    run = (lambda x: cw.dynamic_rnn(cell, x, dtype="float32")[0]) if name == "lstm" else (lambda x: cell(x)[0])
    run(XS)
    for function in (
        torch.func.grad(lambda x: run(x).square().sum()),
        torch.func.vmap(lambda row: run(row[None])[0]),
        lambda x: torch.func.jvp(run, (x,), (x,))[1],
    ):
        torch._dynamo.reset()
        torch.testing.assert_close(torch.compile(function, backend="aot_eager")(XS), function(XS))
