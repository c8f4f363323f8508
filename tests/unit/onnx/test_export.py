"""ONNX files: which operators they hold, and what ONNX Runtime computes from them in a process of its own."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import cellweave as cw
from cellweave.ops.common._library import missing_reason
from helpers.onnx_cases import CASES, F32, D, N, OnnxCase, OnnxTable, inputs_of, randomize
from helpers.tolerances import assert_close

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

pytestmark = pytest.mark.skipif(
    missing_reason() is not None, reason=f"exported layers are the native core's: {missing_reason()}"
)

#: ONNX Runtime's own sigmoid and tanh differ from torch's by up to about 1e-6.
TOLERANCE = 1e-5
#: Rows and steps: those that the file is made with, and others.
SIZES = ((3, 5), (7, 9), (1, 1), (2, 30))
RECURRENT = ("RNN", "GRU", "LSTM", "Scan")

#: Runs a file without cellweave and without torch: the file, inputs by size, where results go.
RUNNER = """
import sys
import numpy as np
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
given, found = np.load(sys.argv[2]), {}
for size in {key.split("/")[0] for key in given}:
    feed = {i.name: given[f"{size}/{i.name}"] for i in session.get_inputs()}
    for number, value in enumerate(session.run(None, feed)):
        found[f"{size}/{number}"] = value
np.savez(sys.argv[3], **found)
assert "torch" not in sys.modules and "cellweave" not in sys.modules
"""


def run_elsewhere(file: Path, inputs: dict[str, Any], folder: Path) -> dict[str, np.ndarray]:
    """Results by size and number, from a fresh process."""
    np.savez(folder / "in.npz", **inputs)
    command = [
        sys.executable,
        "-W",
        "error",
        "-c",
        RUNNER,
        *[str(p) for p in (file, folder / "in.npz", folder / "out.npz")],
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    with np.load(folder / "out.npz") as found:
        return dict(found)


@pytest.fixture(scope="module")
def table() -> OnnxTable:
    torch.manual_seed(1)
    module = OnnxTable().eval()
    module(*inputs_of(2, 2, 0))
    randomize(module)
    return module


@dataclass(frozen=True)
class Written:
    """The table's file, what was logged as it was written, and how many steps were traced for its Scans."""

    path: Path
    said: list[str]
    traced: int


@pytest.fixture(scope="module")
def written(table: OnnxTable, tmp_path_factory: pytest.TempPathFactory) -> Written:
    from cellweave.onnx import export
    from cellweave.onnx._steps import step_graph

    said: list[logging.LogRecord] = []
    path = tmp_path_factory.mktemp("onnx") / "table.onnx"
    axes = {"x": {0: "B", 1: "T"}, "lengths": {0: "B"}, "resets": {0: "B", 1: "T"}, "state": {0: "B"}}
    names = [
        f"{case.name}.{k}"
        for case, found in zip(CASES, table.by_case(*inputs_of(*SIZES[0], 1)), strict=True)
        for k, _ in enumerate(found)
    ]
    step_graph.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging.Logger, "handle", lambda self, record: said.append(record))
        export(table, inputs_of(*SIZES[0], 1), path, dynamic_shapes=axes, output_names=names)
    shown = [record.getMessage() for record in said if record.levelno >= logging.WARNING]
    return Written(path, shown, step_graph.cache_info().misses)


@pytest.fixture(scope="module")
def file(written: Written) -> Path:
    return written.path


@pytest.fixture(scope="module")
def results(file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    names = ("x", "lengths", "resets", "state")
    inputs = {
        f"{number}/{name}": value.numpy()
        for number, size in enumerate(SIZES)
        for name, value in zip(names, inputs_of(*size, number), strict=True)
    }
    return run_elsewhere(file, inputs, tmp_path_factory.mktemp("results"))


def nodes_behind(graph: Any, outputs: list[str]) -> list[Any]:
    """The nodes that the values of some outputs come from."""
    producers = {name: node for node in graph.node for name in node.output if name}
    found: dict[int, Any] = {}
    waiting = list(outputs)
    while waiting:
        node = producers.get(waiting.pop())
        if node is not None and id(node) not in found:
            found[id(node)] = node
            waiting += [] if node.op_type == "Shape" else node.input  # a size may be read from any tensor that has it
    return list(found.values())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_operators(case: OnnxCase, file: Path) -> None:
    """A layer is one operator, and its weights stand in the file as that operator reads them."""
    graph = onnx.load(file).graph
    nodes = nodes_behind(graph, [o.name for o in graph.output if o.name.rpartition(".")[0] == case.name])
    found = Counter(node.op_type for node in nodes if node.op_type in RECURRENT)
    ways = [str(a.s, "ascii") for node in nodes for a in node.attribute if a.name == "direction"]
    assert found == Counter({kind: count for kind, count in case.holds.items() if kind != "both"})
    assert ways.count("bidirectional") == case.holds.get("both", 0)
    stored = {tensor.name for tensor in graph.initializer}
    for node in nodes:
        if node.op_type in ("RNN", "GRU", "LSTM"):
            assert {*node.input[1:4], *node.input[7:8]} - {""} <= stored


@pytest.mark.parametrize("number", range(len(SIZES)), ids=lambda n: "B{}-T{}".format(*SIZES[n]))
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_results(case: OnnxCase, number: int, table: OnnxTable, results: dict[str, np.ndarray]) -> None:
    """What a fresh process computes is what cellweave computes, for other sizes too."""
    with torch.no_grad():
        found = table.by_case(*inputs_of(*SIZES[number], number))
    place = CASES.index(case)
    first = sum(len(values) for values in found[:place])
    for k, expected in enumerate(found[place]):
        assert_close(f"{case.name}, result {k}", results[f"{number}/{first + k}"], expected, TOLERANCE)


def test_the_file_is_valid(file: Path) -> None:
    onnx.checker.check_model(str(file), full_check=True)


class Unroll(nn.Module):
    """One cell."""

    def __init__(self, cell: Any) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: torch.Tensor) -> Any:
        return cw.dynamic_rnn(self.cell, x, **F32)


class UnrollAndLayer(Unroll):
    """A cell, and a layer of cellweave.nn behind it."""

    def __init__(self) -> None:
        super().__init__(cw.BasicLSTMCell(N))
        self.layer = cw.nn.LSTM(N, N, bidirectional=True)

    def forward(self, x: torch.Tensor) -> Any:
        return self.layer(super().forward(x)[0])


@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning")  # torch's own
def test_the_table_for_torchs_exporter(tmp_path: Path) -> None:
    """Gradients may be on, as they are where a script forgets to turn them off."""
    from cellweave.onnx import translations

    module = Unroll(cw.MultiRNNCell([cw.GRUCell(N), cw.LSTMCell(N)])).eval()
    x = torch.randn(2, 3, D)
    module(x)
    program = torch.onnx.export(
        module, (x,), dynamo=True, verbose=False, dynamic_shapes={"x": {0: "B", 1: "T"}},
        custom_translation_table=translations(),
    )  # fmt: skip
    assert program is not None
    assert [n.op_type for n in program.model.graph if n.op_type in RECURRENT] == ["GRU", "LSTM"]
    program.save(tmp_path / "m.onnx")
    x = torch.randn(4, 7, D)
    found = run_elsewhere(tmp_path / "m.onnx", {"0/x": x.numpy()}, tmp_path)
    for k, expected in enumerate(torch.utils._pytree.tree_leaves(module(x))):
        assert_close(f"result {k}", found[f"0/{k}"], expected, TOLERANCE)


def test_training_mode_is_refused() -> None:
    from cellweave.onnx import export

    module = Unroll(cw.DropoutWrapper(cw.GRUCell(N), 0.5)).eval()
    module.cell.train()
    with pytest.raises(cw.ModeError, match="cellweave.onnx.export: expected .* evaluation mode, got"):
        export(module, [torch.randn(2, 3, D)])


def test_whatever_runs_the_layers() -> None:
    """Files are written from the native operators, which are never run for it."""
    from cellweave.onnx import export

    module = UnrollAndLayer().eval()
    with cw.use_backend("torch"):
        program = export(module, (torch.randn(4, 3, D),))
    operators = Counter(node.op_type for node in program.model_proto.graph.node)
    assert [operators[name] for name in RECURRENT] == [0, 0, 2, 0]


@pytest.mark.parametrize("given", [3, None, nn.GRU], ids=str)
def test_what_is_no_module(given: Any) -> None:
    from cellweave.onnx import export

    with pytest.raises(cw.ArgumentTypeError, match="export: expected a module, got"):
        export(given, (torch.randn(4, 3, D),))


def test_one_tensor_is_no_tuple_of_inputs() -> None:
    from cellweave.onnx import export

    with pytest.raises(cw.ArgumentTypeError, match="args as a tuple of example inputs, got a tensor"):
        export(cw.nn.GRU(3, 4).eval(), torch.zeros(2, 1, 3))


def test_nothing_is_logged(written: Written) -> None:
    """torch's exporter and optimizer speak of parts that nobody can do anything about."""
    assert written.said == []


def test_directions_share_their_step(written: Written) -> None:
    assert written.traced == sum("Scan" in case.holds for case in CASES)
