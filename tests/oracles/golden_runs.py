"""What a golden case holds, computed by the oracles: outputs, states, loss and gradients of every run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from oracles import keras
from oracles.activations import Array
from oracles.composition import DropoutWrapper, Run, flatten, rebuild
from oracles.philox import BLOCKS_PER_ELEMENT, mask_seed, op_seeds, uniform
from oracles.tf1 import Cell
from oracles.trees import Builder
from oracles.unroll import reverse, unroll, unroll_backward, zero_state

Case = dict[str, Any]
Arrays = dict[str, Array]


def pack(size: Any, leaves: list[Array]) -> Any:
    """Leaves, as float64, in the structure of a state size."""
    return _pack(size, list(leaves))


def _pack(size: Any, leaves: list[Array]) -> Any:
    if isinstance(size, tuple | list):
        return rebuild(size, [_pack(item, leaves) for item in size])
    return leaves.pop(0).astype(np.float64)


def _keyed(stem: str, structure: Any) -> Arrays:
    return {f"{stem}{k}": leaf for k, leaf in enumerate(flatten(structure))}


def _state(cell: Cell, arrays: Arrays, stem: str, batch: int) -> Any:
    keys = [f"{stem}{k}" for k in range(len(flatten(cell.state_size)))]
    return pack(cell.state_size, [arrays[k] for k in keys]) if keys[0] in arrays else zero_state(cell.state_size, batch)


def _upstream(cell: Cell, arrays: Arrays, stem: str) -> Any:
    return pack(cell.state_size, [arrays[f"{stem}{k}"] for k in range(len(flatten(cell.state_size)))])


def _with_loss(values: Arrays, arrays: Arrays) -> Arrays:
    loss = sum((value * arrays[f"ct_{key}"].astype(np.float64)).sum() for key, value in values.items())
    return {**values, "loss": np.asarray(loss)}


def _weight_gradients(case: Case, builder: Builder) -> Arrays:
    grads = builder.grads()
    if list(grads) != [v["name"] for v in case["variables"]]:
        raise AssertionError(f"the oracle's variables {list(grads)} are not the golden's")
    return {f"g{v['key']}": grads[v["name"]] for v in case["variables"]}


#: Axis 0 and 1 of a driver's arrays: how they become time major.
def _time_axes(case: Case) -> str:
    if case["driver"] == "cell":
        return "step"
    batch_major = "dynamic_rnn" in case["driver"] and not case.get("driver_kwargs", {}).get("time_major", False)
    return "batch" if batch_major else "time"


def _time_major(value: Array, axes: str) -> Array:
    return {"step": lambda: value[None], "batch": lambda: value.swapaxes(0, 1), "time": lambda: value}[axes]()


def _as_given(value: Array, axes: str) -> Array:
    return value[0] if axes == "step" else _time_major(value, axes)


def one_direction(case: Case, arrays: Arrays) -> Iterator[Arrays]:
    """Results of the drivers cell, dynamic_rnn, static_rnn and raw_rnn, run by run."""
    axes = _time_axes(case)
    builder = Builder(case["dtype"], case["graph_seed"])
    cell = builder.build(case["cell"], case["D"], "" if axes == "step" else "rnn/")
    named, lengths = {v["name"]: arrays[v["key"]] for v in case["variables"]}, case.get("seq_len")
    x, d_out = _time_major(arrays["x"], axes), _time_major(arrays["ct_out"].astype(np.float64), axes)
    d_final = _upstream(cell, arrays, "ct_final")
    for builder.run in range(case["runs"]):
        builder.set_weights(named)
        init = _state(cell, arrays, "init", case["B"])
        out, final, caches = unroll(cell, x, init, lengths, Run(), case["driver"] == "static_rnn")
        if case["driver"] == "raw_rnn" and lengths is not None:
            out = out[: max(lengths)]
        d_x, d_init = unroll_backward(cell, x, caches, d_out, d_final)
        values = {"out": _as_given(out, axes), **_keyed("final", final)}
        yield {
            **_with_loss(values, arrays),
            "g_x": _as_given(d_x, axes),
            **_keyed("g_init", d_init),
            **_weight_gradients(case, builder),
        }


def two_directions(case: Case, arrays: Arrays) -> Iterator[Arrays]:
    """Results of bidirectional_dynamic_rnn and static_bidirectional_rnn, run by run."""
    axes, static = _time_axes(case), case["driver"].startswith("static")
    builder = Builder(case["dtype"], case["graph_seed"])
    cells = {d: builder.build(case[f"cell_{d}"], case["D"], f"bidirectional_rnn/{d}/") for d in ("fw", "bw")}
    named = {v["name"]: arrays[v["key"]] for v in case["variables"]}
    x = _time_major(arrays["x"], axes).astype(np.float64)
    if static:
        d_outs = np.split(arrays["ct_out"].astype(np.float64), [cells["fw"].output_size], axis=2)
    else:
        d_outs = [_time_major(arrays[f"ct_out_{d}"].astype(np.float64), axes) for d in cells]
    for builder.run in range(case["runs"]):
        builder.set_weights(named)
        layer = _Bidirectional(cells, case.get("seq_len"), static)
        starts = {d: _state(cell, arrays, f"init_{d}", case["B"]) for d, cell in cells.items()}
        outs, finals = layer.forward(x, starts, Run())
        values = {k: v for d in cells for k, v in _keyed(f"final_{d}", finals[d]).items()}
        if static:
            values["out"] = np.concatenate(outs, axis=2)
        else:
            values |= {f"out_{d}": _as_given(out, axes) for d, out in zip(cells, outs, strict=True)}
        d_finals = {d: _upstream(cell, arrays, f"ct_final_{d}") for d, cell in cells.items()}
        d_x, d_starts = layer.backward(d_outs, d_finals)
        grads = {k: v for d in cells for k, v in _keyed(f"g_init_{d}", d_starts[d]).items()}
        weights = _weight_gradients(case, builder)
        yield {**_with_loss(values, arrays), "g_x": _as_given(d_x, axes), **grads, **weights}


class _Bidirectional:
    """One cell forwards, one backwards, time major."""

    def __init__(self, cells: dict[str, Cell], lengths: list[int] | None, op_per_step: bool = False) -> None:
        self.cells, self.lengths, self.op_per_step = cells, lengths, op_per_step
        self.trace: dict[str, tuple[Array, Any]] = {}

    def _align(self, value: Array, direction: str) -> Array:
        return reverse(value, self.lengths) if direction == "bw" else value

    def forward(self, x: Array, starts: dict[str, Any], run: Run) -> tuple[list[Array], dict[str, Any]]:
        outs, finals = [], {}
        for d, cell in self.cells.items():
            seen = self._align(x, d)
            out, finals[d], caches = unroll(cell, seen, starts[d], self.lengths, run, self.op_per_step)
            self.trace[d] = (seen, caches)
            outs.append(self._align(out, d))
        return outs, finals

    def backward(self, d_outs: list[Array], d_finals: dict[str, Any]) -> tuple[Array, dict[str, Any]]:
        total: Any = 0.0
        d_starts = {}
        for (d, cell), d_out in zip(self.cells.items(), d_outs, strict=True):
            seen, caches = self.trace[d]
            d_x, d_starts[d] = unroll_backward(cell, seen, caches, self._align(d_out, d), d_finals[d])
            total = total + self._align(d_x, d)
        return total, d_starts


def stacked_directions(case: Case, arrays: Arrays) -> Iterator[Arrays]:
    """Results of stack_bidirectional_dynamic_rnn, run by run."""
    axes, builder, depth = _time_axes(case), Builder(case["dtype"], case["graph_seed"]), case["D"]
    layers: list[dict[str, Cell]] = []
    for k, trees in enumerate(zip(case["cells_fw"], case["cells_bw"], strict=True)):
        scope = f"stack_bidirectional_rnn/cell_{k}/bidirectional_rnn"
        pair = zip(("fw", "bw"), trees, strict=True)
        layers.append({d: builder.build(tree, depth, f"{scope}/{d}/") for d, tree in pair})
        depth = sum(cell.output_size for cell in layers[-1].values())
    named = {v["name"]: arrays[v["key"]] for v in case["variables"]}
    sizes = {d: tuple(layer[d].state_size for layer in layers) for d in ("fw", "bw")}

    def states(stem: str, d: str) -> Any:
        return pack(sizes[d], [arrays[f"{stem}_{d}{k}"] for k in range(len(flatten(sizes[d])))])

    for builder.run in range(case["runs"]):
        builder.set_weights(named)
        x, run, passes = _time_major(arrays["x"], axes).astype(np.float64), Run(), []
        starts = {d: states("init", d) if "init_fw0" in arrays else zero_state(sizes[d], case["B"]) for d in sizes}
        finals: dict[str, list[Any]] = {d: [] for d in sizes}
        for k, layer in enumerate(layers):
            passes.append(_Bidirectional(layer, case.get("seq_len")))
            outs, new = passes[-1].forward(x, {d: starts[d][k] for d in sizes}, run)
            x = np.concatenate(outs, axis=2)
            for d in sizes:
                finals[d].append(new[d])
        values = {"out": _as_given(x, axes)}
        for d in sizes:
            values |= _keyed(f"final_{d}", tuple(finals[d]))
        d_x, d_starts = _time_major(arrays["ct_out"].astype(np.float64), axes), {d: [] for d in sizes}
        upstream = {d: states("ct_final", d) for d in sizes}
        for k in reversed(range(len(layers))):
            parts = np.split(d_x, [layers[k]["fw"].output_size], axis=2)
            d_x, d_state = passes[k].backward(parts, {d: upstream[d][k] for d in sizes})
            for d in sizes:
                d_starts[d].insert(0, d_state[d])
        grads = {k: v for d in sizes for k, v in _keyed(f"g_init_{d}", d_starts[d]).items()}
        weights = _weight_gradients(case, builder)
        yield {**_with_loss(values, arrays), "g_x": _as_given(d_x, axes), **grads, **weights}


class EagerDropout(DropoutWrapper):
    """TF2's wrapper: streams belong to the process, variational noise is drawn once, every state item is dropped."""

    def __init__(self, cell: Cell, streams: dict[Any, int], case: Case) -> None:
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


def eager(case: Case, arrays: Arrays) -> Iterator[Arrays]:
    """Results of v2_eager, run by run."""
    inner = getattr(keras, case["keras_cell"])(case["D"], case["units"])
    cell, noise = EagerDropout(inner, {}, case), Run()
    for _ in range(case["runs"]):
        inner.set_weights({v["name"]: arrays[v["key"]] for v in case["variables"]})
        out, final, caches = unroll(cell, arrays["x"], _state(inner, arrays, "init", case["B"]), None, noise)
        d_out, d_final = arrays["ct_out"].astype(np.float64), _upstream(inner, arrays, "ct_final")
        d_x, d_init = unroll_backward(cell, arrays["x"], caches, d_out, d_final)
        values = {"out": out, **_keyed("final", final)}
        yield {
            **_with_loss(values, arrays),
            "g_x": d_x,
            **_keyed("g_init", d_init),
            **{f"g{v['key']}": inner.grads[v["name"]] for v in case["variables"]},
        }


RUNS = {
    "cell": one_direction,
    "dynamic_rnn": one_direction,
    "static_rnn": one_direction,
    "raw_rnn": one_direction,
    "bidirectional_dynamic_rnn": two_directions,
    "static_bidirectional_rnn": two_directions,
    "stack_bidirectional_dynamic_rnn": stacked_directions,
    "v2_eager": eager,
}
