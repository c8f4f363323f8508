"""What is told of checkpoints whose names are people's own, and that the printed program loads it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import cellweave as cw
from cellweave.checkpoint import even_slices, open_checkpoint, write_checkpoint
from cellweave.checkpoint._wire import message_field, number_field
from helpers.checkpoint_bytes import tensor_of
from helpers.printed_code import run_printed

LSTM = {"rnn/basic_lstm_cell/kernel": (5, 8), "rnn/basic_lstm_cell/bias": (8,)}


def write(folder: Path, rng: np.random.Generator, shapes: dict[str, tuple[int, ...]]) -> Path:
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    write_checkpoint(folder / "m", arrays)
    return folder / "m"


@pytest.mark.parametrize(
    "kernel, bias, part",
    [("W_out", "b_out", "out"), ("w1", "b1", "w1"), ("nn/weights_fc", "nn/biases_fc", "fc"), ("W", "b", "w")],
)
def test_dense_layers_whose_names_begin_alike(
    kernel: str, bias: str, part: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    path = write(tmp_path, rng, LSTM | {kernel: (2, 4), bias: (4,)})
    names = run_printed(path, tmp_path)
    layer = names["model"][part]
    assert isinstance(layer, nn.Linear) and not names["report"].left
    with open_checkpoint(path) as checkpoint:
        assert torch.equal(layer.weight, checkpoint.read_tensor(kernel).t())
        assert torch.equal(layer.bias, checkpoint.read_tensor(bias))


def test_a_dense_layer_of_the_oldest_programs(tmp_path: Path, rng: np.random.Generator) -> None:
    path = write(tmp_path, rng, LSTM | {"gen/h0/Matrix": (2, 4), "gen/h0/bias": (4,)})
    names = run_printed(path, tmp_path)
    assert isinstance(names["model"]["h0"], nn.Linear) and not names["report"].left


GRU = {"gates/kernel": (7, 8), "gates/bias": (8,), "candidate/kernel": (7, 4), "candidate/bias": (4,)}
FOREIGN = "told by its variables, its name is none of TF1's"


@pytest.mark.parametrize(
    ("scope", "more", "said"),
    [
        ("rnn/gru_cell", (), []),
        ("rnn/gru_cell_2", (), []),
        ("rnn/att_gru_cell", (), [FOREIGN]),
        ("rnn/gru_cell", ("gates/norm/g",), ["more is in its scope than GRUCell has: gates/norm/g"]),
        ("rnn/gru_cell", ("a", "b", "c", "d/e", "f"), ["more is in its scope than GRUCell has: a, b, c and 2 others"]),
    ],
)
def test_cells_that_may_be_others(
    scope: str, more: tuple[str, ...], said: list[str], tmp_path: Path, rng: np.random.Generator
) -> None:
    """Their variables are a GRU's; what they compute, no checkpoint tells."""
    shapes = {f"{scope}/{name}": shape for name, shape in GRU.items()} | {f"{scope}/{name}": (8,) for name in more}
    (part,) = cw.inspect_tf1(write(tmp_path, rng, shapes)).parts
    assert list(part.settings) == said


def test_vectors_that_do_not_fit_a_matrix_stay_alone(tmp_path: Path, rng: np.random.Generator) -> None:
    inspection = cw.inspect_tf1(write(tmp_path, rng, LSTM | {"W_out": (2, 4), "b_out": (3,)}))
    assert "nn.Linear" not in inspection.code


def test_a_matrix_in_torchs_own_order(tmp_path: Path, rng: np.random.Generator) -> None:
    """A sampled softmax wants a row for each class."""
    path = write(tmp_path, rng, LSTM | {"proj_w": (7, 2), "proj_b": (7,)})
    names = run_printed(path, tmp_path)
    layer = names["model"]["proj"]
    assert (layer.in_features, layer.out_features) == (2, 7)
    with open_checkpoint(path) as checkpoint:
        assert torch.equal(layer.weight, checkpoint.read_tensor("proj_w"))


def test_such_a_matrix_is_only_taken_when_it_is_named(tmp_path: Path, rng: np.random.Generator) -> None:
    path = write(tmp_path, rng, {"proj_w": (7, 2), "proj_b": (7,)})
    with pytest.raises(cw.CheckpointError, match=r"proj_w is \[7, 2\], expected \[2, 7\]"):
        cw.load_tf1({"proj": nn.Linear(2, 7)}, path)


def test_dense_layers_without_a_bias(tmp_path: Path, rng: np.random.Generator) -> None:
    path = write(tmp_path, rng, LSTM | {"memory_layer/kernel": (6, 3)})
    names = run_printed(path, tmp_path)
    layer = names["model"]["memory_layer"]
    assert layer.bias is None
    with open_checkpoint(path) as checkpoint:
        assert torch.equal(layer.weight, checkpoint.read_tensor("memory_layer/kernel").t())


def test_cells_that_do_not_feed_each_other_are_no_stack(tmp_path: Path, rng: np.random.Generator) -> None:
    """Attention around each cell of a stack joins its output to the cell's inputs."""
    scopes = [f"decoder/multi_rnn_cell/cell_{k}/Attention_Wrapper" for k in range(2)]
    shapes = {f"{scope}/basic_lstm_cell/kernel": (6 + 3, 12) for scope in scopes}
    shapes |= {f"{scope}/basic_lstm_cell/bias": (12,) for scope in scopes}
    shapes |= {f"{scope}/attention_layer/kernel": (6, 3) for scope in scopes}
    path = write(tmp_path, rng, shapes)
    names = run_printed(path, tmp_path)
    assert not names["report"].left
    cells = [part for part in names["model"].values() if isinstance(part, cw.BasicLSTMCell)]
    with open_checkpoint(path) as checkpoint:
        for cell, scope in zip(cells, scopes, strict=True):
            assert torch.equal(cell.kernel, checkpoint.read_tensor(f"{scope}/basic_lstm_cell/kernel"))


def test_a_doubled_scope_beside_a_single_one(tmp_path: Path, rng: np.random.Generator) -> None:
    shapes = {f"rnn/{name}": shape for name, shape in LSTM.items()} | LSTM
    shapes |= dict.fromkeys(("a/fc/kernel", "a/fc/fc/kernel"), (4, 4))
    path = write(tmp_path, rng, shapes)
    names = run_printed(path, tmp_path)
    assert not names["report"].left
    assert sorted(key for row in names["report"].loaded for key in row.keys) == sorted(shapes)


def lstm(scope: str, units: int = 8, depth: int = 4) -> dict[str, tuple[int, ...]]:
    return {f"{scope}/kernel": (depth + units, 4 * units), f"{scope}/bias": (4 * units,)}


def dense(scope: str, inputs: int = 20, outputs: int = 4) -> dict[str, tuple[int, ...]]:
    return {f"{scope}/kernel": (inputs, outputs), f"{scope}/bias": (outputs,)}


@pytest.mark.parametrize(
    "shapes, part",
    [
        (lstm("rnn/lstm_cell") | dense("rnn/mixed"), "mixed"),
        (lstm("rnn/multi_rnn_cell/cell_0/lstm_cell") | dense("rnn/mixed"), "mixed"),
        (lstm("cell/lstm_cell") | dense("cell/mixed"), "mixed"),
        (lstm("model/lstm_cell") | dense("model/lstm_dense"), "lstm_dense"),
        (lstm("model/lstm_cell") | dense("rnn_logits_1"), "rnn_logits_1"),
        (dense("rnn/fc1"), "layer"),
        (lstm("b/fw/lstm_cell") | lstm("b/bw/lstm_cell") | dense("b/fw/dense"), "dense"),
    ],
)
def test_dense_layers_among_cells(
    shapes: dict[str, tuple[int, ...]], part: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    names = run_printed(write(tmp_path, rng, shapes), tmp_path)
    model = names["model"]
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in layers] == [(20, 4)]
    assert part == "layer" or model[part] is layers[0]
    assert not names["report"].left


def test_a_cell_with_a_name_of_its_own(tmp_path: Path, rng: np.random.Generator) -> None:
    names = run_printed(write(tmp_path, rng, lstm("encoder/rnn/enc")), tmp_path)
    assert isinstance(names["model"], cw.BasicLSTMCell)


def test_cells_beside_each_other_in_one_scope(tmp_path: Path, rng: np.random.Generator) -> None:
    """As in a cell of one's own that calls several: a place that is said is that one, not its neighbour."""
    names = ("lstm_cell", "lstm_cell_1", "lstm_cell_2")
    shapes = lstm("rnn/own/lstm_cell") | lstm("rnn/own/lstm_cell_1", depth=12) | lstm("rnn/own/lstm_cell_2", depth=12)
    path = write(tmp_path, rng, shapes)
    run = run_printed(path, tmp_path)
    assert not run["report"].left
    with open_checkpoint(path) as checkpoint:
        for name, cell in zip(names, run["model"].values(), strict=True):
            assert torch.equal(cell.kernel, checkpoint.read_tensor(f"rnn/own/{name}/kernel"))


@pytest.mark.parametrize("scope", ["bidirectional/{}_lstm/lstm_cell", "model/bidirectional_1/{}_enc"])
@pytest.mark.parametrize("more", [{}, LSTM])
def test_the_two_directions_of_keras(
    scope: str, more: dict[str, tuple[int, ...]], tmp_path: Path, rng: np.random.Generator
) -> None:
    ends = {"kernel": (4, 12), "recurrent_kernel": (3, 12), "bias": (12,)}
    shapes = {f"{scope.format(way)}/{end}": shape for way in ("forward", "backward") for end, shape in ends.items()}
    path = write(tmp_path, rng, shapes | more)
    names = run_printed(path, tmp_path)
    assert not names["report"].left
    assert "cw.bidirectional_dynamic_rnn(" in cw.inspect_tf1(path).code
    pair = names["model"]["bidirectional" if "model" not in scope else "bidirectional_1"] if more else names["model"]
    with open_checkpoint(path) as checkpoint:
        for side, way in (("fw", "forward"), ("bw", "backward")):
            assert torch.equal(pair[side].kernel, checkpoint.read_tensor(f"{scope.format(way)}/kernel"))


def test_slots_of_keras_in_a_scope_of_its_optimizer(tmp_path: Path, rng: np.random.Generator) -> None:
    """As a Saver writes Keras's variables in a session: `training/Adam/<variable>/m`, and settings beside."""
    shapes = {"lstm/kernel": (4, 12), "lstm/recurrent_kernel": (3, 12), "lstm/bias": (12,)} | dense("dense", 3)
    slots = {f"training/Adam/{name}/{part}": shape for name, shape in shapes.items() for part in "mv"}
    settings = {f"training/Adam/{name}": () for name in ("learning_rate", "decay", "beta_1", "beta_2")}
    path = write(tmp_path, rng, shapes | slots | settings)
    inspection = cw.inspect_tf1(path)
    assert not inspection.others and inspection.slots == {"m": 5, "v": 5}
    assert set(settings) <= set(inspection.counters)
    assert [row.key for row in run_printed(path, tmp_path)["report"].left if row.role == "variable"] == []


def test_a_program_for_averages_alone_reads_them(tmp_path: Path, rng: np.random.Generator) -> None:
    shapes = {f"{name}/ExponentialMovingAverage": shape for name, shape in LSTM.items()}
    names = run_printed(write(tmp_path, rng, shapes), tmp_path)
    assert {row.key for row in names["report"].left} == set()


@pytest.mark.parametrize("direction", ["unidirectional", "bidirectional"])
@pytest.mark.parametrize("inside", [False, True])
def test_cudnn_layers_whose_saveable_wrote_around_or_inside_of_their_scope(
    direction: str, inside: bool, tmp_path: Path
) -> None:
    """TF1 opens a layer's scope before its first call builds it; `build` by hand is outside."""
    layers = [cw.CudnnLSTM(2, 3, direction=direction), cw.CudnnLSTM(1, 4, direction=direction)]
    arrays: dict[str, np.ndarray] = {}
    for number, layer in enumerate(layers):
        layer.build([None, None, 5])
        scope = f"model/part_{number}" + ("/cudnn_lstm" if inside else "")
        arrays |= {f"{scope}/{end}": tensor.numpy() for end, tensor in layer.tf_canonical_tensors().items()}
        arrays[f"model/part_{number}/cudnn_lstm/opaque_kernel"] = np.zeros(9, np.float32)
    write_checkpoint(tmp_path / "m", arrays)
    names = run_printed(tmp_path / "m", tmp_path)
    for layer, read in zip(layers, names["model"].values(), strict=True):
        assert isinstance(read, cw.CudnnLSTM)
        stored = zip(read.tf_canonical_tensors().values(), layer.tf_canonical_tensors().values(), strict=True)
        assert all(torch.equal(found, wanted) for found, wanted in stored)


@pytest.mark.parametrize("name", ["class", "print", "list", "model", "while", "x²", "ü", 'a"b', "a\\b", "a\nb", "it's"])
def test_names_that_are_no_names_of_python(name: str, tmp_path: Path, rng: np.random.Generator) -> None:
    for number, shapes in enumerate((dense(name), dense(f"{name}/{name}") | LSTM | lstm("b/lstm_cell"))):
        folder = tmp_path / str(number)
        folder.mkdir()
        names = run_printed(write(folder, rng, shapes), folder)
        assert not names["report"].left


def test_a_cell_whose_scope_is_a_word_of_python(tmp_path: Path, rng: np.random.Generator) -> None:
    names = run_printed(write(tmp_path, rng, lstm("class/lstm_cell") | lstm("class/rnn/lstm")), tmp_path)
    assert not names["report"].left


@pytest.mark.parametrize(
    "make",
    [
        lambda: cw.contrib.IntersectionRNNCell(8, num_in_proj=8),
        lambda: cw.contrib.IndRNNCell(8),
        lambda: cw.contrib.IndyLSTMCell(8),
        lambda: cw.contrib.IndyGRUCell(8),
        lambda: cw.contrib.NASCell(8, use_bias=True, num_proj=3),
        lambda: cw.contrib.SRUCell(8),
        lambda: cw.contrib.UGRNNCell(8),
        lambda: cw.contrib.CoupledInputForgetGateLSTMCell(8, num_proj=3, use_peepholes=True),
        lambda: cw.contrib.CoupledInputForgetGateLSTMCell(8, layer_norm=True),
        lambda: cw.contrib.LayerNormBasicLSTMCell(8),
    ],
)
def test_cells_of_contrib(make: Callable[[], cw.RNNCell], tmp_path: Path) -> None:
    cell = make()
    cell.build([None, 4])
    cw.save_tf1(cell, tmp_path / "m")
    names = run_printed(tmp_path / "m", tmp_path)
    assert names["model"].get_config() == {**cell.get_config(), "name": names["model"].get_config()["name"]}
    assert not names["report"].left
    asked = set(cw.inspect_tf1(tmp_path / "m").parts[0].unknown)
    known = set(inspect.signature(type(cell)).parameters)
    assert asked <= known and known & {"forget_bias", "activation", "cell_clip"} <= asked


@pytest.mark.parametrize(
    "shapes",
    [
        {"rnn/conv_2d_lstm_cell/kernel": (3, 3, 7, 16), "rnn/conv_2d_lstm_cell/biases": (16,)},
        {"rnn/intersection_rnn_cell/kernel": (8, 16), "rnn/intersection_rnn_cell/bias": (16,)},
        {"rnn/phased_lstm_cell/new_input/kernel": (12, 8), "rnn/phased_lstm_cell/new_input/bias": (8,)},
        {"rnn/time_freq_lstm_cell/W_0": (9, 16), "rnn/time_freq_lstm_cell/B": (16,)},
        dict.fromkeys(
            [f"rnn/layer_norm_lstm_cell/{gate}/{end}" for gate in ("input", "state") for end in ("beta", "gamma")], (4,)
        )
        | {"rnn/layer_norm_lstm_cell/kernel": (9, 16), "rnn/layer_norm_lstm_cell/bias": (16,)},
        {
            "rnn/weight_norm_lstm_cell/wn_lstm_cell/kernel": (9, 16),
            **{f"rnn/weight_norm_lstm_cell/wn_lstm_cell/{end}": (16,) for end in ("bias", "norm_0", "norm_1")},
            **{f"rnn/weight_norm_lstm_cell/wn_lstm_cell/w_{gate}_diag": (4,) for gate in "fio"},
        },
        {"rnn/simple/kernel": (6, 8), "rnn/simple/recurrent_kernel": (8, 8), "rnn/simple/bias": (16,)},
        dict.fromkeys(("conv_lstm2d/kernel", "conv_lstm2d/recurrent_kernel"), (3, 3, 4, 16))
        | {"conv_lstm2d/bias": (16,)},
    ],
)
def test_what_is_not_told_whole_is_not_told_as_something_else(
    shapes: dict[str, tuple[int, ...]], tmp_path: Path, rng: np.random.Generator
) -> None:
    inspection = cw.inspect_tf1(write(tmp_path, rng, shapes))
    assert [variable.key for variable in inspection.others] == sorted(shapes)
    assert not inspection.parts


def saved_model_of(keys: dict[str, str]) -> bytes:
    """A SavedModel whose graph saves the variables of these names under these keys."""

    def made(name: str, op: str, *inputs: str, value: bytes = b"") -> bytes:
        texts = message_field(1, name.encode()) + message_field(2, op.encode())
        texts += b"".join(message_field(3, given.encode()) for given in inputs)
        attribute = message_field(1, b"value") + message_field(2, message_field(8, value))
        return message_field(1, texts + (message_field(5, attribute) if value else b""))

    listed = b"".join(message_field(8, key.encode()) for key in keys)
    nodes = [made("keys", "Const", value=tensor_of([len(keys)], dtype=7, rest=listed))]
    nodes += [made(name, "VarHandleOp") + made(f"{name}/Read", "ReadVariableOp", name) for name in keys.values()]
    nodes.append(made("save", "SaveV2", "prefix", "keys", "slices", *(f"{name}/Read" for name in keys.values())))
    return number_field(1, 1) + message_field(2, message_field(2, b"".join(nodes)))


def test_variables_of_keras_that_have_numbers_for_names(tmp_path: Path, rng: np.random.Generator) -> None:
    """As TensorFlow 2 saves Keras's models: their layers' variables are places in lists, the graph has their names."""
    sides = [f"bidirectional/{way}_lstm/lstm_cell" for way in ("forward", "backward")]
    ends = {"kernel": (4, 20), "recurrent_kernel": (5, 20), "bias": (20,)}
    shapes = {f"{scope}/{end}": shape for scope in sides for end, shape in ends.items()}
    shapes |= {"gru/gru_cell/kernel": (10, 9), "gru/gru_cell/recurrent_kernel": (3, 9), "gru/gru_cell/bias": (2, 9)}
    shapes |= {"out/kernel": (3, 2), "out/bias": (2,)}
    keys = {f"variables/{index}/.ATTRIBUTES/VARIABLE_VALUE": name for index, name in enumerate(shapes)}
    (tmp_path / "m" / "variables").mkdir(parents=True)
    arrays = {key: rng.normal(size=shapes[name]).astype(np.float32) for key, name in keys.items()}
    numbered = {f"optimizer/_variables/{index}/.ATTRIBUTES/VARIABLE_VALUE": np.zeros((4, 20)) for index in range(2)}
    write_checkpoint(tmp_path / "m" / "variables" / "variables", arrays | numbered)
    (tmp_path / "m" / "saved_model.pb").write_bytes(saved_model_of(keys))
    names = run_printed(tmp_path / "m", tmp_path)
    model = names["model"]
    assert not cw.inspect_tf1(tmp_path / "m").others
    assert {row.role for row in names["report"].left} == {"bookkeeping"}
    assert [type(model["bidirectional"][side]) for side in ("fw", "bw")] == [cw.keras.LSTMCell] * 2
    assert type(model["gru"]) is cw.keras.GRUCell and type(model["out"]) is nn.Linear
    parts = [*model["bidirectional"].values(), model["gru"]]
    found = [weight.detach().numpy() for part in parts for weight in part.weights]
    found += [model["out"].weight.detach().numpy().T, model["out"].bias.detach().numpy()]
    for wanted, weight in zip(arrays.values(), found, strict=True):
        np.testing.assert_array_equal(weight, wanted)


@pytest.mark.parametrize(
    ("parts", "said"), [((3, 1), ["in 3 slices: embedding_lookup deals rows"]), ((1, 2), []), ((1, 1), [])]
)
def test_embeddings_whose_rows_lie_in_slices(parts: tuple[int, int], said: list[str], tmp_path: Path) -> None:
    """TF1's lookups take row i of n slices from slice i % n; the table in the file has them one behind the other."""
    table = np.arange(40, dtype=np.float32).reshape(10, 4)
    dealt = np.concatenate([table[k::3] for k in range(3)])
    write_checkpoint(tmp_path / "m", {"embedding": dealt}, slices={"embedding": even_slices((10, 4), parts)})
    part = cw.inspect_tf1(tmp_path / "m").parts[0]
    assert [line.partition(" rows")[0] + " rows" for line in part.settings] == said
    found = nn.Embedding(10, 4)
    cw.load_tf1({"embedding": found}, tmp_path / "m")
    weight = found.weight.data
    weight[[row for k in range(3) for row in range(k, 10, 3)]] = weight.clone()
    np.testing.assert_array_equal(weight, table)


def test_embeddings_in_variables_of_their_own(tmp_path: Path) -> None:
    arrays = {f"embedding/part_{k}": np.zeros((2, 4), np.float32) for k in range(5)}
    write_checkpoint(tmp_path / "m", arrays)
    assert cw.inspect_tf1(tmp_path / "m").parts[0].settings[0].startswith("in 5 slices")
