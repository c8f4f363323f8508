"""The oracles against TensorFlow's own numbers: every golden with a cell, forward, backward, masks and runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.tolerances import GOLDEN, assert_close, assert_same_bits
from oracles import keras, tf1
from oracles.activations import Array
from oracles.composition import DropoutWrapper, Run, flatten, rebuild
from oracles.philox import BLOCKS_PER_ELEMENT, mask_seed, op_seeds, uniform
from oracles.tf1 import Cell
from oracles.trees import Builder
from oracles.unroll import reverse, unroll, unroll_backward, zero_state

DATA = Path(__file__).resolve().parents[1] / "golden" / "data"
CASES: list[dict[str, Any]] = json.loads((DATA / "manifest.json").read_text())["cases"]


def _of(*drivers: str) -> Any:
    return pytest.mark.parametrize("case", [c for c in CASES if c["driver"] in drivers], ids=lambda c: c["id"])


def _arrays(case: dict[str, Any]) -> dict[str, Array]:
    with np.load(DATA / case["file"]) as data:
        return {key: data[key] for key in data.files}


def _pack(size: Any, leaves: list[Array]) -> Any:
    if isinstance(size, tuple | list):
        return rebuild(size, [_pack(item, leaves) for item in size])
    return leaves.pop(0).astype(np.float64)


def _state(cell: Cell, arrays: dict[str, Array], key: str, batch: int) -> Any:
    leaves = [arrays[f"{key}{k}"] for k in range(len(flatten(cell.state_size))) if f"{key}{k}" in arrays]
    return _pack(cell.state_size, leaves) if leaves else zero_state(cell.state_size, batch)


class Comparison:
    """Compares results with a golden's arrays of one run."""

    def __init__(self, case: dict[str, Any], arrays: dict[str, Array], run: int) -> None:
        self.arrays, self.tolerance = arrays, GOLDEN[case["dtype"]]
        self.suffix = "" if run == 0 else f"__run{run + 1}"

    def __call__(self, key: str, got: Any) -> None:
        if key.startswith("g_init") and key + self.suffix not in self.arrays:
            return  # a zero state has no gradient in the goldens
        assert_close(key + self.suffix, got, self.arrays[key + self.suffix], self.tolerance)

    def leaves(self, key: str, structure: Any) -> None:
        for k, leaf in enumerate(flatten(structure)):
            self(f"{key}{k}", leaf)


@_of("cell", "dynamic_rnn", "static_rnn", "raw_rnn")
def test_one_direction(case: dict[str, Any]) -> None:
    arrays, run = _arrays(case), 0
    builder = Builder(case["dtype"], case["graph_seed"], lambda: run)
    scope = "" if case["driver"] == "cell" else "rnn/"
    cell = builder.build(case["cell"], case["D"], scope)
    named = {v["name"]: arrays[v["key"]] for v in case["variables"]}
    batch_major = case["driver"] == "dynamic_rnn" and not case.get("driver_kwargs", {}).get("time_major")

    def time_major(value: Array) -> Array:
        if case["driver"] == "cell":
            return value[None]
        return value.swapaxes(0, 1) if batch_major else value

    def back(value: Array) -> Array:
        return value[0] if case["driver"] == "cell" else time_major(value)

    x = time_major(arrays["x"])
    for run in range(case["runs"]):
        builder.set_weights(named)
        compare = Comparison(case, arrays, run)
        init = _state(cell, arrays, "init", case["B"])
        out, final, caches = unroll(cell, x, init, case.get("seq_len"), Run(), case["driver"] == "static_rnn")
        if case["driver"] == "raw_rnn":
            out = out[: max(case["seq_len"])]
        compare("out", back(out))
        compare.leaves("final", final)
        d_out = time_major(arrays["ct_out"].astype(np.float64))
        d_final = _pack(cell.state_size, [arrays[f"ct_final{k}"] for k in range(len(flatten(final)))])
        loss = (out * d_out).sum() + sum((a * b).sum() for a, b in zip(flatten(final), flatten(d_final), strict=True))
        compare("loss", loss)
        d_x, d_init = unroll_backward(cell, x, caches, d_out, d_final)
        compare("g_x", back(d_x))
        compare.leaves("g_init", d_init)
        for variable, (name, grad) in zip(case["variables"], builder.grads().items(), strict=True):
            assert name == variable["name"]
            compare("g" + variable["key"], grad)


@_of("bidirectional_dynamic_rnn")
def test_two_directions(case: dict[str, Any]) -> None:
    arrays, run = _arrays(case), 0
    builder = Builder(case["dtype"], case["graph_seed"], lambda: run)
    lengths, time_major = case.get("seq_len"), case.get("driver_kwargs", {}).get("time_major", False)
    cells = {d: builder.build(case[f"cell_{d}"], case["D"], f"bidirectional_rnn/{d}/") for d in ("fw", "bw")}
    named = {v["name"]: arrays[v["key"]] for v in case["variables"]}

    def swap(value: Array) -> Array:
        return value if time_major else value.swapaxes(0, 1)

    def align(value: Array, direction: str) -> Array:
        return reverse(value, lengths) if direction == "bw" else value

    for run in range(case["runs"]):
        builder.set_weights(named)
        compare, session = Comparison(case, arrays, run), Run()
        d_x = np.zeros(swap(arrays["x"]).shape)
        for direction, cell in cells.items():
            x = align(swap(arrays["x"]), direction)
            init = _state(cell, arrays, f"init_{direction}", case["B"])
            out, final, caches = unroll(cell, x, init, lengths, session)
            compare(f"out_{direction}", swap(align(out, direction)))
            compare.leaves(f"final_{direction}", final)
            d_out = align(swap(arrays[f"ct_out_{direction}"].astype(np.float64)), direction)
            count = len(flatten(final))
            d_final = _pack(cell.state_size, [arrays[f"ct_final_{direction}{k}"] for k in range(count)])
            d_part, d_init = unroll_backward(cell, x, caches, d_out, d_final)
            compare.leaves(f"g_init_{direction}", d_init)
            d_x += align(d_part, direction)
        compare("g_x", swap(d_x))
        for variable, (name, grad) in zip(case["variables"], builder.grads().items(), strict=True):
            assert name == variable["name"]
            compare("g" + variable["key"], grad)


class EagerDropout(DropoutWrapper):
    """TF2's wrapper: streams belong to the process, variational noise is drawn once."""

    def __init__(self, cell: Cell, streams: dict[Any, int], case: dict[str, Any]) -> None:
        kwargs = case["wrapper_kwargs"]
        keep = {kind: kwargs.get(f"{kind}_keep_prob", 1.0) for kind in ("input", "state", "output")}
        variational = kwargs.get("variational_recurrent", False)
        super().__init__(cell, keep, kwargs["seed"], case["graph_seed"], case["dtype"], variational)
        self.visitor, self.streams = lambda state: True, streams

    def _uniform(self, kind: str, index: int, shape: tuple[int, ...], op: int) -> Array:
        seeds = op_seeds(self.graph_seed, mask_seed(self.seed, kind, index))
        block = self.streams.get((seeds, self.dtype), 0)
        self.streams[seeds, self.dtype] = block + BLOCKS_PER_ELEMENT * int(np.prod(shape))
        return uniform(shape, self.dtype, *seeds, block)


@_of("v2_eager")
def test_keras_cells_in_the_eager_wrapper(case: dict[str, Any]) -> None:
    arrays = _arrays(case)
    inner = getattr(keras, case["keras_cell"])(case["D"], case["units"])
    cell = EagerDropout(inner, {}, case)
    noise = Run()
    for run in range(case["runs"]):
        inner.set_weights({v["name"]: arrays[v["key"]] for v in case["variables"]})
        compare = Comparison(case, arrays, run)
        state = _pack(inner.state_size, [arrays[f"init{k}"] for k in range(len(inner.state_size))])
        out, final, caches = unroll(cell, arrays["x"], state, None, noise)
        compare("out", out)
        compare.leaves("final", final)
        d_final = _pack(inner.state_size, [arrays[f"ct_final{k}"] for k in range(len(final))])
        d_x, d_init = unroll_backward(cell, arrays["x"], caches, arrays["ct_out"].astype(np.float64), d_final)
        compare("g_x", d_x)
        compare.leaves("g_init", d_init)
        for variable in case["variables"]:
            compare("g" + variable["key"], inner.grads[variable["name"]])


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
    compare = Comparison(case, arrays, 0)
    layers = _cudnn_layers(case)
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
