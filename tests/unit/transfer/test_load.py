"""Loading by names: what is found, what is refused, and that nothing is half-loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import cellweave as cw
from cellweave.checkpoint import open_checkpoint, write_checkpoint

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, rng: np.random.Generator) -> Write:
    """Writes a checkpoint of random values in these shapes."""

    def written(shapes: dict[str, tuple[int, ...]]) -> Path:
        arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
        write_checkpoint(tmp_path / "m", arrays, overwrite=True)
        return tmp_path / "m"

    return written


def gru(scope: str, depth: int = 3, units: int = 2) -> dict[str, tuple[int, ...]]:
    return {
        f"{scope}/gates/kernel": (depth + units, 2 * units),
        f"{scope}/gates/bias": (2 * units,),
        f"{scope}/candidate/kernel": (depth + units, units),
        f"{scope}/candidate/bias": (units,),
    }


def stored(path: Path, name: str) -> torch.Tensor:
    with open_checkpoint(path) as checkpoint:
        return torch.from_numpy(checkpoint[name].copy())


@pytest.mark.parametrize("scope", ["gru_cell", "a/rnn/gru_cell", "rnn/rnn/gru_cell", "x/foo/rnn/gru_cell_1"])
def test_a_cell_below_any_scope(write: Write, scope: str) -> None:
    path, cell = write(gru(scope)), cw.GRUCell(2)
    cw.load_tf1(cell, path)
    assert torch.equal(cell.gates_kernel, stored(path, f"{scope}/gates/kernel"))
    assert f"{scope}/gates/kernel" in cw.variable_names(cell)


def test_a_built_cell_keeps_its_name_and_weights_when_nothing_fits(write: Write) -> None:
    cell = cw.GRUCell(2)
    cell.build([None, 4])
    before = cell.gates_kernel.detach().clone()
    with pytest.raises(cw.CheckpointError, match=r"gru_cell/gates/kernel is \[5, 4\], expected \[6, 4\]"):
        cw.load_tf1(cell, write(gru("rnn/gru_cell")))
    assert torch.equal(cell.gates_kernel, before)


def test_nothing_is_half_loaded(write: Write) -> None:
    model = nn.ModuleDict({"cell": cw.GRUCell(2), "dense": nn.Linear(2, 5)})
    before = model["dense"].weight.detach().clone()
    with pytest.raises(cw.CheckpointError, match=r"dense\.bias \[5\]: no variable like dense/bias"):
        cw.load_tf1(model, write(gru("rnn/gru_cell") | {"dense/kernel": (2, 5)}))
    assert not model["cell"].built
    assert torch.equal(model["dense"].weight, before)
    report = cw.load_tf1(model, write(gru("rnn/gru_cell") | {"dense/kernel": (2, 5)}), strict=False)
    assert [row.parameter for row in report.missing] == ["dense.bias"]
    assert model["cell"].built


def test_two_places_alike_are_not_chosen_between(write: Write) -> None:
    path = write(gru("a/gru_cell") | gru("b/gru_cell"))
    with pytest.raises(cw.CheckpointError, match="it fits a/gru_cell, b/gru_cell alike: say which"):
        cw.load_tf1(cw.GRUCell(2), path)
    cell = cw.GRUCell(2)
    cw.load_tf1(cell, path, scope="b")
    assert torch.equal(cell.gates_bias, stored(path, "b/gru_cell/gates/bias"))
    pair = {"b": cw.GRUCell(2), "a": cw.GRUCell(2)}
    cw.load_tf1(pair, path)  # the names of the parts tell
    assert torch.equal(pair["a"].gates_bias, stored(path, "a/gru_cell/gates/bias"))
    pair = {"one": cw.GRUCell(2), "two": cw.GRUCell(2)}
    cw.load_tf1(pair, path, map={"one": "b", "two": "a/gru_cell"})
    assert torch.equal(pair["two"].gates_bias, stored(path, "a/gru_cell/gates/bias"))


def test_the_scope_of_no_name_is_everywhere(write: Write) -> None:
    model = nn.ModuleDict({"cell": cw.GRUCell(2), "dense": nn.Linear(2, 5)})
    path = write(gru("rnn/gru_cell") | {"dense/kernel": (2, 5), "dense/bias": (5,)})
    report = cw.load_tf1(model, path, scope="")
    assert [row.parameter for row in report.loaded if row.parameter.startswith("dense")] == [
        "dense.weight",
        "dense.bias",
    ]
    assert torch.equal(model["dense"].bias, stored(path, "dense/bias"))


def test_other_cells_are_not_taken_for_it(write: Write) -> None:
    lstm = {"rnn/lstm_cell/kernel": (5, 8), "rnn/lstm_cell/bias": (8,), "rnn/lstm_cell/w_f_diag": (2,)}
    with pytest.raises(cw.CheckpointError, match=r"also holds w_f_diag \[2\]"):
        cw.load_tf1(cw.LSTMCell(2), write(lstm))
    cudnn = {"rnn/cudnn_compatible_lstm_cell/kernel": (5, 8), "rnn/cudnn_compatible_lstm_cell/bias": (8,)}
    with pytest.raises(cw.CheckpointError, match="build it with forget_bias=0"):
        cw.load_tf1(cw.LSTMCell(2), write(cudnn))
    cw.load_tf1(cw.LSTMCell(2, forget_bias=0.0), write(cudnn))


def test_stacks_have_as_many_cells(write: Write) -> None:
    path = write(gru("rnn/multi_rnn_cell/cell_0/gru_cell") | gru("rnn/multi_rnn_cell/cell_1/gru_cell", depth=2))
    with pytest.raises(cw.CheckpointError, match="multi_rnn_cell/cell_1, the module's stack has 1"):
        cw.load_tf1(cw.MultiRNNCell([cw.GRUCell(2)]), path)
    with pytest.raises(cw.CheckpointError, match="is a stack of 2 cells"):
        cw.load_tf1(cw.GRUCell(2), path)


def test_cells_of_a_stack_in_wrappers_of_their_own(write: Write) -> None:
    scopes = ["rnn/multi_rnn_cell/cell_0/mine", "rnn/multi_rnn_cell/cell_1/mine/too"]
    path = write(gru(f"{scopes[0]}/gru_cell") | gru(f"{scopes[1]}/gru_cell", depth=2))
    stack = cw.MultiRNNCell([cw.GRUCell(2), cw.GRUCell(2)])
    cw.load_tf1(stack, path)
    for cell, scope in zip(stack.cells, scopes, strict=True):
        assert torch.equal(cell.gates_kernel, stored(path, f"{scope}/gru_cell/gates/kernel"))


def test_parts_of_other_cells_are_not_taken_for_wrapped_ones(write: Write) -> None:
    """A GRU's gates fit a plain cell of twice the units."""
    path = write(gru("rnn/multi_rnn_cell/cell_0/gru_cell", depth=9))
    with pytest.raises(cw.CheckpointError, match="cell_0/basic_rnn_cell is not there"):
        cw.load_tf1(cw.MultiRNNCell([cw.BasicRNNCell(4)]), path)


def test_one_cell_in_two_places(write: Write) -> None:
    once = write(gru("rnn/multi_rnn_cell/cell_0/gru_cell", depth=2))
    cell = cw.GRUCell(2)
    cw.load_tf1(cw.MultiRNNCell([cell, cell]), once)
    twice = write(gru("RNN/multi_rnn_cell/cell_0/gru_cell", 2) | gru("RNN/multi_rnn_cell/cell_1/gru_cell", 2))
    cell = cw.GRUCell(2)
    with pytest.raises(cw.CheckpointError, match="Make a cell for each place"):
        cw.load_tf1(cw.MultiRNNCell([cell, cell]), twice)
    assert not cell.built


def test_both_directions(write: Write) -> None:
    path = write(gru("enc/bidirectional_rnn/fw/gru_cell") | gru("enc/bidirectional_rnn/bw/gru_cell"))
    fw, bw = cw.GRUCell(2), cw.GRUCell(2)
    cw.load_tf1((fw, bw), path)
    assert torch.equal(bw.gates_kernel, stored(path, "enc/bidirectional_rnn/bw/gru_cell/gates/kernel"))
    shared = cw.GRUCell(2)
    cw.load_tf1((shared, shared), write(gru("bidirectional_rnn/fw/gru_cell")))
    with pytest.raises(cw.CheckpointError, match="cell of the other direction, fw"):
        cw.load_tf1((cw.GRUCell(2), cw.GRUCell(2)), write(gru("bidirectional_rnn/fw/gru_cell")))


def test_averages_on_request(write: Write) -> None:
    plain, tail = gru("rnn/gru_cell"), "/ExponentialMovingAverage"
    path, cell = write(plain | {name + tail: shape for name, shape in plain.items()}), cw.GRUCell(2)
    cw.load_tf1(cell, path)
    assert torch.equal(cell.gates_kernel, stored(path, "rnn/gru_cell/gates/kernel"))
    cw.load_tf1(cell, path, averaged=True)
    assert torch.equal(cell.gates_kernel, stored(path, "rnn/gru_cell/gates/kernel" + tail))
    only = write({name + tail: shape for name, shape in plain.items()})
    with pytest.raises(cw.CheckpointError, match="Pass averaged=True"):
        cw.load_tf1(cw.GRUCell(2), only)


def test_old_names_with_slices(write: Write) -> None:
    path = write({"RNN/LSTMCell/W_0": (3, 8), "RNN/LSTMCell/W_1": (2, 8), "RNN/LSTMCell/B": (8,)})
    cell = cw.LSTMCell(2)
    report = cw.load_tf1(cell, path)
    parts = [stored(path, "RNN/LSTMCell/W_0"), stored(path, "RNN/LSTMCell/W_1")]
    assert torch.equal(cell.kernel, torch.cat(parts))
    assert report.loaded[0].note == "slices joined"
    assert list(cw.variable_names(cell)) == ["rnn/lstm_cell/kernel", "rnn/lstm_cell/bias"]


def test_nothing_is_cast(write: Write) -> None:
    cell = cw.GRUCell(2, dtype="float64")
    cell.build([None, 3])
    with pytest.raises(cw.CheckpointError, match="expected float64 as the module has it, got float32"):
        cw.load_tf1(cell, write(gru("rnn/gru_cell")))


def test_wrong_arguments(write: Write) -> None:
    path = write(gru("rnn/gru_cell"))
    with pytest.raises(cw.ArgumentError, match=r"keys of map that are paths in the module, got \['nowhere'\]"):
        cw.load_tf1({"cell": cw.GRUCell(2)}, path, map={"nowhere": "rnn"})
    with pytest.raises(cw.ArgumentTypeError, match="a pair"):
        cw.load_tf1("cell", path)

    class InCall(cw.RNNCell):
        state_size = output_size = 2

        def call(self, inputs: Any, state: Any) -> Any:
            cw.get_variable("w", [3, 2])
            return state, state

    with pytest.raises(cw.ScopeError, match="Call it once, then load"):
        cw.load_tf1(InCall(), path)


@pytest.mark.parametrize(
    "make",
    [
        lambda parameters: torch.optim.Adam(parameters, 1e-3),
        lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9),
        lambda parameters: torch.optim.RMSprop(parameters, 0.5, momentum=0.9),
        lambda parameters: torch.optim.Adagrad(parameters, 0.1),
    ],
    ids=["Adam", "Momentum", "RMSProp", "Adagrad"],
)
def test_optimizers_go_round(write: Write, tmp_path: Path, make: Callable[..., torch.optim.Optimizer]) -> None:
    model = nn.ModuleDict({"cell": cw.GRUCell(2), "dense": nn.Linear(2, 5)})
    report = cw.load_tf1(model, write(gru("rnn/gru_cell") | {"dense/kernel": (2, 5), "dense/bias": (5,)}))
    optimizer = make(model.parameters())
    for _ in range(3):
        outputs, _ = cw.dynamic_rnn(model["cell"], torch.randn(2, 4, 3), dtype="float32")
        optimizer.zero_grad()
        model["dense"](outputs).square().sum().backward()
        optimizer.step()
    cw.save_tf1(model, tmp_path / "next", names=report, optimizer=optimizer, step=3)
    other = nn.ModuleDict({"cell": cw.GRUCell(2), "dense": nn.Linear(2, 5)})
    cw.load_tf1(other, tmp_path / "next")
    again = make(other.parameters())
    cw.load_tf1(other, tmp_path / "next", optimizer=again)
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)
        for key, value in optimizer.state[mine].items():
            torch.testing.assert_close(again.state[theirs][key], value, rtol=1e-6, atol=0)


def test_names_in_a_map_are_first_the_very_names_of_the_file(write: Write) -> None:
    names = ["enc/enc/kernel", "enc/kernel", "x/weights", "x/kernel"]
    path = write(dict.fromkeys(names, (4, 3)))
    for name in names:
        layer = nn.Linear(4, 3, bias=False)
        report = cw.load_tf1({"l": layer}, path, map={"l.weight": name})
        assert torch.equal(layer.weight, stored(path, name).t())
        assert report.names == {"l.weight": name}


def test_a_doubled_scope_beside_a_single_one_is_another_cell(write: Write) -> None:
    path = write(gru("rnn/gru_cell") | gru("rnn/rnn/gru_cell"))
    for scope in ("rnn", "rnn/rnn"):
        cell = cw.GRUCell(2)
        cw.load_tf1(cell, path, scope=scope)
        assert torch.equal(cell.gates_kernel, stored(path, f"{scope}/gru_cell/gates/kernel"))
        assert f"{scope}/gru_cell/gates/kernel" in cw.variable_names(cell)


def test_two_averages_are_not_chosen_between(write: Write) -> None:
    tails = ["", "/ExponentialMovingAverage", "/ExponentialMovingAverage_1"]
    path = write({f"dense/kernel{tail}": (4, 3) for tail in tails})
    model = {"dense": nn.Linear(4, 3, bias=False)}
    assert len(cw.load_tf1(model, path).left) == 2
    with pytest.raises(cw.CheckpointError, match=r"one moving average .* got ExponentialMovingAverage, Expo.*_1\."):
        cw.load_tf1(model, path, averaged=True)


def test_a_report_keeps_the_names_that_layers_came_with(write: Write, tmp_path: Path) -> None:
    path = write({"fc/weights": (4, 3), "fc/biases": (3,)})
    model = {"fc": nn.Linear(4, 3)}
    report = cw.load_tf1(model, path)
    cw.save_tf1(model, tmp_path / "next", names=report)
    with open_checkpoint(tmp_path / "next") as checkpoint:
        assert list(checkpoint) == ["fc/biases", "fc/weights"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: cw.contrib.CoupledInputForgetGateLSTMCell(3, use_peepholes=True, num_proj=2),
        lambda: cw.contrib.GRUBlockCell(3),
        lambda: cw.contrib.Conv1DLSTMCell(input_shape=[5, 3], output_channels=2, kernel_shape=[3]),
    ],
)
def test_a_report_keeps_the_names_of_cells(make: Callable[[], Any], tmp_path: Path) -> None:
    cell, other = make(), make()
    cell.build([None, 5, 3] if "Conv" in type(cell).__name__ else [None, 4])
    names = cw.save_tf1(cell, tmp_path / "m")
    report = cw.load_tf1(other, tmp_path / "m")
    assert report.names == names
    assert cw.save_tf1(other, tmp_path / "next", names=report) == names
