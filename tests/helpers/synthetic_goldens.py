"""Golden cases that TensorFlow never ran: random compositions, computed by the oracles that its goldens have proved."""

from __future__ import annotations

import hashlib
import json
import random
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from oracles import keras
from oracles.composition import flatten
from oracles.golden_runs import RUNS
from oracles.trees import Builder

Case = dict[str, Any]
Arrays = dict[str, np.ndarray]

_ACTIVATIONS = ("tanh", "relu", "sigmoid", "softsign", "softplus", "elu", "selu", "relu6", "identity", "sin", "swish")
_VISITORS = ("drop_all", "drop_none", "only_c", "skip_lstm", "first_only")
_RESIDUAL_FNS = ("half_in", "gate", "out_minus_in")
_BOTH = ("bidirectional_dynamic_rnn", "static_bidirectional_rnn", "stack_bidirectional_dynamic_rnn")
_DRIVERS = ("cell", "dynamic_rnn", "dynamic_rnn", "dynamic_rnn", "static_rnn", "raw_rnn", *_BOTH)
_DEEPEST = 3


class _Maker:
    """Random trees for inputs of a depth; knows what is legal."""

    def __init__(self, rng: random.Random, runs: int) -> None:
        self.rng, self.runs = rng, runs

    def tree(self, depth: int, level: int = 0) -> tuple[dict[str, Any], int, bool]:
        """A tree, its output size, and whether its state is one tensor."""
        kinds = (
            ["plain"] if level >= _DEEPEST else ["plain", "plain", "dropout", "dropout", "multi", "residual", "device"]
        )
        return getattr(self, f"_{self.rng.choice(kinds)}")(depth, level)

    def _plain(self, depth: int, level: int) -> tuple[dict[str, Any], int, bool]:
        rng = self.rng
        kind, units = rng.choice(["BasicRNNCell", "GRUCell", "BasicLSTMCell", "LSTMCell"]), rng.randint(1, 5)
        kwargs: dict[str, Any] = {"num_units": units}
        out, single = units, True
        if rng.random() < 0.3:
            kwargs["activation"] = rng.choice(_ACTIVATIONS)
        if rng.random() < 0.2:
            kwargs["name"] = rng.choice(["alpha", "beta_2"])
        if "LSTM" in kind:
            kwargs["state_is_tuple"] = rng.random() < 0.75
            single = not kwargs["state_is_tuple"]
            kwargs["forget_bias"] = rng.choice([0.0, 0.5, 1.0])
        if kind == "LSTMCell":
            kwargs["use_peepholes"] = rng.random() < 0.4
            if rng.random() < 0.4:
                kwargs["num_proj"] = out = rng.randint(1, 5)
                kwargs["proj_clip"] = rng.choice([None, 0.2])
            kwargs["cell_clip"] = rng.choice([None, None, 0.6])
        return {"class": kind, "kwargs": kwargs}, out, single

    def _multi(self, depth: int, level: int) -> tuple[dict[str, Any], int, bool]:
        cells, singles = [], []
        for _ in range(self.rng.randint(1, 3)):
            cell, depth, single = self.tree(depth, level + 1)
            cells.append(cell)
            singles.append(single)
        joined = all(singles) and self.rng.random() < 0.5
        kwargs = {"state_is_tuple": False} if joined else {}
        return {"class": "MultiRNNCell", "kwargs": kwargs, "cells": cells}, depth, joined

    def _device(self, depth: int, level: int) -> tuple[dict[str, Any], int, bool]:
        cell, out, single = self.tree(depth, level + 1)
        return {"class": "DeviceWrapper", "kwargs": {"device": "/cpu:0"}, "cell": cell}, out, single

    def _residual(self, depth: int, level: int) -> tuple[dict[str, Any], int, bool]:
        cell, out, single = self.tree(depth, level + 1)
        if out != depth:
            return cell, out, single
        kwargs = {"residual_fn": self.rng.choice(_RESIDUAL_FNS)} if self.rng.random() < 0.6 else {}
        return {"class": "ResidualWrapper", "kwargs": kwargs, "cell": cell}, out, single

    def _keep(self) -> Any:
        value = self.rng.choice([0.5, 0.6, 0.75, 0.9])
        if self.rng.random() < 0.15:
            return {"placeholder": [self.rng.choice([0.4, 0.8, 1.0]) for _ in range(self.runs)]}
        return {"placeholder": value} if self.rng.random() < 0.1 else value

    def _dropout(self, depth: int, level: int) -> tuple[dict[str, Any], int, bool]:
        rng = self.rng
        cell, out, single = self.tree(depth, level + 1)
        kwargs: dict[str, Any] = {"seed": rng.choice([rng.randint(-50, 50), -(2**40), 2**65 + 3, 7])}
        for kind in ("input", "state", "output"):
            if rng.random() < 0.6:
                kwargs[f"{kind}_keep_prob"] = self._keep()
        if rng.random() < 0.5:
            kwargs["dropout_state_filter_visitor"] = rng.choice(_VISITORS)
        if rng.random() < 0.4:
            kwargs |= {"variational_recurrent": True, "input_size": depth}
        return {"class": "DropoutWrapper", "kwargs": kwargs, "cell": cell}, out, single


def make_case(number: int, dtype: str | None = None) -> tuple[Case, Arrays]:
    """Case `number`: the same numbers give the same case."""
    rng = random.Random(number)
    runs, driver = rng.randint(1, 3), rng.choice(_DRIVERS)
    case: Case = {
        "id": f"synthetic_{number}_{driver}",
        "symbol": "synthetic",
        "driver": driver,
        "B": rng.randint(1, 4),
        "D": rng.randint(1, 5),
        "dtype": dtype or rng.choice(["float32", "float64"]),
        "runs": runs,
        "graph_seed": rng.choice([None, None, 0, -3, 4321, 2**33]),
    }
    maker = _Maker(rng, runs)
    if driver == "stack_bidirectional_dynamic_rnn":
        case["cells_fw"], case["cells_bw"], depth = [], [], case["D"]
        for _ in range(rng.randint(1, 3)):
            (fw, fw_out, _), (bw, bw_out, _) = maker.tree(depth, 2), maker.tree(depth, 2)
            case["cells_fw"].append(fw)
            case["cells_bw"].append(bw)
            depth = fw_out + bw_out
    else:
        for key in ("cell_fw", "cell_bw") if driver in _BOTH else ("cell",):
            case[key] = maker.tree(case["D"])[0]
    if driver != "cell":
        case["T"] = rng.randint(1, 5)
    if driver == "raw_rnn" or (driver != "cell" and rng.random() < 0.6):
        longest = case["T"] + (2 if driver == "dynamic_rnn" else 0)
        lowest = 1 if driver == "raw_rnn" else 0
        case["seq_len"] = [rng.randint(lowest, longest) for _ in range(case["B"])]
        if driver == "raw_rnn":
            case["seq_len"][0] = case["T"]
    if "dynamic_rnn" in driver:
        case["driver_kwargs"] = {"parallel_iterations": 1, "time_major": rng.random() < 0.5}
    return case, _fill(case, rng.random() < 0.6)


def make_eager_case(number: int) -> tuple[Case, Arrays]:
    """A v2_eager case."""
    rng = random.Random(number)
    kind, units = rng.choice(["SimpleRNNCell", "GRUCell", "LSTMCell"]), rng.randint(1, 5)
    case: Case = {
        "id": f"synthetic_{number}_v2_eager",
        "symbol": "synthetic",
        "driver": "v2_eager",
        "keras_cell": kind,
        "units": units,
        "wrapper_kwargs": {"seed": rng.choice([rng.randint(-50, 50), 2**40])},
        "B": rng.randint(1, 4),
        "T": rng.randint(1, 4),
        "D": rng.randint(1, 5),
        "dtype": rng.choice(["float32", "float64"]),
        "runs": rng.randint(1, 3),
        "graph_seed": rng.choice([None, 0, 99, -5]),
    }
    for place in ("input", "state", "output"):
        if rng.random() < 0.7:
            case["wrapper_kwargs"][f"{place}_keep_prob"] = rng.choice([0.5, 0.6, 0.9])
    if rng.random() < 0.4:
        case["wrapper_kwargs"] |= {"variational_recurrent": True, "input_size": case["D"]}
    tensor = kind != "LSTMCell" and (rng.random() < 0.5 or "variational_recurrent" in case["wrapper_kwargs"])
    case["state"] = "tensor" if tensor else "list"
    case["state_structure"] = "*" if tensor else "[h, c]" if kind == "LSTMCell" else "[*]"
    numbers = np.random.default_rng(zlib.crc32(case["id"].encode()))

    def normal(*shape: int) -> np.ndarray:
        return (numbers.normal(size=shape) * 0.7).astype(case["dtype"])

    cell = getattr(keras, kind)(case["D"], units)
    leaves = range(len(cell.state_size))
    arrays = {"x": normal(case["T"], case["B"], case["D"]), "ct_out": normal(case["T"], case["B"], units)}
    arrays |= {f"{stem}{k}": normal(case["B"], units) for stem in ("init", "ct_final") for k in leaves}
    case["variables"] = []
    for key, (name, shape) in zip(("w0", "w1", "w2"), cell.shapes.items(), strict=True):
        case["variables"].append({"key": key, "name": name, "shape": list(shape), "dtype": case["dtype"]})
        arrays[key] = normal(*shape)
    _add_results(case, arrays, init=True)
    return case, arrays


def _add_results(case: Case, arrays: Arrays, init: bool) -> None:
    for number, results in enumerate(RUNS[case["driver"]](case, dict(arrays))):
        suffix = f"__run{number + 1}" if number else ""
        kept = {k: v for k, v in results.items() if init or not k.startswith("g_init")}
        arrays |= {k + suffix: np.asarray(v).astype(case["dtype"]) for k, v in kept.items()}


def _cells(case: Case, builder: Builder) -> dict[str, list[Any]]:
    """The cells of a case by direction, built in the order in which they make variables."""
    if "cell" in case:
        return {"": [builder.build(case["cell"], case["D"], "" if case["driver"] == "cell" else "rnn/")]}
    cells: dict[str, list[Any]] = {"fw": [], "bw": []}
    if "cell_fw" in case:
        for d, built in cells.items():
            built.append(builder.build(case[f"cell_{d}"], case["D"], f"bidirectional_rnn/{d}/"))
        return cells
    depth = case["D"]
    for k in range(len(case["cells_fw"])):
        for d, built in cells.items():
            scope = f"stack_bidirectional_rnn/cell_{k}/bidirectional_rnn/{d}/"
            built.append(builder.build(case[f"cells_{d}"][k], depth, scope))
        depth = sum(built[-1].output_size for built in cells.values())
    return cells


def _fill(case: Case, init: bool) -> Arrays:
    numbers = np.random.default_rng(zlib.crc32(case["id"].encode()))

    def normal(*shape: int) -> np.ndarray:
        return (numbers.normal(size=shape) * 0.7).astype(case["dtype"])

    B, T, driver = case["B"], case.get("T"), case["driver"]
    axes = {"cell": (B,)}.get(driver, (B, T) if "dynamic_rnn" in driver else (T, B))
    if case.get("driver_kwargs", {}).get("time_major"):
        axes = (T, B)
    arrays: Arrays = {"x": normal(*axes, case["D"])}
    builder = Builder(case["dtype"], case["graph_seed"])
    cells = _cells(case, builder)
    pictures = {}
    for d, built in cells.items():
        size = tuple(cell.state_size for cell in built) if "cells_fw" in case else built[0].state_size
        sizes = flatten(size)
        pictures[d] = _picture(size)
        if init:
            arrays |= {f"{_stem('init', d)}{k}": normal(B, size) for k, size in enumerate(sizes)}
        arrays |= {f"{_stem('ct_final', d)}{k}": normal(B, size) for k, size in enumerate(sizes)}
        if driver not in _BOTH[1:]:
            arrays[_stem("ct_out", d)] = normal(*axes, built[-1].output_size)
    if driver in _BOTH[1:]:
        arrays["ct_out"] = normal(*axes, sum(built[-1].output_size for built in cells.values()))
    if "seq_len" in case:
        arrays["seq_len"] = np.array(case["seq_len"], np.int32)
    case["variables"] = []
    for prefix, cell in builder.named:
        for suffix, shape in cell.shapes.items():
            key = f"w{len(case['variables'])}"
            case["variables"].append(
                {"key": key, "name": prefix + suffix, "shape": list(shape), "dtype": case["dtype"]}
            )
            arrays[key] = normal(*shape)
    case["state_structure"] = pictures.get("", pictures)
    _add_results(case, arrays, init)
    return arrays


def _stem(word: str, direction: str) -> str:
    return f"{word}_{direction}" if direction else word


def _picture(size: Any) -> str:
    if not isinstance(size, tuple):
        return "*"
    if hasattr(size, "_fields"):
        return "LSTMStateTuple(c=*, h=*)"
    return "(" + ", ".join(_picture(item) for item in size) + ")"


def write_set(directory: Path, cases: list[tuple[Case, Arrays]], errors: list[dict[str, Any]] | None = None) -> None:
    """A golden set of these cases, in the goldens' format."""
    directory.mkdir(parents=True, exist_ok=True)
    for case, arrays in cases:
        case["file"] = f"{case['id']}.npz"
        np.savez_compressed(directory / case["file"], **arrays)
        content = (directory / case["file"]).read_bytes()
        case |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        case["arrays"] = {k: {"shape": list(a.shape), "dtype": str(a.dtype), "meaning": ""} for k, a in arrays.items()}
    manifest = {"format": 1, "set": "synthetic", "conventions": {}, "cases": [case for case, _ in cases]}
    (directory / "manifest.json").write_text(json.dumps(manifest))
    if errors is not None:
        (directory / "errors.json").write_text(json.dumps({"format": 1, "cases": errors}))
