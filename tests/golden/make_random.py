"""Writes golden cases of random compositions: `python make_random.py NEW_DIRECTORY --cases 200 --seed 1`.

Needs tensorflow-cpu 2.15, as `make bench-peers` installs it in .cache/bench/tf1. What cellweave makes of the cases is
compared by `pytest tests/golden/test_golden_cases.py --goldens NEW_DIRECTORY`. A seed gives the same cases each time.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

v1 = tf.compat.v1
rnn_cell = v1.nn.rnn_cell

Tree = dict[str, Any]

ACTIVATIONS = (
    "tanh", "relu", "sigmoid", "softsign", "softplus", "elu", "selu", "relu6", "leaky_relu", "identity", "silu", "gelu",
)  # fmt: skip
UNITS = (1, 2, 3, 4, 5, 7, 8)
SEEDS = (0, 1, 7, 32, -5, 123456, 2**31 - 1)
GRAPH_SEEDS = (None, None, 1, 99, -7, 2**33 + 5)
DRIVERS = (
    "cell", "dynamic_rnn", "dynamic_rnn", "dynamic_rnn", "static_rnn", "raw_rnn", "bidirectional_dynamic_rnn",
    "static_bidirectional_rnn",
)  # fmt: skip
#: Drivers whose while loops would else draw masks in an order of their own.
LOOPS = ("dynamic_rnn", "raw_rnn", "bidirectional_dynamic_rnn")


def _only_c(state: Any) -> Any:
    return rnn_cell.LSTMStateTuple(c=True, h=False) if isinstance(state, rnn_cell.LSTMStateTuple) else True


def _first_only(state: Any) -> Any:
    return tuple(k == 0 for k in range(len(state))) if type(state) is tuple else True


#: As the manifest's conventions name them.
VISITORS: dict[str, Callable[[Any], Any]] = {
    "drop_all": lambda state: True,
    "drop_none": lambda state: False,
    "only_c": _only_c,
    "skip_lstm": lambda state: not isinstance(state, rnn_cell.LSTMStateTuple),
    "first_only": _first_only,
}
RESIDUAL_FNS: dict[str, Callable[[Any, Any], Any]] = {
    "half_in": lambda i, o: 0.5 * i + o,
    "gate": lambda i, o: i * tf.sigmoid(o),
    "out_minus_in": lambda i, o: o - i,
}


class Inventor:
    """Invents cases.

    Args:
        rng: Decides everything.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def _often(self, share: float) -> bool:
        return self._rng.random() < share

    def case(self, name: str) -> dict[str, Any]:
        """A case without its numbers."""
        pick = self._rng.choice
        driver, steps, rows, depth = pick(DRIVERS), pick((1, 2, 4, 5, 9)), pick((1, 2, 3, 5)), pick((1, 2, 3, 4, 5, 8))
        case = {
            "id": name, "symbol": "tf.nn.rnn_cell", "driver": driver, "B": rows, "D": depth,
            "dtype": pick(("float32", "float32", "float64")), "runs": pick((1, 2, 2, 3)),
            "graph_seed": pick(GRAPH_SEEDS), "file": f"{name}.npz",
        }  # fmt: skip
        for key in ("cell_fw", "cell_bw") if "bidirectional" in driver else ("cell",):
            case[key] = self._tree(pick((0, 1, 2, 3)), depth, case["runs"])[0]
        if driver != "cell":
            case["T"] = steps
            if self._often(0.5):
                case["seq_len"] = [self._rng.randint(0, steps) for _ in range(rows)]
                if driver == "raw_rnn" and not any(case["seq_len"]):  # TensorFlow stacks no empty array
                    case["seq_len"][0] = steps
        options = {"time_major": True} if driver in LOOPS and driver != "raw_rnn" and self._often(0.4) else {}
        if driver in LOOPS:
            options["parallel_iterations"] = 1
        if options:
            case["driver_kwargs"] = options
        if driver == "cell" or self._often(0.5):
            case["init"] = True
        return case

    def _tree(self, levels: int, depth: int, runs: int) -> tuple[Tree, int]:
        """A cell and the size of its outputs."""
        kind = self._rng.random()
        if levels == 0 or kind < 0.3:
            return self._cell()
        if kind < 0.77:
            inner, width = self._tree(levels - 1, depth, runs)
            if kind < 0.6:
                return {"class": "DropoutWrapper", "kwargs": self._dropout(depth, runs), "cell": inner}, width
            if kind < 0.7 and width == depth:
                kwargs = {"residual_fn": self._rng.choice(list(RESIDUAL_FNS))} if self._often(0.4) else {}
                return {"class": "ResidualWrapper", "kwargs": kwargs, "cell": inner}, width
            return {"class": "DeviceWrapper", "kwargs": {"device": "/cpu:0"}, "cell": inner}, width
        cells, width = [], depth
        for _ in range(self._rng.choice((1, 2, 2, 3))):
            inner, width = self._tree(levels - 1, width, runs)
            cells.append(inner)
        return {"class": "MultiRNNCell", "kwargs": {}, "cells": cells}, width

    def _cell(self) -> tuple[Tree, int]:
        pick, often = self._rng.choice, self._often
        kind, units = pick(("BasicRNNCell", "GRUCell", "BasicLSTMCell", "LSTMCell", "LSTMCell")), pick(UNITS)
        kwargs: dict[str, Any] = {"num_units": units}
        width = units
        if often(0.35):
            kwargs["activation"] = pick(ACTIVATIONS)
        if "LSTM" in kind:
            if often(0.4):
                kwargs["forget_bias"] = pick((0.0, 0.3, -1.0, 2.5))
            if often(0.2):
                kwargs["state_is_tuple"] = False
        if kind == "LSTMCell":
            if often(0.4):
                kwargs["use_peepholes"] = True
            if often(0.4):
                kwargs["cell_clip"] = pick((0.2, 0.5, 1.0))
            if often(0.4):
                kwargs["num_proj"] = width = pick((1, 2, 3, 4, 6))
                if often(0.5):
                    kwargs["proj_clip"] = pick((0.1, 0.3, 1.0))
        return {"class": kind, "kwargs": kwargs}, width

    def _dropout(self, depth: int, runs: int) -> dict[str, Any]:
        kinds = [kind for kind in ("input", "output", "state") if self._often(0.6)]
        kwargs: dict[str, Any] = {f"{kind}_keep_prob": self._keep(runs) for kind in kinds}
        kwargs["seed"] = self._rng.choice(SEEDS)
        if self._often(0.5):
            kwargs["variational_recurrent"] = True
            if "input" in kinds or self._often(0.3):
                kwargs["input_size"] = depth
        if self._often(0.3):
            kwargs["dropout_state_filter_visitor"] = self._rng.choice(list(VISITORS))
        return kwargs

    def _keep(self, runs: int) -> Any:
        if self._often(0.05):
            return 1.0
        values = [round(self._rng.uniform(0.2, 0.99), 2) for _ in range(runs)]
        if self._often(0.15):
            return {"placeholder": values if self._often(0.5) else values[0]}
        return values[0]


class Feeds:
    """Placeholders and what they are fed, run by run."""

    def __init__(self, dtype: Any) -> None:
        self._dtype = dtype
        self._fed: list[tuple[Any, Any]] = []

    def array(self, value: np.ndarray) -> Any:
        """A placeholder for an array."""
        found = v1.placeholder(self._dtype, value.shape)
        self._fed.append((found, value))
        return found

    def scalar(self, values: list[float] | float) -> Any:
        """A placeholder for a number, or for one per run."""
        found = v1.placeholder(self._dtype, [])
        self._fed.append((found, values))
        return found

    def of_run(self, number: int) -> dict[Any, Any]:
        """What run `number` (from 0) is fed."""
        return {tensor: value[number] if isinstance(value, list) else value for tensor, value in self._fed}


def build(tree: Tree, dtype: Any, feeds: Feeds) -> Any:
    """TensorFlow's cell of a tree."""
    tables = {"dropout_state_filter_visitor": VISITORS, "residual_fn": RESIDUAL_FNS}
    kwargs = {key: tables[key][value] if key in tables else value for key, value in tree["kwargs"].items()}
    for key, value in kwargs.items():
        if isinstance(value, dict):
            kwargs[key] = feeds.scalar(value["placeholder"])
    if "activation" in kwargs:
        kwargs["activation"] = getattr(tf.nn, kwargs["activation"], None) or getattr(tf, kwargs["activation"])
    if "input_size" in kwargs:
        kwargs["input_size"] = tf.TensorShape([kwargs["input_size"]])
    if kwargs.get("variational_recurrent"):
        kwargs["dtype"] = dtype
    cls = getattr(rnn_cell, tree["class"])
    if "cells" in tree:
        return cls([build(inner, dtype, feeds) for inner in tree["cells"]], **kwargs)
    return cls(build(tree["cell"], dtype, feeds), **kwargs) if "cell" in tree else cls(**kwargs)


def unrolled(case: dict[str, Any], cells: dict[str, Any], x: Any, start: dict[str, Any], dtype: Any) -> Any:
    """Outputs by golden key, and final states by direction."""
    driver, options = case["driver"], case.get("driver_kwargs", {})
    lengths = tf.constant(case["seq_len"], tf.int32) if "seq_len" in case else None
    if driver == "cell":
        out, final = cells[""](x, start[""])
        return {"out": out}, {"": final}
    if "bidirectional" in driver:
        states = {"initial_state_fw": start["fw"], "initial_state_bw": start["bw"]} if start else {"dtype": dtype}
        pair, kwargs = (cells["fw"], cells["bw"]), {"sequence_length": lengths, **states, **options}
        if driver.startswith("static"):
            out, fw, bw = v1.nn.static_bidirectional_rnn(*pair, tf.unstack(x), **kwargs)
            return {"out": tf.stack(out)}, {"fw": fw, "bw": bw}
        (out_fw, out_bw), (fw, bw) = v1.nn.bidirectional_dynamic_rnn(*pair, x, **kwargs)
        return {"out_fw": out_fw, "out_bw": out_bw}, {"fw": fw, "bw": bw}
    if driver == "raw_rnn":
        first = start[""] if start else cells[""].zero_state(case["B"], dtype)
        out, final = _raw(case, cells[""], x, first, lengths, dtype)
        return {"out": out}, {"": final}
    state = {"initial_state": start[""]} if start else {"dtype": dtype}
    if driver == "static_rnn":
        outputs, final = v1.nn.static_rnn(cells[""], tf.unstack(x), sequence_length=lengths, **state)
        return {"out": tf.stack(outputs)}, {"": final}
    out, final = v1.nn.dynamic_rnn(cells[""], x, sequence_length=lengths, **state, **options)
    return {"out": out}, {"": final}


def _raw(case: dict[str, Any], cell: Any, x: Any, first: Any, lengths: Any, dtype: Any) -> tuple[Any, Any]:
    steps, rows, depth = case["T"], case["B"], case["D"]
    lengths = tf.fill([rows], steps) if lengths is None else lengths
    inputs = v1.TensorArray(dtype, steps, element_shape=[rows, depth]).unstack(x)

    def loop_fn(time: Any, output: Any, state: Any, loop_state: Any) -> Any:
        finished = time >= lengths
        following = tf.cond(tf.reduce_all(finished), lambda: tf.zeros([rows, depth], dtype), lambda: inputs.read(time))
        following.set_shape([rows, depth])
        return finished, following, first if output is None else state, output, None

    emitted, final, _ = v1.nn.raw_rnn(cell, loop_fn, **case["driver_kwargs"])
    return emitted.stack(), final


def picture(state: Any) -> str:
    """The structure of a state as the manifest writes it."""
    if isinstance(state, rnn_cell.LSTMStateTuple):
        return f"LSTMStateTuple(c={picture(state.c)}, h={picture(state.h)})"
    if isinstance(state, tuple):
        return f"({', '.join(map(picture, state))}{',' if len(state) == 1 else ''})"
    return "*"


def make(case: dict[str, Any], numbers: np.random.Generator, directory: Path) -> dict[str, Any]:
    """Compute a case and write its arrays; its entry in the manifest."""
    arrays: dict[str, np.ndarray] = {}

    def normal(key: str, *shape: int) -> np.ndarray:
        arrays[key] = numbers.normal(size=shape).astype(case["dtype"]) * (0.5 if key.startswith("w") else 1)
        return arrays[key]

    with tf.Graph().as_default(), v1.Session() as session:
        if case["graph_seed"] is not None:
            v1.set_random_seed(case["graph_seed"])
        dtype = tf.as_dtype(case["dtype"])
        feeds = Feeds(dtype)
        cells = {key[5:]: build(case[key], dtype, feeds) for key in ("cell", "cell_fw", "cell_bw") if key in case}
        sizes = [case["B"], case["D"]] if case["driver"] == "cell" else [case["T"], case["B"], case["D"]]
        batch_major = "dynamic" in case["driver"] and "time_major" not in case["driver_kwargs"]
        sources = {"x": feeds.array(normal("x", *([sizes[1], sizes[0], sizes[2]] if batch_major else sizes)))}
        start = {}
        for direction, cell in cells.items() if "init" in case else ():
            stem = f"init_{direction}" if direction else "init"
            given = {f"{stem}{k}": int(size) for k, size in enumerate(tf.nest.flatten(cell.state_size))}
            leaves = {key: feeds.array(normal(key, case["B"], size)) for key, size in given.items()}
            start[direction] = tf.nest.pack_sequence_as(cell.state_size, list(leaves.values()))
            sources |= leaves
        results, finals = unrolled(case, cells, sources["x"], start, dtype)
        for direction, final in finals.items():
            stem = f"final_{direction}" if direction else "final"
            results |= {f"{stem}{k}": leaf for k, leaf in enumerate(tf.nest.flatten(final))}
        variables = v1.global_variables()
        for k, variable in enumerate(variables):
            sources[f"w{k}"] = variable
            variable.load(normal(f"w{k}", *variable.shape), session)
        loss = tf.zeros([], dtype)
        for key, value in results.items():
            shape = [size or max(case.get("seq_len", [case.get("T")])) for size in value.shape]
            loss += tf.reduce_sum(value * normal(f"ct_{key}", *shape))
        grads = tf.gradients(loss, list(sources.values()), unconnected_gradients="zero")
        wanted = {**results, "loss": loss}
        for (key, _), grad in zip(sources.items(), grads, strict=True):
            wanted[f"g{key}" if key.startswith("w") else f"g_{key}"] = tf.convert_to_tensor(grad)
        for number in range(case["runs"]):
            found = session.run(wanted, feeds.of_run(number))
            arrays |= {f"{key}__run{number + 1}" if number else key: value for key, value in found.items()}
    if "seq_len" in case:
        arrays["seq_len"] = np.asarray(case["seq_len"], np.int32)
    np.savez(directory / case["file"], **arrays)
    named = [
        {"key": f"w{k}", "name": v.op.name, "shape": v.shape.as_list(), "dtype": case["dtype"]}
        for k, v in enumerate(variables)
    ]
    pictures = {direction: picture(final) for direction, final in finals.items()}
    return {
        **case, "variables": named, "state_structure": pictures.get("", pictures),
        "arrays": {key: {"shape": list(np.shape(v)), "dtype": str(np.asarray(v).dtype)} for key, v in arrays.items()},
    }  # fmt: skip


def main() -> None:
    """Write the cases and the manifest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    v1.disable_v2_behavior()
    options.directory.mkdir(parents=True)
    inventor, cases = Inventor(random.Random(options.seed)), []
    for number in range(options.cases):
        case = inventor.case(f"random_{options.seed}_{number}")
        cases.append(make(case, np.random.default_rng([options.seed, number]), options.directory))
    manifest = {"format": 1, "set": "random", "oracle": f"tensorflow {tf.__version__}, v1 graph mode", "cases": cases}
    (options.directory / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
