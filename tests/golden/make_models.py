"""Writes models that tests/golden/test_inspected_models.py reads, with TensorFlow 2.15: `python make_models.py OUT`.

`unnamed`, `objects`, `keras`, `keras_cudnn`, `misleading`, `activations`, `decoder`, `frozen`, `residuals`, `oldest`,
`window`, `functional`, `steps` and `branches`. Each is made in a process of its own, because TensorFlow 1's mode
cannot be left again.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def unnamed(out: Path) -> None:
    """Layers whose names tell nothing: a table, dense layers with a misspelt bias, a row for each class, no bias.

    `turned` is square and transposed, which its shape does not show.
    """
    import tensorflow.compat.v1 as tf

    tf.disable_v2_behavior()
    rng = np.random.default_rng(7)

    def variable(name: str, *shape: int) -> tf.Variable:
        return tf.get_variable(name, initializer=rng.normal(scale=0.4, size=shape).astype(np.float32))

    ids = tf.placeholder(tf.int32, [None, None], name="ids")
    table = tf.Variable(rng.normal(scale=0.4, size=(9, 4)).astype(np.float32))
    _, state = tf.nn.dynamic_rnn(tf.nn.rnn_cell.GRUCell(3), tf.nn.embedding_lookup(table, ids), dtype=tf.float32)
    hidden = tf.tanh(tf.matmul(state, variable("weight", 3, 5)) + variable("bais", 5))
    logits = tf.matmul(hidden, variable("classes", 6, 5), transpose_b=True)
    turned = tf.matmul(tf.nn.bias_add(logits, variable("shift", 6)), variable("turned", 6, 6), transpose_b=True)
    y = tf.matmul(turned, variable("mix", 6, 2))
    tf.train.AdamOptimizer(0.01).minimize(tf.reduce_sum(y))
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        given = rng.integers(0, 9, size=(2, 4)).astype(np.int32)
        np.savez(out / "expected.npz", ids=given, y=session.run(y, {ids: given}))
        tf.train.Saver().save(session, str(out / "model.ckpt"), write_state=False)


def _save(
    out: Path,
    build: Callable[[Any, Any], dict[str, Any]],
    *,
    frozen: bool = False,
    functional: bool = False,
    stripped: bool = True,
) -> None:
    """A model of inputs `x` with weights drawn anew, its outputs, and its graph; or both in one frozen graph,
    `stripped` of the operations that read variables.
    """
    import tensorflow.compat.v1 as tf

    if functional:
        tf.disable_eager_execution()
    else:
        tf.disable_v2_behavior()
        tf.disable_control_flow_v2()
    rng = np.random.default_rng(7)
    given = rng.normal(size=(2, 5, 3)).astype(np.float32)
    x = tf.placeholder(tf.float32, [None, None, 3], name="x")
    outputs = build(tf, x)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        for variable in tf.trainable_variables():
            variable.load(rng.normal(scale=0.4, size=variable.shape.as_list()).astype(np.float32), session)
        np.savez(out / "expected.npz", x=given, **session.run(outputs, {x: given}))
        if not frozen:
            tf.train.Saver().save(session, str(out / "model.ckpt"), write_state=False)
            return
        names = [output.op.name for output in outputs.values()]
        graph = tf.graph_util.convert_variables_to_constants(session, session.graph_def, names)
        graph = tf.graph_util.remove_training_nodes(graph, names) if stripped else graph
        (out / "model.pb").write_bytes(graph.SerializeToString())


def keras(out: Path) -> None:
    """Layers of TF1's Keras with their defaults, and a cell of TensorFlow 2's."""

    def build(tf: Any, x: Any) -> dict[str, Any]:
        layers = tf.keras.layers
        first = layers.LSTM(4, return_sequences=True, name="first")(x)
        second = layers.GRU(3, return_sequences=True, name="second")(first)
        third = layers.LSTM(3, return_sequences=True, activation="hard_sigmoid", name="third")(second)
        return {"first": first, "second": second, "third": third}

    _save(out, build)


def keras_cudnn(out: Path) -> None:
    """Layers that only a GPU runs, with their graph; the outputs are others', which Keras gives these weights."""
    import tensorflow.compat.v1 as tf
    from keras.src.saving.legacy.hdf5_format import preprocess_weights_for_loading

    tf.disable_v2_behavior()
    rng, layers = np.random.default_rng(7), tf.keras.layers
    given = rng.normal(size=(2, 5, 3)).astype(np.float32)

    def chain(x: Any, lstm: Any, gru: Any) -> tuple[list[Any], Any]:
        made = [lstm(4), gru(3), layers.Bidirectional(lstm(2))]
        for layer in made:
            x = layer(x)
        return made, x

    with tf.Graph().as_default():
        x = tf.placeholder(tf.float32, [None, 5, 3], name="x")
        every = {"return_sequences": True}
        cudnn, y = chain(x, lambda n: layers.CuDNNLSTM(n, **every), lambda n: layers.CuDNNGRU(n, **every))
        tf.train.export_meta_graph(str(out / "model.ckpt.meta"))
        tf.train.AdamOptimizer(0.01).minimize(tf.reduce_sum(y))
        values: dict[str, Any] = {}
        for variable in tf.global_variables():
            found = rng.normal(scale=0.4, size=variable.shape.as_list()).astype(np.float32)
            values[variable.op.name] = np.abs(found) if variable.op.name.endswith("Adam_1") else found
        values |= {"beta1_power": np.float32(0.9**4), "beta2_power": np.float32(0.999**4)}
    with tf.Graph().as_default(), tf.Session() as session:
        for name, value in values.items():
            tf.get_variable(name, initializer=value)
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, str(out / "model.ckpt"), write_state=False, write_meta_graph=False)
    with tf.Graph().as_default(), tf.Session() as session:
        tf.keras.backend.set_session(session)
        x = tf.placeholder(tf.float32, [None, 5, 3])
        every["recurrent_activation"] = "sigmoid"
        plain, y = chain(x, lambda n: layers.LSTM(n, **every), lambda n: layers.GRU(n, reset_after=True, **every))
        session.run(tf.global_variables_initializer())
        for layer, other in zip(plain, cudnn, strict=True):
            stored = [values[weight.op.name] for weight in other.weights]
            layer.set_weights(preprocess_weights_for_loading(layer, stored, "2"))
        np.savez(out / "expected.npz", x=given, y=session.run(y, {x: given}))


def misleading(out: Path) -> None:
    """Dense layers in the scopes of unrolls and named as cells are, and cells that are named as others are."""

    def build(tf: Any, x: Any) -> dict[str, Any]:
        cells, dense = tf.nn.rnn_cell, tf.layers.dense
        with tf.variable_scope("rnn"):
            first, _ = tf.nn.dynamic_rnn(cells.LSTMCell(4), x, dtype=tf.float32)
            both = tf.concat([dense(first, 4, name="mixed"), first], 2)
            first = dense(both, 4, name="cell_out")
        second, _ = tf.nn.dynamic_rnn(cells.LSTMCell(4, name="enc"), first, dtype=tf.float32, scope="encoder")
        third, _ = tf.nn.dynamic_rnn(cells.BasicRNNCell(4, name="dense"), second, dtype=tf.float32, scope="decoder")
        return {"first": first, "second": second, "third": third, "last": dense(third, 4, name="lstm")}

    _save(out, build)


def activations(out: Path) -> None:
    """Activations that are no operation of TensorFlow's, or none at all, and every dropout."""

    def build(tf: Any, x: Any) -> dict[str, Any]:
        cells = tf.nn.rnn_cell
        first, _ = tf.nn.dynamic_rnn(cells.LSTMCell(4, activation=tf.nn.leaky_relu), x, dtype=tf.float32, scope="first")
        second = tf.nn.dynamic_rnn(
            cells.BasicRNNCell(3, activation=tf.identity), first, dtype=tf.float32, scope="second"
        )
        third, _ = tf.nn.dynamic_rnn(
            cells.GRUCell(3, activation=lambda v: v), second[0], dtype=tf.float32, scope="third"
        )
        rate = tf.placeholder_with_default(0.5, [], name="kept")
        dropped = cells.DropoutWrapper(
            cells.LSTMCell(3), input_keep_prob=0.8, state_keep_prob=0.9, output_keep_prob=rate, seed=3
        )
        fourth, _ = tf.nn.dynamic_rnn(dropped, third, dtype=tf.float32, scope="fourth")
        return {"first": first, "second": second[0], "third": third, "fourth": fourth}

    _save(out, build)


def decoder(out: Path) -> None:
    """A cell of one's own, in which a dense layer's output comes back by way of an LSTM."""

    def build(tf: Any, x: Any) -> dict[str, Any]:
        class Fed(tf.nn.rnn_cell.RNNCell):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__(name="fed")
                self.cell = tf.nn.rnn_cell.BasicLSTMCell(4)

            @property
            def state_size(self) -> Any:
                return tf.nn.rnn_cell.LSTMStateTuple(4, 4), 2

            @property
            def output_size(self) -> int:
                return 2

            def call(self, inputs: Any, state: Any) -> Any:
                inner, fed = state
                output, inner = self.cell(tf.concat([inputs, fed], 1), inner)
                fed = tf.layers.dense(tf.concat([output, inputs], 1), 2, name="mix")
                return fed, (inner, fed)

        return {"y": tf.nn.dynamic_rnn(Fed(), x, dtype=tf.float32)[0]}

    _save(out, build)


def residuals(out: Path) -> None:
    """Inputs added to outputs inside and outside of dropouts, and one mask for every step; whatever is fed is kept."""

    def build(tf: Any, x: Any) -> dict[str, Any]:
        cells = tf.nn.rnn_cell
        kept = tf.placeholder_with_default(1.0, [], name="kept")
        stack = cells.MultiRNNCell(
            [
                cells.GRUCell(3),
                cells.ResidualWrapper(cells.DropoutWrapper(cells.GRUCell(3), input_keep_prob=kept)),
                cells.ResidualWrapper(cells.BasicLSTMCell(3)),
                cells.DropoutWrapper(cells.ResidualWrapper(cells.LSTMCell(3)), output_keep_prob=kept),
                cells.ResidualWrapper(cells.DropoutWrapper(cells.BasicRNNCell(3), output_keep_prob=kept)),
            ]
        )
        first, _ = tf.nn.dynamic_rnn(stack, x, dtype=tf.float32, scope="first")
        same = cells.DropoutWrapper(
            cells.GRUCell(3), kept, kept, kept, variational_recurrent=True, input_size=3, dtype=tf.float32
        )
        second, _ = tf.nn.dynamic_rnn(same, first, dtype=tf.float32, scope="second", sequence_length=[5, 5])
        kept_state = cells.DropoutWrapper(cells.GRUCell(3), state_keep_prob=0.75, seed=3)
        third, _ = tf.nn.dynamic_rnn(kept_state, second, dtype=tf.float32, scope="third", sequence_length=[5, 4])
        fourth, _ = tf.nn.static_rnn(kept_state, tf.unstack(second, 5, 1), dtype=tf.float32, scope="fourth")
        return {"first": first, "second": second, "third": third, "fourth": tf.stack(fourth, 1)}

    _save(out, build)


def oldest(out: Path) -> None:
    """Two LSTMs in the operations of TF 0.x, unrolled: tensors are joined by another one, whose axis comes first."""

    def build(tf: Any, x: Any) -> dict[str, Any]:
        kept = tf.placeholder_with_default(1.0, [], name="kept")
        dropped = [True, False]

        def step(cell: int, inputs: Any, state: Any) -> Any:
            c, h = state
            with tf.variable_scope(f"RNN/MultiRNNCell/Cell{cell}/BasicLSTMCell/Linear", reuse=tf.AUTO_REUSE):
                if dropped[cell]:
                    floor = tf.floor(kept + tf.random.uniform(tf.shape(inputs), seed=1))
                    inputs = tf.multiply(tf.div(inputs, kept), floor, name="dropout/mul")
                joined = tf.raw_ops.Concat(concat_dim=1, values=[inputs, h])
                kernel = tf.get_variable("Matrix", [joined.shape[1], 16], use_resource=False)
                bias = tf.get_variable("Bias", [16], use_resource=False)
                i, j, f, o = tf.split(tf.matmul(joined, kernel) + bias, 4, 1)
            c = c * tf.sigmoid(f + 0.5) + tf.sigmoid(i) * tf.tanh(j)
            return c, tf.tanh(c) * tf.sigmoid(o)

        x = tf.ensure_shape(x, [None, 5, 3])
        zeros = tf.zeros([tf.shape(x)[0], 4])
        states, outputs = [(zeros, zeros)] * 2, []
        for inputs in tf.split(x, 5, 1):
            output = inputs[:, 0]
            for cell in range(2):
                states[cell] = step(cell, output, states[cell])
                output = states[cell][1]
            outputs.append(output)
        return {"y": tf.stack(outputs, 1)}

    _save(out, build)


def window(out: Path) -> None:
    """A cell of one's own in which a dense layer's output comes back, by way of a window over other inputs."""

    def build(tf: Any, x: Any) -> dict[str, Any]:
        class Window(tf.nn.rnn_cell.RNNCell):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__(name="own")
                self.cells = [tf.nn.rnn_cell.LSTMCell(4), tf.nn.rnn_cell.LSTMCell(4)]

            @property
            def state_size(self) -> Any:
                return [cell.state_size for cell in self.cells], 3

            @property
            def output_size(self) -> int:
                return 4

            def call(self, inputs: Any, state: Any) -> Any:
                (first, second), seen = state
                output, first = self.cells[0](tf.concat([seen, inputs], 1), first)
                joined = tf.concat([seen, inputs, output], 1)
                weights = tf.layers.dense(joined, 5, activation=tf.nn.softplus, name="attention")
                seen = tf.reduce_sum(weights[:, :, None] * tf.ensure_shape(x, [None, 5, 3]), 1)
                output, second = self.cells[1](tf.concat([inputs, output, seen], 1), second)
                return output, ([first, second], seen)

        return {"y": tf.nn.dynamic_rnn(Window(), x, dtype=tf.float32)[0]}

    _save(out, build)


def functional(out: Path) -> None:
    """A program of TF1 under TensorFlow 2, whose loops and branches are functions of the graph's library."""

    def build(tf: Any, x: Any) -> dict[str, Any]:
        cells = tf.nn.rnn_cell
        kept = tf.placeholder_with_default(1.0, [], name="kept")
        with tf.variable_scope("parts", partitioner=tf.fixed_size_partitioner(2)):
            cell = cells.LSTMCell(4, forget_bias=0.5, activation=tf.nn.relu)
            first, _ = tf.nn.dynamic_rnn(cell, x, dtype=tf.float32, sequence_length=[5, 5])
        stack = cells.MultiRNNCell(
            [
                cells.DropoutWrapper(cells.GRUCell(4), output_keep_prob=kept),
                cells.ResidualWrapper(cells.LSTMCell(4, cell_clip=0.2)),
            ]
        )
        second, _ = tf.nn.dynamic_rnn(stack, first, dtype=tf.float32)
        last = cells.BasicRNNCell(3, activation=tf.nn.elu)
        third = tf.cond(
            tf.placeholder_with_default(True, []),
            lambda: tf.nn.dynamic_rnn(last, second, dtype=tf.float32, scope="branch")[0],
            lambda: second[:, :, :3],
        )
        y = tf.tensordot(third, tf.get_variable("turn", [3, 2]), 1) + tf.get_variable("shift", [2])
        return {"first": first, "second": second, "third": third, "y": y}

    _save(out, build, functional=True)


def steps(out: Path) -> None:
    """Cells whose variables are those of TF1's and whose steps are not, states that change between steps, and what
    looks like these and is none of them.
    """

    def build(tf: Any, x: Any) -> dict[str, Any]:
        cells = tf.nn.rnn_cell

        class Attending(cells.GRUCell):  # type: ignore[misc]
            """A GRU that keeps more of its state where its last input is small."""

            def call(self, inputs: Any, state: Any) -> Any:
                joined = tf.concat([inputs, state], 1)
                gates = tf.sigmoid(tf.nn.bias_add(tf.matmul(joined, self._gate_kernel), self._gate_bias))
                reset, update = tf.split(gates, 2, 1)
                joined = tf.concat([inputs, reset * state], 1)
                new = tf.tanh(tf.nn.bias_add(tf.matmul(joined, self._candidate_kernel), self._candidate_bias))
                update = (1.0 - tf.sigmoid(inputs[:, 2:])) * update
                state = update * state + (1.0 - update) * new
                return state, state

        class Ordered(cells.LSTMCell):  # type: ignore[misc]
            """An LSTM whose gates stand in another order."""

            def call(self, inputs: Any, state: Any) -> Any:
                c, h = state
                gates = tf.nn.bias_add(tf.matmul(tf.concat([inputs, h], 1), self._kernel), self._bias)
                i, f, o, j = tf.split(gates, 4, 1)
                c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(j)
                h = tf.sigmoid(o) * tf.tanh(c)
                return h, cells.LSTMStateTuple(c, h)

        class Zoned(cells.LSTMCell):  # type: ignore[misc]
            """An LSTM that keeps a part of its old state, as zoneout has it behind training."""

            def __call__(self, inputs: Any, state: Any, scope: Any = None) -> Any:
                output, new = super().__call__(inputs, state, scope)
                kept = zip(new, state, strict=True)
                return output, cells.LSTMStateTuple(*(0.9 * now + 0.1 * before for now, before in kept))

        def half(getter: Any, *args: Any, **kwargs: Any) -> Any:
            return tf.cast(getter(*args, **kwargs | {"dtype": tf.float32}), tf.float16)

        def unroll(cell: Any, scope: str, **kwargs: Any) -> Any:
            return tf.nn.dynamic_rnn(cell, x, scope=scope, **kwargs)[0]

        first = tf.split(tf.layers.dense(x[:, 0], 8, name="first"), 2, 1)
        state = cells.LSTMStateTuple(*first)
        with tf.variable_scope("mixed", custom_getter=half):
            cell = cells.LSTMCell(4, forget_bias=0.5, use_peepholes=True, activation=tf.nn.softsign, dtype=tf.float16)
            mixed, _ = tf.nn.dynamic_rnn(cell, tf.cast(x, tf.float16), dtype=tf.float16)
        written, _ = tf.nn.static_rnn(cells.LSTMCell(4), tf.unstack(x, 5, 1), state, scope="written")
        gru, h, reset = cells.GRUCell(4, name="masked"), tf.zeros([2, 4]), []
        for inputs in tf.unstack(x, 5, 1):
            h, _ = gru(inputs, h * tf.cast(inputs[:, :1] > 0, tf.float32))
            reset.append(h)
        return {
            "attending": unroll(Attending(4), "attending", dtype=tf.float32),
            "ordered": unroll(Ordered(4), "ordered", dtype=tf.float32),
            "zoned": unroll(Zoned(4), "zoned", dtype=tf.float32),
            "cut": unroll(cells.LSTMCell(4), "cut", initial_state=state),
            "whole": unroll(cells.LSTMCell(4, state_is_tuple=False), "whole", dtype=tf.float32),
            "mixed": tf.cast(mixed, tf.float32),
            "written": tf.stack(written, 1),
            "reset": tf.stack(reset, 1),
            "state": tf.concat(first, 1),
        }

    _save(out, build)


def branches(out: Path) -> None:
    """A frozen graph in which a variable is read in a branch only, as the means of batch normalization are."""

    def build(tf: Any, x: Any) -> dict[str, Any]:
        tf.enable_resource_variables()
        layers = tf.keras.layers
        y = layers.BatchNormalization(name="norm")(layers.GRU(3, return_sequences=True, name="gru")(x))
        return {"y": tf.identity(y, name="y")}

    _save(out, build, frozen=True, stripped=False)


def frozen(out: Path) -> None:
    """A frozen graph without the operations that read variables: a table, a partitioned cell, a dense layer."""

    def build(tf: Any, x: Any) -> dict[str, Any]:
        table = tf.get_variable("table", [7, 3])
        looked_up = tf.nn.embedding_lookup(table, tf.cast(tf.abs(x[:, :, 0]) * 2, tf.int32), name="looked_up")
        joined = tf.concat([x, looked_up], 2)
        with tf.variable_scope("model", partitioner=tf.fixed_size_partitioner(2)):
            output, _ = tf.nn.dynamic_rnn(tf.nn.rnn_cell.LSTMCell(4), joined, dtype=tf.float32)
        return {"y": tf.layers.dense(output, 2, name="classes")}

    _save(out, build, frozen=True)


def objects(out: Path) -> None:
    """A Keras model of TensorFlow 2 and its optimizer, saved as objects."""
    import tensorflow as tf

    rng = np.random.default_rng(7)
    tf.keras.utils.set_random_seed(3)
    layers = tf.keras.layers
    model = tf.keras.Sequential([layers.LSTM(5, return_sequences=True), layers.GRU(4), layers.Dense(3)])
    model.compile(tf.keras.optimizers.legacy.Adam(0.01), "mse")
    x = rng.normal(size=(2, 6, 3)).astype(np.float32)
    model.fit(x, rng.normal(size=(2, 3)).astype(np.float32), epochs=2, verbose=0)
    for layer in model.layers:
        layer.set_weights([w + rng.normal(scale=0.2, size=w.shape).astype(np.float32) for w in layer.get_weights()])
    tf.train.Checkpoint(model=model, optimizer=model.optimizer).write(str(out / "model.ckpt"))
    np.savez(out / "expected.npz", x=x, y=model(x).numpy())


def main(arguments: list[str]) -> None:
    """Make one model, or each in a process."""
    models = (
        unnamed, objects, keras, keras_cudnn, misleading, activations, decoder, frozen, residuals, oldest, window,
        functional, steps, branches,
    )  # fmt: skip
    made = {model.__name__: model for model in models}
    for name in arguments[1:] or made:
        out = Path(arguments[0]) / name
        out.mkdir(parents=True, exist_ok=True)
        if arguments[1:]:
            made[name](out)
        else:
            subprocess.run([sys.executable, __file__, arguments[0], name], check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
