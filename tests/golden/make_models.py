"""Writes models that tests/golden/test_inspected_models.py reads, with TensorFlow 2.15: `python make_models.py OUT`.

`unnamed` and `objects`; each is made in a process of its own, because TensorFlow 1's mode cannot be left again.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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
    made = {"unnamed": unnamed, "objects": objects}
    for name in arguments[1:] or made:
        out = Path(arguments[0]) / name
        out.mkdir(parents=True, exist_ok=True)
        if arguments[1:]:
            made[name](out)
        else:
            subprocess.run([sys.executable, __file__, arguments[0], name], check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
