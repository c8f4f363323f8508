"""Cells that run step by step, exported for any number of rows and steps: what eager code gives.

Saved, loaded and compiled ahead of time they are in test_packaged.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import cellweave as cw
from cellweave import contrib
from helpers.step_cells import Nested
from helpers.tolerances import assert_close

pytestmark = pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning")  # torch's own

D, N = 4, 6
F32: dict[str, Any] = {"dtype": "float32"}
SIZES = ((3, 5), (7, 9), (1, 1), (2, 30))


class Unrolled(nn.Module):
    """Layers that no backend knows."""

    def __init__(self) -> None:
        super().__init__()
        self.own, self.nas = Nested(), cw.DropoutWrapper(contrib.NASCell(N), 0.5, 0.5, 0.5)
        self.stack = cw.MultiRNNCell([cw.GRUCell(D), contrib.UGRNNCell(N)])
        self.forwards, self.backwards = contrib.UGRNNCell(N), cw.LSTMCell(N)
        self.block = contrib.TimeReversedFusedRNN(contrib.LSTMBlockFusedCell(N))

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> Any:
        """All results of all layers."""
        start = ((x[:, 0, :1].expand(-1, N), x[:, 0, 1:]), x[:, 0].mean(1, keepdim=True).expand(-1, N))
        resets, after = x[:, :, 0] > 0.4, cw.LSTMStateTuple(x[:, 0, :1] + torch.zeros(N), x[:, 0, 1:2] * torch.ones(N))
        return (
            cw.dynamic_rnn(self.own, x, lengths, start),
            cw.dynamic_rnn(self.nas, x, lengths, **F32, resets=resets, reset_state=after),
            cw.dynamic_rnn(self.stack, x.transpose(0, 1), time_major=True, **F32),
            cw.bidirectional_dynamic_rnn(self.forwards, self.backwards, x, lengths, **F32),
            self.block(x.transpose(0, 1), dtype=torch.float32, sequence_length=lengths),
        )


class One(nn.Module):
    """One cell."""

    def __init__(self, cell: Any) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> Any:
        """Its unroll."""
        return cw.dynamic_rnn(self.cell, x, lengths, **F32)


def inputs_of(rows: int, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """x, and lengths of which one is T and, where there are several rows, one is 0."""
    generator = torch.Generator().manual_seed(rows)
    lengths = torch.arange(rows) % (steps + 1)
    lengths[-1] = steps
    return torch.randn(rows, steps, D, generator=generator), lengths


def exported(module: nn.Module, *, steps: bool = True) -> Any:
    rows, time = torch.export.Dim("rows", max=64), torch.export.Dim("steps", max=100)
    shapes = {"x": {0: rows, **({1: time} if steps else {})}, "lengths": {0: rows}}
    with torch.no_grad():
        return torch.export.export(module, inputs_of(*SIZES[0]), dynamic_shapes=shapes)


@pytest.fixture(scope="module")
def model() -> Unrolled:
    torch.manual_seed(3)
    model = Unrolled().eval()
    model(*inputs_of(*SIZES[0]))
    with torch.no_grad():
        for weight in model.parameters():
            weight.uniform_(-0.6, 0.6)
    return model


def compare(found: list[Any], model: nn.Module, size: tuple[int, int], tolerance: float = 1e-6) -> None:
    with torch.no_grad():
        expected = torch.utils._pytree.tree_leaves(model(*inputs_of(*size)))
    for number, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert_close(f"{size}, result {number}", a, b, tolerance)


def test_other_sizes(model: Unrolled) -> None:
    program = exported(model)
    run = program.module()
    for size in SIZES:
        with torch.no_grad():
            compare(torch.utils._pytree.tree_leaves(run(*inputs_of(*size))), model, size)
    scans = [node for node in program.graph.nodes if node.target is torch.ops.higher_order.scan]
    assert len(scans) >= 5


def test_onnx(model: Unrolled, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    from cellweave.onnx import export

    file = tmp_path / "steps.onnx"
    export(model, inputs_of(*SIZES[0]), file, dynamic_shapes={"x": {0: "B", 1: "T"}, "lengths": {0: "B"}})
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    for size in SIZES:
        x, lengths = inputs_of(*size)
        compare(session.run(None, {"x": x.numpy(), "lengths": lengths.numpy()}), model, size, 1e-5)


class Counting(cw.RNNCell):
    """Counts its calls outside of its state."""

    state_size = output_size = N
    calls = 0

    def call(self, inputs: torch.Tensor, state: torch.Tensor) -> Any:
        self.calls += 1
        return state * self.calls, state + 1


class Widening(cw.RNNCell):
    """Gives a state of another dtype than it takes, once it is told to."""

    state_size = output_size = N
    widens = False

    def call(self, inputs: torch.Tensor, state: torch.Tensor) -> Any:
        return state, state.double() if self.widens else state


def test_steps_that_differ_are_refused() -> None:
    module = One(Counting()).eval()
    module(*inputs_of(2, 2))
    with pytest.raises(cw.ModeError, match="dynamic_rnn: expected Counting to compute the same at every step"):
        exported(module)


def test_another_state_is_refused() -> None:
    module = One(Widening()).eval()
    module(*inputs_of(2, 2))
    module.cell.widens = True
    with pytest.raises(cw.DTypeError, match=r"dynamic_rnn: expected the cell's new state of .*float32.* got float64"):
        exported(module)


@pytest.mark.parametrize(
    "cell",
    [
        lambda: cw.DropoutWrapper(contrib.NASCell(N), 0.5),
        lambda: contrib.LayerNormBasicLSTMCell(N, dropout_keep_prob=0.5),
    ],
    ids=["wrapper", "candidate"],
)
def test_masks_are_refused(cell: Any) -> None:
    module = One(cell())
    module(*inputs_of(2, 2))
    with pytest.raises(cw.ModeError, match="evaluation mode to export"):
        exported(module)


def test_a_new_cell_is_refused() -> None:
    with pytest.raises(cw.ModeError, match="got a new NASCell. Call the model once before"):
        exported(One(contrib.NASCell(N)).eval())


def test_static_rnn_takes_other_rows() -> None:
    class Static(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = contrib.UGRNNCell(N)

        def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> Any:
            return cw.static_rnn(self.cell, list(x.unbind(1)), sequence_length=lengths, **F32)

    module = Static().eval()
    module(*inputs_of(2, 5))
    with torch.no_grad():
        found = exported(module, steps=False).module()(*inputs_of(7, 5))
    compare(torch.utils._pytree.tree_leaves(found), module, (7, 5))


def test_a_loop_that_ends_by_values_is_refused() -> None:
    class Raw(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = cw.GRUCell(N)

        def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> Any:
            def loop(time: int, output: Any, state: Any, _: Any) -> Any:
                state = self.cell.zero_state(x.shape[0], "float32") if time == 0 else state
                return time >= lengths, x[:, min(time, 4)], state, output, None

            return cw.raw_rnn(self.cell, loop)[1]

    module = Raw().eval()
    module(*inputs_of(2, 5))
    with pytest.raises(cw.ModeError, match="raw_rnn: expected a loop whose end is known .* got one that ends by"):
        exported(module, steps=False)
