"""Exported programs in a process of their own: saved, loaded, and compiled ahead of time, for other sizes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import cellweave as cw
from cellweave import contrib, keras
from cellweave.ops.common._library import missing_reason
from helpers.step_cells import Flat
from helpers.tolerances import assert_close

pytestmark = [
    pytest.mark.skipif(missing_reason() is not None, reason=f"exported layers are native: {missing_reason()}"),
    # torch's own, where inductor is first used
    pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning"),
]

D, N = 4, 6
F32: dict[str, Any] = {"dtype": "float32"}
SIZES = ((3, 5), (7, 9), (1, 1), (2, 40))

#: Runs a program on several sizes; a warning is an error, and so is a step that asks Python for anything but operators.
RUNNER = """
import sys
import torch
import cellweave.ops
kind, program, inputs, results = sys.argv[1:]
run = torch.export.load(program).module() if kind == "export" else torch._inductor.aoti_load_package(program)
with torch.no_grad():
    torch.save([torch.utils._pytree.tree_leaves(run(*given)) for given in torch.load(inputs)], results)
"""


class Tagger(nn.Module):
    """Both directions, masks that evaluation leaves out, a stack, a bound and a projection, resets, a cuDNN layer,
    and a layer that runs step by step.
    """

    def __init__(self) -> None:
        super().__init__()
        stack = cw.MultiRNNCell([cw.GRUCell(D), cw.ResidualWrapper(keras.LSTMCell(D))])
        self.forwards = cw.DropoutWrapper(stack, 0.5, 0.5, 0.5)
        self.backwards = cw.LSTMCell(N, use_peepholes=True, cell_clip=0.4, num_proj=3)
        self.again, self.top = cw.BasicRNNCell(N), cw.CudnnGRU(2, N)
        self.steps = cw.DropoutWrapper(cw.MultiRNNCell([Flat(), contrib.UGRNNCell(N)]), 0.5)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> Any:
        """Outputs of both directions, and all states."""
        both, states = cw.bidirectional_dynamic_rnn(self.forwards, self.backwards, x, lengths, **F32)
        again, state = cw.dynamic_rnn(self.again, x, **F32, resets=x[..., 0] > 0.5)
        top, last = self.top(torch.cat([*both, again], 2).transpose(0, 1), sequence_lengths=lengths, training=False)
        return top, states, state, last, cw.dynamic_rnn(self.steps, x, lengths, **F32)


def inputs_of(rows: int, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(rows)
    lengths = torch.randint(0, steps + 1, (rows,), generator=generator)
    return torch.randn(rows, steps, D, generator=generator), lengths


@pytest.fixture(scope="module")
def model() -> Tagger:
    torch.manual_seed(2)
    model = Tagger().eval()
    model(*inputs_of(2, 2))
    with torch.no_grad():
        for weight in model.parameters():
            weight.uniform_(-0.6, 0.6)
    return model


@pytest.fixture(scope="module")
def program(model: Tagger) -> Any:
    rows, steps = torch.export.Dim("rows", max=64), torch.export.Dim("steps", max=100)
    with torch.no_grad():
        return torch.export.export(
            model, inputs_of(*SIZES[0]), dynamic_shapes={"x": {0: rows, 1: steps}, "lengths": {0: rows}}
        )


def check(kind: str, saved: Path, model: Tagger) -> None:
    given = [inputs_of(*size) for size in SIZES if size != (1, 1) or kind == "package"]
    torch.save(given, saved.parent / "in.pt")
    files = [str(saved), str(saved.parent / "in.pt"), str(saved.parent / "out.pt")]
    command = [sys.executable, "-W", "error", "-c", RUNNER, kind, *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for inputs, found in zip(given, torch.load(saved.parent / "out.pt"), strict=True):
        with torch.no_grad():
            expected = torch.utils._pytree.tree_leaves(model(*inputs))
        for number, (a, b) in enumerate(zip(found, expected, strict=True)):
            assert_close(f"{list(inputs[0].shape)}, result {number}", a, b, 1e-6)


def test_saved_and_loaded(program: Any, model: Tagger, tmp_path: Path) -> None:
    torch.export.save(program, tmp_path / "tagger.pt2")
    check("export", tmp_path / "tagger.pt2", model)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling ahead of time needs g++")
def test_compiled_ahead_of_time(program: Any, model: Tagger, tmp_path: Path) -> None:
    package = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "tagger.pt2"))
    check("package", Path(package), model)
