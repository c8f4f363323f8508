"""The oracles against TensorFlow's own numbers: every golden with a cell, forward, backward, masks and runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.tolerances import GOLDEN, assert_close, assert_same_bits
from oracles import tf1
from oracles.activations import Array
from oracles.golden_runs import RUNS
from oracles.philox import BLOCKS_PER_ELEMENT, op_seeds, uniform
from oracles.tf1 import Cell
from oracles.unroll import unroll, unroll_backward

DATA = Path(__file__).resolve().parents[1] / "golden" / "data"
CASES: list[dict[str, Any]] = json.loads((DATA / "manifest.json").read_text())["cases"]


def _of(*drivers: str) -> Any:
    return pytest.mark.parametrize("case", [c for c in CASES if c["driver"] in drivers], ids=lambda c: c["id"])


def _arrays(case: dict[str, Any]) -> dict[str, Array]:
    with np.load(DATA / case["file"]) as data:
        return {key: data[key] for key in data.files}


@_of(*RUNS)
def test_cells_and_wrappers(case: dict[str, Any]) -> None:
    arrays = _arrays(case)
    runs = list(RUNS[case["driver"]](case, arrays))
    assert len(runs) == case["runs"]
    for number, results in enumerate(runs):
        suffix = f"__run{number + 1}" if number else ""
        wanted = {k for k in arrays if k.endswith(suffix) and (number or "__" not in k)}
        computed = {key + suffix for key in results}
        assert {k for k in wanted if k.startswith(("out", "final", "loss", "g"))} <= computed
        for key, got in results.items():
            if key.startswith("g_init") and key + suffix not in arrays:
                continue  # a zero state has no gradient in the goldens
            assert_close(key + suffix, got, arrays[key + suffix], GOLDEN[case["dtype"]])


@_of("rng")
def test_random_numbers(case: dict[str, Any]) -> None:
    arrays = _arrays(case)
    for i, (graph_seed, op_seed) in enumerate(case["seeds"]):
        for j, shape in enumerate(case["shapes"]):
            for run in range(case["runs"]):
                block = BLOCKS_PER_ELEMENT * int(np.prod(shape)) * run
                key = f"u_s{i}_h{j}_run{run + 1}"
                drawn = uniform(shape, case["dtype"], *op_seeds(graph_seed, op_seed), block)
                assert_same_bits(key, drawn, arrays[key])


#: Gates of a cuDNN mode in cuDNN's own order, and the oracle cell of its TF-canonical tensors.
CUDNN: dict[str, tuple[str, Any]] = {
    "lstm": ("ifzo", lambda depth, units: tf1.LSTMCell(depth, units, forget_bias=0.0)),
    "gru": ("rzk", tf1.CudnnCompatibleGRUCell),
    "rnn_tanh": ("a", tf1.BasicRNNCell),
    "rnn_relu": ("a", lambda depth, units: tf1.BasicRNNCell(depth, units, activation="relu")),
}


def _cudnn_layers(case: dict[str, Any]) -> list[list[Cell]]:
    layer = case["layer_kwargs"]
    directions = 2 if layer.get("direction") == "bidirectional" else 1
    make, units = CUDNN[case["rnn_mode"]][1], layer["num_units"]
    return [
        [make(case["D"] if k == 0 else directions * units, units) for _ in range(directions)]
        for k in range(layer["num_layers"])
    ]


@_of("cudnn")
def test_cudnn_layers(case: dict[str, Any]) -> None:
    arrays = _arrays(case)
    layers = _cudnn_layers(case)

    def compare(key: str, got: Array) -> None:
        assert_close(key, got, arrays[key], GOLDEN[case["dtype"]])

    cells = [cell for layer in layers for cell in layer]
    variables = iter(case["variables"])
    keys = [[next(variables)["key"] for _ in cell.shapes] for cell in cells]
    for cell, cell_keys in zip(cells, keys, strict=True):
        cell.set_weights(dict(zip(cell.shapes, [arrays[k] for k in cell_keys], strict=True)))
    lstm, x = case["rnn_mode"] == "lstm", arrays["x"].astype(np.float64)

    def pick(key: str, k: int) -> Any:
        h = arrays[f"{key}0"][k].astype(np.float64)
        return tf1.LSTMState(arrays[f"{key}1"][k].astype(np.float64), h) if lstm else h

    trace, finals = [], []
    for n, layer in enumerate(layers):
        outputs = []
        for d, cell in enumerate(layer):
            seen = x[::-1] if d else x
            out, final, caches = unroll(cell, seen, pick("init", n * len(layer) + d))
            trace.append((cell, seen, caches))
            outputs.append(out[::-1] if d else out)
            finals.append(final)
        x = np.concatenate(outputs, axis=2)
    compare("out", x)
    compare("final0", np.stack([f.h if lstm else f for f in finals]))
    if lstm:
        compare("final1", np.stack([f.c for f in finals]))
    d_x, d_states = arrays["ct_out"].astype(np.float64), [None] * len(cells)
    for n in reversed(range(len(layers))):
        parts, total = np.split(d_x, len(layers[n]), axis=2), 0.0
        for d in range(len(layers[n])):
            k = n * len(layers[n]) + d
            cell, seen, caches = trace[k]
            d_out = parts[d][::-1] if d else parts[d]
            d_seen, d_states[k] = unroll_backward(cell, seen, caches, d_out, pick("ct_final", k))
            total = total + (d_seen[::-1] if d else d_seen)
        d_x = total
    compare("g_x", d_x)
    compare("g_init0", np.stack([s.h if lstm else s for s in d_states]))
    if lstm:
        compare("g_init1", np.stack([s.c for s in d_states]))
    for cell, cell_keys in zip(cells, keys, strict=True):
        for key, grad in zip(cell_keys, cell.grads.values(), strict=True):
            compare("g" + key, grad)


@_of("cudnn")
def test_cudnn_canonical_tensors(case: dict[str, Any]) -> None:
    """Shapes of the canonical lists, and the TF-canonical tensors they make."""
    arrays, layers = _arrays(case), _cudnn_layers(case)
    gates = CUDNN[case["rnn_mode"]][0]
    weights, biases, shapes = iter(range(10**6)), iter(range(10**6)), []
    variables = iter(case["variables"])
    for cell in [cell for layer in layers for cell in layer]:
        depth, units = cell.depth, cell.output_size
        shapes += [[units, depth]] * len(gates) + [[units, units]] * len(gates)
        w = {g: arrays[f"cw{next(weights)}"].T for g in gates}
        r = {g: arrays[f"cw{next(weights)}"].T for g in gates}
        bw = {g: arrays[f"cb{next(biases)}"] for g in gates}
        br = {g: arrays[f"cb{next(biases)}"] for g in gates}
        made = _tf_canonical(case["rnn_mode"], w, r, bw, br)
        assert list(made) == list(cell.shapes)
        for suffix, value in made.items():
            variable = next(variables)
            assert variable["name"].endswith("/" + suffix)
            assert_close(variable["name"], value, arrays[variable["key"]], GOLDEN[case["dtype"]])
    assert case["canonical_weight_shapes"] == shapes
    assert case["canonical_bias_shapes"] == [[s[0]] for s in shapes]


def _tf_canonical(mode: str, w: dict, r: dict, bw: dict, br: dict) -> dict[str, Array]:
    joined = {g: np.vstack([w[g], r[g]]) for g in w}
    summed = {g: bw[g] + br[g] for g in w}
    if mode == "gru":
        return {
            "gates/kernel": np.hstack([joined["r"], joined["z"]]),
            "gates/bias": np.concatenate([summed["r"], summed["z"]]),
            "candidate/input_projection/kernel": w["k"],
            "candidate/hidden_projection/kernel": r["k"],
            "candidate/input_projection/bias": bw["k"],
            "candidate/hidden_projection/bias": br["k"],
        }
    order = "izfo" if mode == "lstm" else "a"
    return {
        "kernel": np.hstack([joined[g] for g in order]),
        "bias": np.concatenate([summed[g] for g in order]),
    }
