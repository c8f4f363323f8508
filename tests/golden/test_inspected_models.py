"""Models that TensorFlow 2.15 wrote in its v1 mode with their graphs: the printed program gives TensorFlow's outputs.

`nested` is a stack in a stack, with peepholes, projection, both clips, a forget bias and an activation of its own;
`same` is one cell twice (`[cell] * 2`); `unnamed` has layers whose names tell nothing. Of this only sizes are in the
checkpoints; the rest is read from the graphs. `objects` is a Keras model of TensorFlow 2, saved by its attributes.
`keras` has TF1's Keras layers, `keras_cudnn` those that only a GPU runs; in `misleading` names say of cells and layers
what they are not; `activations` has unusual ones and dropouts; in `decoder` and `window` a dense layer's output comes
back; `frozen` is a graph without the operations that read variables; in `residuals` inputs are added to outputs, among
dropouts; `oldest` has the operations of TF 0.x; in `functional` loops are functions; in `steps` cells compute what
their names do not tell; `branches` reads variables in branches. make_models.py wrote all but `nested` and `same`.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import cellweave as cw
from cellweave.checkpoint import open_checkpoint
from helpers.printed_code import run_printed

MODELS = Path(__file__).parent / "models"


@pytest.mark.parametrize("name", ["nested", "same"])
def test_outputs_of_the_printed_program(name: str, tmp_path: Path) -> None:
    names = run_printed(MODELS / name / "model.ckpt", tmp_path)
    with np.load(MODELS / name / "expected.npz") as expected:
        outputs, _ = cw.dynamic_rnn(names["cell"], torch.from_numpy(expected["x"]), dtype="float32")
        torch.testing.assert_close(outputs.detach(), torch.from_numpy(expected["o"]), rtol=0, atol=1e-6)


def test_layers_that_only_the_graph_tells(tmp_path: Path) -> None:
    names = run_printed(MODELS / "unnamed" / "model.ckpt", tmp_path)
    model = names["model"]
    assert [row.key for row in names["report"].left if row.role == "variable"] == ["turned"]  # square: which way?
    with open_checkpoint(MODELS / "unnamed" / "model.ckpt") as checkpoint:
        turned = checkpoint.read_tensor("turned")
    with np.load(MODELS / "unnamed" / "expected.npz") as expected:
        inputs = model["variable"](torch.from_numpy(expected["ids"]))
        _, state = cw.dynamic_rnn(model["cell"], inputs, dtype="float32")
        outputs = model["mix"](model["classes"](torch.tanh(model["weight"](state))) @ turned.t())
        torch.testing.assert_close(outputs.detach(), torch.from_numpy(expected["y"]), rtol=0, atol=1e-6)


CHAINS = {
    "keras": ("first", "second", "third"),
    "misleading": ("cell", "mixed", "cell_out", "enc", "dense", "lstm"),
    "activations": ("first", "second", "third"),
    "frozen": ("table", "cell", "classes"),
    "functional": ("parts", "cell", "branch", "turn"),
}
OUTPUTS = {"keras": "third", "misleading": "last", "activations": "third", "frozen": "y", "functional": "y"}


def run_chain(model: nn.ModuleDict, name: str, x: torch.Tensor) -> torch.Tensor:
    """The parts one behind the other, put together as the model was."""
    for part in CHAINS[name]:
        layer, before = model[part], x
        if isinstance(layer, nn.Linear):
            x = layer(x)
        elif isinstance(layer, nn.Embedding):
            x = torch.cat([x, layer((x[:, :, 0].abs() * 2).int())], dim=2)
        else:
            x, _ = cw.dynamic_rnn(layer, x, dtype="float32")
        if part == "mixed":
            x = torch.cat([x, before], dim=2)
    return x


@pytest.mark.parametrize("name", CHAINS)
def test_outputs_of_models_of_many_parts(name: str, tmp_path: Path) -> None:
    path = MODELS / name / ("model.pb" if name == "frozen" else "model.ckpt")
    names = run_printed(path, tmp_path)
    assert not names["report"].left
    with np.load(MODELS / name / "expected.npz") as expected:
        y = run_chain(names["model"], name, torch.from_numpy(expected["x"]))
        torch.testing.assert_close(y.detach(), torch.from_numpy(expected[OUTPUTS[name]]), rtol=0, atol=2e-6)


def test_a_dense_layer_that_comes_back_through_a_cell_is_no_cell(tmp_path: Path) -> None:
    names = run_printed(MODELS / "decoder" / "model.ckpt", tmp_path)
    cell, mix = names["model"]["cell"], names["model"]["mix"]
    with np.load(MODELS / "decoder" / "expected.npz") as expected:
        x, given = torch.from_numpy(expected["x"]), torch.from_numpy(expected["y"])
    state, fed = cell.zero_state(len(x), "float32"), torch.zeros(len(x), 2)
    for step in range(x.shape[1]):
        output, state = cell(torch.cat([x[:, step], fed], dim=1), state)
        fed = mix(torch.cat([output, x[:, step]], dim=1))
        torch.testing.assert_close(fed.detach(), given[:, step], rtol=0, atol=1e-6)


def test_keras_cells_without_a_graph_have_the_defaults_of_tf1(tmp_path: Path) -> None:
    for file in (MODELS / "keras").glob("model.ckpt.[di]*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    inspection = cw.inspect_tf1(tmp_path / "model.ckpt")
    assert "recurrent_activation  TF1's default hard_sigmoid  first, second, third" in str(inspection)
    names = run_printed(tmp_path / "model.ckpt", tmp_path)
    with np.load(MODELS / "keras" / "expected.npz") as expected:
        y, _ = cw.dynamic_rnn(names["model"]["first"], torch.from_numpy(expected["x"]), dtype="float32")
        torch.testing.assert_close(y.detach(), torch.from_numpy(expected["first"]), rtol=0, atol=1e-6)


def test_keras_cells_of_cudnn(tmp_path: Path) -> None:
    path = MODELS / "keras_cudnn" / "model.ckpt"
    names = run_printed(path, tmp_path)
    model = names["model"]
    assert {row.note for row in names["report"].loaded} == {"cuDNN's layout"}
    with np.load(MODELS / "keras_cudnn" / "expected.npz") as expected:
        x = torch.from_numpy(expected["x"])
        for part in ("cu_dnnlstm", "cu_dnngru"):
            x, _ = cw.dynamic_rnn(model[part], x, dtype="float32")
        directions = model["bidirectional"]
        both, _ = cw.bidirectional_dynamic_rnn(directions["fw"], directions["bw"], x, dtype="float32")
        torch.testing.assert_close(torch.cat(both, 2).detach(), torch.from_numpy(expected["y"]), rtol=0, atol=1e-6)


def test_slots_of_keras_cells_of_cudnn() -> None:
    """A kernel's slots lie as the kernel does; an LSTM's two biases have one gradient, and each its slots."""
    path = MODELS / "keras_cudnn" / "model.ckpt"
    model = nn.ModuleDict({"lstm": cw.keras.LSTMCell(4), "gru": cw.keras.GRUCell(3)})
    places = {"lstm": "cu_dnnlstm", "gru": "cu_dnngru"}
    cw.load_tf1(model, path, map=places)
    optimizer = torch.optim.Adam(model.parameters())
    cw.load_tf1(model, path, map=places, optimizer=optimizer)
    with open_checkpoint(path) as arrays:
        for part, gates in (("lstm", 4), ("gru", 3)):
            stored = torch.tensor(arrays[f"cu_dnn{part}/kernel/Adam"])
            depth, units = stored.shape[0], stored.shape[1] // gates
            found = optimizer.state[model[part].kernel]["exp_avg"]
            for gate in range(gates):
                own = slice(gate * units, (gate + 1) * units)
                assert torch.equal(found[:, own], stored[:, own].reshape(units, depth).t())
            bias = torch.tensor(arrays[f"cu_dnn{part}/bias/Adam_1"])
            wanted = bias.view(2, -1) if part == "gru" else bias[: gates * units]
            assert torch.equal(optimizer.state[model[part].bias]["exp_avg_sq"], wanted)


@pytest.mark.parametrize(
    "cell, place, reason",
    [
        (cw.keras.LSTMCell(4, recurrent_activation="hard_sigmoid"), "cu_dnnlstm",
         "is cuDNN's, with recurrent_activation='sigmoid', the module's cell has 'hard_sigmoid'"),
        (cw.keras.LSTMCell(4, activation="relu"), "cu_dnnlstm",
         "is cuDNN's, with activation='tanh', the module's cell has 'relu'"),
        (cw.keras.GRUCell(3, reset_after=False), "cu_dnngru",
         "is cuDNN's, with reset_after=True, the module's cell has False"),
        (cw.keras.LSTMCell(3), "cu_dnnlstm", "recurrent_kernel is [4, 16], expected [3, 12]"),
    ],
)  # fmt: skip
def test_cells_that_cudnn_does_not_compute(cell: cw.RNNCell, place: str, reason: str) -> None:
    with pytest.raises(cw.CheckpointError, match=re.escape(reason)):
        cw.load_tf1(cell, MODELS / "keras_cudnn" / "model.ckpt", scope=place)
    assert not cell.built


def test_residuals_and_the_dropouts_that_they_are_around(tmp_path: Path) -> None:
    names = run_printed(MODELS / "residuals" / "model.ckpt", tmp_path)
    code = cw.inspect_tf1(MODELS / "residuals" / "model.ckpt").code
    assert not names["report"].left
    for text in (
        "cw.GRUCell(3),\n",
        "cw.ResidualWrapper(cw.DropoutWrapper(cw.GRUCell(3), input_keep_prob=keep)),\n",
        "cw.ResidualWrapper(cw.BasicLSTMCell(3)),\n",
        "cw.DropoutWrapper(cw.ResidualWrapper(cw.LSTMCell(3)), output_keep_prob=keep),\n",
        "cw.ResidualWrapper(cw.DropoutWrapper(cw.BasicRNNCell(3), output_keep_prob=keep)),\n",
        'variational_recurrent=True, dtype="float32", input_size=3)',
        "cw.DropoutWrapper(cw.GRUCell(3), state_keep_prob=0.75)",
    ):
        assert text in code
    with np.load(MODELS / "residuals" / "expected.npz") as expected:
        x = torch.from_numpy(expected["x"])
        for part in ("first", "second"):
            x, _ = cw.dynamic_rnn(names["model"][part], x, dtype="float32")
            torch.testing.assert_close(x.detach(), torch.from_numpy(expected[part]), rtol=0, atol=1e-6)


def test_cells_in_the_operations_of_tf_0(tmp_path: Path) -> None:
    names = run_printed(MODELS / "oldest" / "model.ckpt", tmp_path)
    code = cw.inspect_tf1(MODELS / "oldest" / "model.ckpt").code
    assert "cw.DropoutWrapper(cw.BasicLSTMCell(4, forget_bias=0.5), input_keep_prob=keep)" in code
    with np.load(MODELS / "oldest" / "expected.npz") as expected:
        y, _ = cw.dynamic_rnn(names["cell"], torch.from_numpy(expected["x"]), dtype="float32")
        torch.testing.assert_close(y.detach(), torch.from_numpy(expected["y"]), rtol=0, atol=1e-6)


def test_a_dense_layer_that_comes_back_through_a_window_is_no_cell(tmp_path: Path) -> None:
    names = run_printed(MODELS / "window" / "model.ckpt", tmp_path)
    first, second, attention = (names["model"][part] for part in ("own", "own_1", "attention"))
    with np.load(MODELS / "window" / "expected.npz") as expected:
        x, given = torch.from_numpy(expected["x"]), torch.from_numpy(expected["y"])
    states, seen = [cell.zero_state(len(x), "float32") for cell in (first, second)], torch.zeros(len(x), 3)
    for step in range(x.shape[1]):
        output, states[0] = first(torch.cat([seen, x[:, step]], dim=1), states[0])
        weights = nn.functional.softplus(attention(torch.cat([seen, x[:, step], output], dim=1)))
        seen = torch.einsum("bt,bti->bi", weights, x)
        output, states[1] = second(torch.cat([x[:, step], output, seen], dim=1), states[1])
        torch.testing.assert_close(output.detach(), given[:, step], rtol=0, atol=1e-6)


def test_unrolls_whose_rows_have_lengths() -> None:
    inspection = cw.inspect_tf1(MODELS / "functional" / "model.ckpt")
    said = {part.name for part in inspection.parts if any("lengths (sequence_length)" in s for s in part.settings)}
    assert said == {"parts"}
    assert 'dynamic_rnn(model["parts"], inputs, sequence_length=lengths, dtype="float32")' in inspection.code
    assert 'dynamic_rnn(model["cell"], inputs, dtype="float32")' in inspection.code


@pytest.mark.parametrize(("name", "said"), [("keras", True), ("residuals", False), ("nested", False)])
def test_what_a_graph_is_not_read_for_is_said(name: str, said: bool) -> None:
    """A graph is followed around the cells of TF1, not around Keras's."""
    parts = cw.inspect_tf1(MODELS / name / "model.ckpt").parts
    cells = [cell for part in parts for cell in (part.parts or (part,)) if "units" in cell.title]
    assert cells
    for cell in cells:
        assert any(line.startswith("not read from the graph: dropouts") for line in cell.settings) == said


def test_dropouts_of_later_releases() -> None:
    code = cw.inspect_tf1(MODELS / "activations" / "model.ckpt").code
    assert "input_keep_prob=0.8, state_keep_prob=0.9, output_keep_prob=keep)" in code
    assert "keep = torch.tensor(1.0)  # fed by kept in TF1" in code


def test_a_keras_model_saved_as_objects(tmp_path: Path) -> None:
    path = MODELS / "objects" / "model.ckpt"
    names = run_printed(path, tmp_path)
    lstm, gru, dense = names["model"].values()
    assert not [row for row in names["report"].left if row.role == "variable"]
    assert cw.inspect_tf1(path).slots == {"m": 8, "v": 8}
    with np.load(MODELS / "objects" / "expected.npz") as expected:
        sequence, _ = cw.dynamic_rnn(lstm, torch.from_numpy(expected["x"]), dtype="float32")
        _, state = cw.dynamic_rnn(gru, sequence, dtype="float32")
        torch.testing.assert_close(dense(state).detach(), torch.from_numpy(expected["y"]), rtol=0, atol=1e-6)


OTHER = "but another step"
CHANGED = "changed between steps"


def test_steps_that_are_not_the_ones_of_the_names() -> None:
    inspection = cw.inspect_tf1(MODELS / "steps" / "model.ckpt")
    said = {
        part.name: [text for text in (OTHER, CHANGED, "not read") if any(text in line for line in part.settings)]
        for part in inspection.parts
    }
    doubtful = {"attending": [OTHER], "ordered": [OTHER], "zoned": [CHANGED], "masked": [CHANGED]}
    assert said == doubtful | {name: [] for name in ("cut", "first", "mixed", "whole", "written")}
    for name, texts in doubtful.items():
        text = "has another step than" if OTHER in texts else "changes the state between steps"
        assert f"# {name}: the graph {text}" in inspection.code
    assert inspection.code.count("the graph ") == len(doubtful)
    for part in inspection.parts:
        read = any(line.startswith("from the graph: activation") for line in part.settings)
        assert read == (part.name != "first" and OTHER not in said[part.name])
    assert "activation=" not in next(line for line in inspection.code.splitlines() if '"ordered": cw.' in line)


def test_first_states_and_precision_of_a_graph(tmp_path: Path) -> None:
    """First states that are cut out of one tensor are no state in one tensor; weights may be used in half precision."""
    model = run_printed(MODELS / "steps" / "model.ckpt", tmp_path)["model"]
    with np.load(MODELS / "steps" / "expected.npz") as expected:
        x = torch.from_numpy(expected["x"])
        state = cw.LSTMStateTuple(*torch.from_numpy(expected["state"]).split(4, 1))
        for part, given, atol in (("cut", state, 2e-6), ("written", state, 2e-6), ("whole", None, 2e-6)):
            y, _ = cw.dynamic_rnn(model[part], x, initial_state=given, dtype="float32")
            torch.testing.assert_close(y.detach(), torch.from_numpy(expected[part]), rtol=0, atol=atol)
        y, _ = cw.dynamic_rnn(model["mixed"], x, dtype="float32")
        torch.testing.assert_close(y.detach(), torch.from_numpy(expected["mixed"]), rtol=0, atol=4e-3)


def test_variables_that_a_frozen_graph_reads_in_branches() -> None:
    inspection = cw.inspect_tf1(MODELS / "branches" / "model.pb")
    assert "LayerNorm" not in inspection.code
    assert {v.key for v in inspection.others} == {f"norm/{name}" for name in NORM}


NORM = ("beta", "gamma", "moving_mean", "moving_variance")


def test_files_are_the_ones_that_tensorflow_wrote() -> None:
    lines = (MODELS / "SHA256SUMS").read_text().splitlines()
    sums = {name: digest for digest, name in (line.split("  ") for line in lines)}
    found = {path.relative_to(MODELS).as_posix() for path in MODELS.rglob("*") if path.is_file()}
    assert found == {*sums, "SHA256SUMS"}
    for name, digest in sums.items():
        assert hashlib.sha256((MODELS / name).read_bytes()).hexdigest() == digest, name
