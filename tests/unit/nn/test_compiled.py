"""Modules in compiled and exported code: one graph, made once for all lengths and batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

import cellweave
from cellweave.ops.common import RunContext
from cellweave.ops.common._library import missing_reason
from cellweave.specs import LSTMSpec, RunSpec
from helpers.tolerances import assert_close, assert_same_bits
from helpers.torch_pairs import DIFFERENCE, leaves, run

pytestmark = [
    pytest.mark.skipif(missing_reason() is not None, reason=f"compiled code runs on the core: {missing_reason()}"),
    # torch's own, where inductor is first used
    pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning"),
]

MAKES: dict[str, dict[str, Any]] = {
    "plain": {},
    "stack": {"num_layers": 2, "bidirectional": True, "batch_first": True, "dropout": 0.3},
    "all": {
        "num_layers": 2, "bidirectional": True, "input_dropout": 0.2, "state_dropout": 0.2, "output_dropout": 0.2,
        "weight_dropout": 0.3, "residual": True, "zoneout": 0.2,
    },
    "steps": {"input_dropout": 0.2, "state_dropout": 0.2, "variational": False},
    "gates": {"num_layers": 2, "input_dropout": 0.2, "state_dropout": 0.2, "mask_per_gate": True},
}  # fmt: skip


def make(name: str, kind: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return getattr(cellweave.nn, name)(5, 7, **MAKES[kind])  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("name", "kind"), [("RNN", "plain"), ("LSTM", "stack"), ("GRU", "all"), ("LSTM", "steps"), ("GRU", "gates")]
)
def test_one_graph_for_all_sizes(name: str, kind: str) -> None:
    torch._dynamo.reset()
    module = make(name, kind)
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend="aot_eager")
    for steps, rows in ((6, 4), (3, 4), (9, 2)):
        shape = (rows, steps, 5) if module.batch_first else (steps, rows, 5)
        x = torch.randn(shape)
        lengths = torch.randint(0, steps + 1, (rows,))
        resets = torch.rand(shape[:2]) < 0.2
        options = {"lengths": lengths, "resets": resets, "return_all_states": kind == "all"}
        with torch._dynamo.config.patch(error_on_recompile=steps != 6):
            results = [run(f, x, None, **options) for f in (module, compiled)]
        flat = [leaves(result) + [d for d in grads if d is not None] for result, grads in results]
        for number, (a, b) in enumerate(zip(flat[1], flat[0], strict=True)):
            assert_close(f"{number}", a, b, DIFFERENCE[torch.float32])


def test_inductor() -> None:
    torch._dynamo.reset()
    module = make("GRU", "steps")
    compiled = torch.compile(module, fullgraph=True, dynamic=True)
    x = torch.randn(6, 4, 5)
    module.eval()
    for steps in (6, 3):
        for a, b in zip(leaves(compiled(x[:steps])), leaves(module(x[:steps])), strict=True):
            assert_close("output", a, b, DIFFERENCE[torch.float32])
    module.train()
    outputs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outputs.append(compiled(x)[0])
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])
    outputs[2].sum().backward()
    assert all(weight.grad is not None for weight in module.parameters())


@pytest.mark.parametrize(("name", "kind"), [("RNN", "stack"), ("LSTM", "stack"), ("GRU", "plain")])
def test_export(name: str, kind: str, tmp_path: Path) -> None:
    module = make(name, kind).eval()
    steps, rows = torch.export.Dim("steps", min=2), torch.export.Dim("rows", min=2)
    axes = {0: rows, 1: steps} if module.batch_first else {0: steps, 1: rows}
    program = torch.export.export(
        module, (torch.randn(6, 4, 5),), {"lengths": torch.tensor([2] * (6 if module.batch_first else 4))},
        dynamic_shapes={"input": axes, "lengths": {0: rows}},
    )  # fmt: skip
    path = tmp_path / "module.pt2"
    torch.export.save(program, path)
    again = torch.export.load(path).module()
    x = torch.randn(3, 8, 5) if module.batch_first else torch.randn(8, 3, 5)
    lengths = torch.tensor([8, 0, 5])
    for a, b in zip(leaves(again(x, lengths=lengths)), leaves(module(x, lengths=lengths)), strict=True):
        assert_close("output", a, b, DIFFERENCE[torch.float32])


def test_torchs_own_layers() -> None:
    """In a graph as what they are."""
    torch._dynamo.reset()
    module = make("LSTM", "plain")
    with cellweave.use_backend("torch"):
        compiled = torch.compile(module, fullgraph=True, dynamic=True, backend="aot_eager")
        for steps in (3, 2):
            results = [run(f, torch.randn(steps, 4, 5, generator=torch.Generator().manual_seed(1)), None) for f in
                       (module, compiled)]  # fmt: skip
            flat = [leaves(result) + [d for d in grads if d is not None] for result, grads in results]
            for number, (a, b) in enumerate(zip(flat[1], flat[0], strict=True)):
                assert_close(f"{number}", a, b, DIFFERENCE[torch.float32])


@pytest.mark.parametrize(
    ("backend", "options"), [("reference", {}), ("torch", {"lengths": torch.tensor([6, 0, 3, 1])})]
)
def test_what_no_graph_has_runs_outside_of_it(backend: str, options: dict[str, Any]) -> None:
    torch._dynamo.reset()
    module = make("GRU", "plain")
    x = torch.randn(6, 4, 5)
    with cellweave.use_backend(backend):
        compiled = torch.compile(module, backend="aot_eager")
        with torch.no_grad():
            for a, b in zip(leaves(compiled(x, **options)), leaves(module(x, **options)), strict=True):
                assert_close("output", a, b, DIFFERENCE[torch.float32])
        torch._dynamo.reset()
        with pytest.raises(torch._dynamo.exc.Unsupported):
            torch.compile(module, backend="aot_eager", fullgraph=True)(x, **options)


def test_a_backend_that_cannot_says_why() -> None:
    torch._dynamo.reset()
    module = cellweave.nn.LSTM(5, 7, layer_norm=True)
    x = torch.randn(6, 4, 5)
    with cellweave.use_backend("torch"):
        with pytest.raises(cellweave.BackendError, match="does not normalize"):
            torch.compile(module, backend="aot_eager")(x)
        with pytest.raises(cellweave.ModeError, match="does not normalize"):
            torch.export.export(module.eval(), (x,))


# dynamo's own, of each tensor that comes back from outside of a graph
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_masks_that_no_graph_can_have_act_outside_of_it() -> None:
    torch._dynamo.reset()
    module = cellweave.nn.LSTM(5, 7, input_dropout=0.4, state_dropout=0.4, variational=False)
    x = torch.randn(6, 4, 5)
    with cellweave.use_backend("reference"):
        outputs = []
        for function in (module, torch.compile(module, backend="aot_eager")):
            torch.manual_seed(3)
            outputs.append(function(x)[0])
        with pytest.raises(cellweave.ModeError, match="graph"):
            torch.export.export(module, (x,))
    assert_close("outputs", outputs[1], outputs[0], DIFFERENCE[torch.float32])


# dynamo's own, of each state that comes back from a graph
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_a_cell_begins_and_goes_on_in_graphs_of_their_own() -> None:
    torch._dynamo.reset()
    cell = cellweave.nn.GRUCell(5, 7, input_dropout=0.3, output_dropout=0.3, weight_dropout=0.3, zoneout=0.3)
    graphs = CompileCounterWithBackend("eager")
    compiled = torch.compile(cell, fullgraph=True, dynamic=True, backend=graphs)

    def loop(step: Any, x: torch.Tensor) -> list[torch.Tensor]:
        torch.manual_seed(1)
        cell.reset_masks()
        outputs, h = [], torch.zeros(x.shape[1], 7)
        for inputs in x:
            output, h = step(inputs, h, return_output=True)
            outputs.append(output)
        results = [torch.stack(outputs), h]
        return [*results, *torch.autograd.grad(sum(value.pow(2).sum() for value in results), list(cell.parameters()))]

    counts = []
    for rows in (4, 2, 3):
        x = torch.randn(4, rows, 5)
        for a, b in zip(loop(compiled, x), loop(cell, x), strict=True):
            assert_close("value or gradient", a, b, DIFFERENCE[torch.float32])
        counts.append(graphs.frame_count)
    assert counts[0] >= 2 and counts[1] == counts[2], counts


def test_no_program_keeps_masks() -> None:
    cell = cellweave.nn.GRUCell(5, 7, state_dropout=0.3)
    with pytest.raises(cellweave.ModeError, match=r"GRUCell: expected nothing random.*\.eval\(\)"):
        torch.export.export(cell, (torch.randn(2, 5),))
    cell.eval()
    x = torch.randn(2, 5)
    assert_close("exported", torch.export.export(cell, (x,)).module()(x), cell(x), 1e-6)


class _Packing(torch.nn.Module):
    def __init__(self, rnn: torch.nn.Module) -> None:
        super().__init__()
        self.rnn = rnn

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
        return torch.nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0])[0]


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize("name", ["RNN", "GRU", "LSTM"])
def test_packed_inputs_run_outside_of_graphs(name: str) -> None:
    """As torch.nn's modules do."""
    torch._dynamo.reset()
    model = _Packing(getattr(cellweave.nn, name)(3, 4))
    call = torch.compile(model, backend="eager")
    for steps, lengths in ((5, [3, 5]), (4, [4, 4])):
        x, given = torch.randn(steps, 2, 3), torch.tensor(lengths)
        assert torch.equal(call(x, given), model(x, given))
    packed = torch.nn.utils.rnn.pack_padded_sequence(torch.randn(5, 2, 3), [5, 3])
    with pytest.raises(cellweave.ModeError, match="expected padded inputs in an export, got packed ones"):
        torch.export.export(model.rnn, (packed,), strict=False)


@pytest.mark.parametrize("has_it", [False, True])
def test_bfloat16_where_onednn_may_have_none(has_it: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compilers put oneDNN's LSTM in the place of torch's without asking."""
    from cellweave.weave import _choice

    monkeypatch.setattr(_choice, "_onednn_has_bfloat16", lambda: has_it)
    context = RunContext(torch.bfloat16, "cpu", 3, 2, 3, False, transforms=False)
    run = RunSpec(LSTMSpec(4))
    obstacle = _choice.graph_obstacle(_choice.choose(run, context, "torch"), run, torch.bfloat16)
    assert ("bfloat16" in obstacle) is not has_it


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_bfloat16_in_compiled_code() -> None:
    torch._dynamo.reset()
    module = cellweave.nn.LSTM(3, 4).bfloat16()
    x = torch.randn(5, 2, 3).bfloat16()
    outputs = torch.compile(module, backend="aot_eager")(x)[0]
    assert_close("outputs", outputs.float(), module(x)[0].float(), 2**-6)


HALVES: dict[str, dict[str, Any]] = {
    "plain": {},
    "masks": {"state_dropout": 0.3, "output_dropout": 0.4, "zoneout": 0.1},
}


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize("options", HALVES.values(), ids=list(HALVES))
@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_half_precision_in_a_whole_graph(name: str, options: dict[str, Any], dtype: torch.dtype) -> None:
    """The native operator, in float32, with the masks that the module draws outside of graphs."""
    torch._dynamo.reset()
    module = getattr(cellweave.nn, name)(3, 4, **options).to(dtype)
    x = torch.randn(5, 2, 3).to(dtype).requires_grad_()
    found = []
    for call in (torch.compile(module, backend="aot_eager", fullgraph=True), module):
        torch.manual_seed(3)
        outputs = call(x)[0]
        found.append([outputs, *torch.autograd.grad(outputs.float().square().sum(), [x, *module.parameters()])])
    for number, (inside, outside) in enumerate(zip(*found, strict=True)):
        assert inside.dtype == dtype
        assert_same_bits(f"tensor {number}", inside, outside)


@pytest.mark.parametrize("lower", [torch.bfloat16, torch.float16], ids=["to-bf16", "to-fp16"])
def test_autocast_in_a_graph_rounds_as_outside_of_one(lower: torch.dtype) -> None:
    torch._dynamo.reset()
    module, x = cellweave.nn.LSTM(6, 20), torch.randn(5, 20, 6)
    with torch.no_grad(), torch.autocast("cpu", lower):
        inside, outside = torch.compile(module, backend="aot_eager", fullgraph=True)(x)[0], module(x)[0]
    assert_same_bits("outputs", inside, outside)


def test_half_precision_exported_for_other_lengths() -> None:
    module = cellweave.nn.GRU(3, 4).bfloat16().eval()
    dims = {"input": {0: torch.export.Dim("steps", min=2), 1: torch.export.Dim("rows", min=2)}}
    exported = torch.export.export(module, (torch.randn(5, 2, 3).bfloat16(),), dynamic_shapes=dims).module()
    x = torch.randn(9, 4, 3).bfloat16()
    assert_same_bits("outputs", exported(x)[0], module(x)[0])


def test_exported_with_resets_in_both_directions() -> None:
    module = cellweave.nn.GRU(3, 4, bidirectional=True).eval()
    steps, false = torch.export.Dim("steps", min=2, max=100), torch.zeros(5, 2, dtype=torch.bool)
    shapes = {"input": {0: steps}, "resets": {0: steps}}
    exported = torch.export.export(module, (torch.randn(5, 2, 3),), {"resets": false}, dynamic_shapes=shapes).module()
    x, resets = torch.randn(9, 2, 3), torch.rand(9, 2) < 0.3
    assert_close("outputs", exported(x, resets=resets)[0], module(x, resets=resets)[0], DIFFERENCE[x.dtype])


# dynamo's own, of each tensor that comes back from outside of a graph
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # torch's own, when they are first used
@pytest.mark.parametrize("kind", ["plain", "all"])
def test_transforms_inside_leave_the_graph(kind: str) -> None:
    """No operator has rules for them; torch's own operations have."""
    module, x = make("GRU", kind), torch.randn(6, 4, 5)
    for function in (
        torch.func.grad(lambda x: module(x)[0].square().sum()),
        torch.func.vmap(lambda x: module(x[:, None])[0], 1, randomness="same"),
        lambda x: torch.func.jvp(lambda x: module(x)[0], (x,), (x,))[1],
    ):
        torch._dynamo.reset()
        found = []
        for run_ in (function, torch.compile(function, backend="aot_eager")):
            torch.manual_seed(3)
            found.append(run_(x))
        assert_close("found", found[1], found[0], DIFFERENCE[torch.float32])
        torch._dynamo.reset()
        with pytest.raises(torch._dynamo.exc.Unsupported, match="cellweave: what runs this module here has no place"):
            torch.compile(function, backend="aot_eager", fullgraph=True)(x)


def test_an_export_has_the_steps_of_transforms() -> None:
    module = make("GRU", "plain").eval()

    class Rows(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.func.vmap(lambda x: module(x[:, None])[0], 1)(x)

    x = torch.randn(6, 4, 5)
    with torch.no_grad():
        program = torch.export.export(Rows(), (x,))
        assert_close("outputs", program.module()(x), Rows()(x), DIFFERENCE[torch.float32])


@pytest.mark.slow
def test_inductor_with_resets_and_lengths_in_both_directions() -> None:
    """Where the reverse direction starts anew is a mask of a mask, of which inductor makes C++ that may not compile."""
    torch._dynamo.reset()
    module = make("GRU", "stack").eval()
    compiled = torch.compile(module, fullgraph=True, dynamic=True)
    for steps, rows in ((19, 17), (7, 5)):
        options = {"lengths": torch.randint(0, steps + 1, (rows,)), "resets": torch.rand(rows, steps) < 0.3}
        x = torch.randn(rows, steps, 5)
        for a, b in zip(leaves(compiled(x, **options)), leaves(module(x, **options)), strict=True):
            assert_close("results", a, b, DIFFERENCE[torch.float32])
