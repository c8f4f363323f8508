"""Writes the golden cases of TF1's block cells: `python make_contrib.py NEW_DIRECTORY`, with tensorflow-cpu 2.15.

The Python classes of `tf.contrib` are gone; their kernels are not. Values come from the ops `BlockLSTM` and
`GRUBlockCell`, gradients from `BlockLSTMGrad` and `GRUBlockCellGrad`, joined as the classes joined them.
"""

from __future__ import annotations

import hashlib
import json
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

FLOAT = "float32"


def gru_op(x: Any, h: Any, w: dict[str, Any]) -> Any:
    """One step of the block GRU, differentiable by the gradient op."""
    names = ["w_ru", "b_ru", "w_c", "b_c"]

    @tf.custom_gradient
    def step(x: Any, h: Any, w_ru: Any, b_ru: Any, w_c: Any, b_c: Any) -> Any:
        r, u, c, new = tf.raw_ops.GRUBlockCell(x=x, h_prev=h, w_ru=w_ru, w_c=w_c, b_ru=b_ru, b_c=b_c)

        def gradient(d_h: Any) -> Any:
            d_x, d_old, d_c_bar, d_ru_bar = tf.raw_ops.GRUBlockCellGrad(
                x=x, h_prev=h, w_ru=w_ru, w_c=w_c, b_ru=b_ru, b_c=b_c, r=r, u=u, c=c, d_h=d_h
            )
            d_w_ru = tf.matmul(tf.concat([x, h], 1), d_ru_bar, transpose_a=True)
            d_w_c = tf.matmul(tf.concat([x, h * r], 1), d_c_bar, transpose_a=True)
            return d_x, d_old, d_w_ru, tf.reduce_sum(d_ru_bar, 0), d_w_c, tf.reduce_sum(d_c_bar, 0)

        return new, gradient

    return step(x, h, *[w[name] for name in names])


def gru_sequence(x: Any, init: list[Any], weights: list[Any], case: dict[str, Any]) -> tuple[Any, list[Any]]:
    """`x [T, B, D]`, step by step; past a row's end zeros, and the state stays."""
    w = dict(zip(["w_ru", "b_ru", "w_c", "b_c"], weights, strict=True))
    h, outputs = init[0], []
    for t in range(x.shape[0]):
        new = gru_op(x[t], h, w)
        live = tf.constant([t < n for n in case.get("seq_len", [x.shape[0]] * x.shape[1])])[:, None]
        outputs.append(tf.where(live, new, tf.zeros_like(new)))
        h = tf.where(live, new, h)
    return tf.stack(outputs), [h]


def lstm_sequence(x: Any, init: list[Any], weights: list[Any], case: dict[str, Any]) -> tuple[Any, list[Any]]:
    """The whole sequence in one op; outputs and states after each row's end as `LSTMBlockWrapper` took them."""
    options = case["cell"].get("cell", case["cell"])["kwargs"]
    kernel, bias, *peepholes = weights
    steps, n = x.shape[0], bias.shape[0] // 4
    wci, wcf, wco = peepholes or [tf.zeros([n])] * 3
    lengths = case.get("seq_len")
    _, c, _, _, _, _, h = tf.raw_ops.BlockLSTM(
        seq_len_max=tf.constant(steps if lengths is None else max(lengths), tf.int64), x=x, cs_prev=init[0],
        h_prev=init[1], w=kernel, wci=wci, wcf=wcf, wco=wco, b=bias, forget_bias=options.get("forget_bias", 1.0),
        cell_clip=-1.0 if options.get("cell_clip") is None else options["cell_clip"],
        use_peephole=options.get("use_peephole", False),
    )  # fmt: skip
    if lengths is None:
        return h, [c[-1], h[-1]]
    h = h * tf.transpose(tf.sequence_mask(lengths, steps, dtype=x.dtype))[:, :, None]
    where = tf.stack([lengths, range(len(lengths))], axis=1)
    return h, [tf.gather_nd(tf.concat([first[None], all_], 0), where) for first, all_ in zip(init, (c, h), strict=True)]


def turned(x: Any, case: dict[str, Any]) -> Any:
    """The sequence as `TimeReversedFusedRNN` turns it."""
    if "seq_len" not in case:
        return tf.reverse(x, [0])
    return tf.reverse_sequence(x, case["seq_len"], seq_axis=0, batch_axis=1)


def variables_of(case: dict[str, Any]) -> list[tuple[str, list[int]]]:
    """Names and shapes in creation order."""
    tree = case["cell"].get("cell", case["cell"])
    kind, n, depth = tree["class"], tree["kwargs"]["num_units"], case["D"]
    shapes = [[depth + n, 2 * n], [2 * n], [depth + n, n], [n]]
    if kind == "GRUBlockCell":
        return list(zip([f"rnn/gru_cell/{k}" for k in ("w_ru", "b_ru", "w_c", "b_c")], shapes, strict=True))
    if kind == "GRUBlockCellV2":
        names = [f"rnn/gru_cell/{part}/{k}" for part in ("gates", "candidate") for k in ("kernel", "bias")]
        return list(zip(names, shapes, strict=True))
    scope = "lstm_fused_cell" if kind == "LSTMBlockFusedCell" else "rnn/lstm_cell"
    found = [(f"{scope}/kernel", [depth + n, 4 * n]), (f"{scope}/bias", [4 * n])]
    if tree["kwargs"].get("use_peephole"):
        found += [(f"{scope}/w_{gate}_diag", [n]) for gate in "ifo"]
    return found


def make(case: dict[str, Any], directory: Path) -> dict[str, Any]:
    """Write one case; its entry in the manifest."""
    rng = np.random.default_rng(zlib.crc32(case["id"].encode()))
    steps, rows, depth = case["T"], case["B"], case["D"]
    tree = case["cell"].get("cell", case["cell"])
    n, gru = tree["kwargs"]["num_units"], tree["class"].startswith("GRU")
    time_major = case["driver"] == "fused" or case.get("driver_kwargs", {}).get("time_major", False)

    def normal(*shape: int) -> Any:
        return (rng.normal(size=shape) * 0.7).astype(FLOAT)

    x = normal(steps, rows, depth)
    init = [normal(rows, n) for _ in range(1 if gru else 2)]
    weights = [normal(*shape) for _, shape in variables_of(case)]
    cotangents = {"out": normal(steps, rows, n), **{f"final{k}": normal(rows, n) for k in range(len(init))}}
    sources = [tf.constant(value) for value in [x, *init, *weights]]
    with tf.GradientTape() as tape:
        tape.watch(sources)
        sequence, states, parameters = sources[0], sources[1 : 1 + len(init)], sources[1 + len(init) :]
        backwards = case["cell"]["class"] == "TimeReversedFusedRNN"
        sequence = turned(sequence, case) if backwards else sequence
        out, final = (gru_sequence if gru else lstm_sequence)(sequence, states, parameters, case)
        out = turned(out, case) if backwards else out
        results = {"out": out, **{f"final{k}": value for k, value in enumerate(final)}}
        loss = tf.add_n([tf.reduce_sum(value * cotangents[key]) for key, value in results.items()])
    grads = tape.gradient(loss, sources)

    def laid(value: Any) -> Any:
        value = np.asarray(value)
        return value if time_major else value.swapaxes(0, 1)

    arrays = {"x": laid(x), "g_x": laid(grads[0]), "loss": np.asarray(loss)}
    arrays |= {f"init{k}": value for k, value in enumerate(init)}
    arrays |= {f"g_init{k}": np.asarray(grads[1 + k]) for k in range(len(init))}
    arrays |= {f"w{k}": value for k, value in enumerate(weights)}
    arrays |= {f"gw{k}": np.asarray(grads[1 + len(init) + k]) for k in range(len(weights))}
    arrays |= {key: laid(value) if key == "out" else np.asarray(value) for key, value in results.items()}
    arrays |= {f"ct_{key}": laid(value) if key == "out" else value for key, value in cotangents.items()}
    if "seq_len" in case:
        arrays["seq_len"] = np.asarray(case["seq_len"], np.int32)
    path = directory / f"{case['id']}.npz"
    np.savez(path, **arrays)
    content = path.read_bytes()
    named = [
        {"key": f"w{k}", "name": name, "shape": shape, "dtype": FLOAT}
        for k, (name, shape) in enumerate(variables_of(case))
    ]
    structure = "*" if gru else "LSTMStateTuple(c=*, h=*)"
    return {
        **case, "dtype": FLOAT, "runs": 1, "graph_seed": None, "file": path.name, "variables": named,
        "state_structure": structure, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(),
        "arrays": {key: {"shape": list(value.shape), "dtype": str(value.dtype)} for key, value in arrays.items()},
    }  # fmt: skip


def cell(name: str, **kwargs: Any) -> dict[str, Any]:
    """A cell in a case's tree."""
    return {"class": name, "kwargs": kwargs}


SIZES = {"B": 3, "T": 6, "D": 4}
CASES: list[dict[str, Any]] = [
    {"id": "block_lstm", "driver": "dynamic_rnn", **SIZES, "cell": cell("LSTMBlockCell", num_units=5)},
    {
        "id": "block_lstm_clip", "driver": "dynamic_rnn", **SIZES, "driver_kwargs": {"time_major": True},
        "cell": cell("LSTMBlockCell", num_units=5, forget_bias=0.3, cell_clip=0.4),
    },
    {
        "id": "block_lstm_peephole_clip_seqlen", "driver": "dynamic_rnn", **SIZES, "seq_len": [6, 2, 0],
        "cell": cell("LSTMBlockCell", num_units=5, forget_bias=1.5, cell_clip=0.6, use_peephole=True),
    },
    {"id": "block_gru", "driver": "dynamic_rnn", **SIZES, "cell": cell("GRUBlockCell", num_units=5)},
    {
        "id": "block_gru_v2_seqlen", "driver": "dynamic_rnn", **SIZES, "seq_len": [0, 6, 3],
        "cell": cell("GRUBlockCellV2", num_units=5),
    },
    {"id": "fused_lstm", "driver": "fused", **SIZES, "cell": cell("LSTMBlockFusedCell", num_units=5, cell_clip=0.0)},
    {
        "id": "fused_lstm_peephole_seqlen", "driver": "fused", **SIZES, "seq_len": [4, 0, 5],
        "cell": cell("LSTMBlockFusedCell", num_units=5, use_peephole=True),
    },
    {
        "id": "fused_lstm_reversed_clip_seqlen", "driver": "fused", **SIZES, "seq_len": [3, 6, 1],
        "cell": {
            "class": "TimeReversedFusedRNN", "kwargs": {},
            "cell": cell("LSTMBlockFusedCell", num_units=5, cell_clip=0.5, forget_bias=2.0),
        },
    },
    {
        "id": "fused_lstm_reversed", "driver": "fused", **SIZES,
        "cell": {
            "class": "TimeReversedFusedRNN", "kwargs": {},
            "cell": cell("LSTMBlockFusedCell", num_units=5, use_peephole=True),
        },
    },
]  # fmt: skip


def main(directory: Path) -> None:
    """Write all cases and the manifest."""
    directory.mkdir(parents=True)
    manifest = {
        "format": 1,
        "set": "contrib",
        "oracle": f"tensorflow {tf.__version__}: kernels BlockLSTM, GRUBlockCell and their gradients",
        "conventions": {"tolerance": {"float32": "1e-5 relative to max(1, max|golden|)"}},
        "cases": [make(case, directory) for case in CASES],
    }
    (directory / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
