"""TF1's `dynamic_rnn` in a graph and session, through TensorFlow's v1 mode, with its own DropoutWrapper."""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np
import problem
import tensorflow.compat.v1 as tf
from program import Program
from registry import KEEP, Case

tf.disable_v2_behavior()
tf.logging.set_verbosity(tf.logging.ERROR)


def make(name: str, case: Case) -> Program:
    del name
    graph = tf.Graph()
    with graph.as_default(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that Keras's cells are newer
        outputs, x, upstream, by_name, loads = _graph(case)
        wanted = [outputs]
        if case.mode == "training":
            wanted = tf.gradients(outputs, [x, *by_name.values()], upstream)
        run_all = tf.group(*wanted)  # nothing is copied to numpy
        session = tf.Session(graph=graph, config=_config())
        session.run(tf.global_variables_initializer())
        for load, placeholder, values in loads:
            session.run(load, {placeholder: values})
    call = session.make_callable(run_all)

    def results() -> dict[str, Any]:
        if case.mode == "inference":
            return {"outputs": session.run(outputs)}
        found, gradients = session.run([outputs, wanted])
        by_ours = zip(["inputs", *by_name], gradients, strict=True)
        return {"outputs": found, **{name: np.asarray(gradient) for name, gradient in by_ours}}

    return Program(call, results)


def _graph(case: Case) -> Any:
    """Outputs, inputs, upstream, weights by cellweave's names, and how to load their values."""
    loads = []

    def variable(name: str, values: Any) -> Any:
        """A variable, not a constant: the graph optimizer would compute constants away."""
        created = tf.get_variable(name, values.shape, tf.float32, tf.zeros_initializer(), trainable=False)
        loads.append(_load(created, values))
        return created.read_value()

    x = variable("x", problem.inputs(case))
    upstream = variable("upstream", problem.upstream(case)) if case.mode == "training" else None
    cells = {"lstm": "LSTMCell", "gru_before": "GRUCell", "rnn": "BasicRNNCell"}
    cell = getattr(tf.nn.rnn_cell, cells[case.kind])(case.H)
    whole = cell
    if case.variation != "bare":
        whole = tf.nn.rnn_cell.DropoutWrapper(
            cell, KEEP, KEEP, KEEP, variational_recurrent=case.variation == "variational", input_size=case.I,
            dtype=tf.float32, seed=1,
        )  # fmt: skip
    outputs, _ = tf.nn.dynamic_rnn(whole, x, dtype=tf.float32, time_major=True)
    values = problem.weights(case)
    by_name = {}
    for created in tf.trainable_variables():
        scope, name = created.op.name.split("/")[-2:]
        ours = f"{scope}_{name}" if scope in ("gates", "candidate") else name
        by_name[ours] = created
        loads.append(_load(created, values[ours]))
    return outputs, x, upstream, by_name, loads


def _load(variable: Any, values: Any) -> Any:
    placeholder = tf.placeholder(tf.float32, values.shape)
    return tf.assign(variable, placeholder), placeholder, values


def _config() -> Any:
    threads = int(os.environ["BENCH_THREADS"])
    return tf.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=threads)
