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
    """Results of bidirectional_dynamic_rnn, run by run."""
    axes = _time_axes(case)
    builder, lengths = Builder(case["dtype"], case["graph_seed"]), case.get("seq_len")
    cells = {d: builder.build(case[f"cell_{d}"], case["D"], f"bidirectional_rnn/{d}/") for d in ("fw", "bw")}
    named = {v["name"]: arrays[v["key"]] for v in case["variables"]}

    def align(value: Array, direction: str) -> Array:
        return reverse(value, lengths) if direction == "bw" else value

    for builder.run in range(case["runs"]):
        builder.set_weights(named)
        session, values, grads = Run(), {}, {}
        total = np.zeros(_time_major(arrays["x"], axes).shape)
        for d, cell in cells.items():
            x = align(_time_major(arrays["x"], axes), d)
            out, final, caches = unroll(cell, x, _state(cell, arrays, f"init_{d}", case["B"]), lengths, session)
            d_out = align(_time_major(arrays[f"ct_out_{d}"].astype(np.float64), axes), d)
            d_x, d_init = unroll_backward(cell, x, caches, d_out, _upstream(cell, arrays, f"ct_final_{d}"))
            values |= {f"out_{d}": _as_given(align(out, d), axes), **_keyed(f"final_{d}", final)}
            grads |= _keyed(f"g_init_{d}", d_init)
            total += align(d_x, d)
        weights = _weight_gradients(case, builder)
        yield {**_with_loss(values, arrays), "g_x": _as_given(total, axes), **grads, **weights}


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
    "v2_eager": eager,
}
