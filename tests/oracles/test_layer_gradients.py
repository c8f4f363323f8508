"""The layer oracle's hand-written backward pass against finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from helpers.tolerances import FINITE_DIFFERENCE, assert_close
from oracles import keras, tf1
from oracles.composition import flatten, rebuild
from oracles.layer import Mask, layer_backward, layer_forward, mask_values
from oracles.philox import uniform

STEP = 1e-6
T, B, D, N = 4, 3, 3, 3
CELLS = {
    "rnn": lambda: tf1.BasicRNNCell(D, N),
    "gru": lambda: tf1.GRUCell(D, N),
    "lstm": lambda: tf1.LSTMCell(D, N, use_peepholes=True),
    "keras-lstm": lambda: keras.LSTMCell(D, N),
    "keras-gru": lambda: keras.GRUCell(D, N),
}
LENGTHS = [4, 0, 3]


def _state(size: Any, rng: np.random.Generator) -> Any:
    if isinstance(size, tuple | list):
        return rebuild(size, [_state(item, rng) for item in size])
    return rng.normal(size=(B, size))


@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize("name", CELLS)
def test_everything_at_once(name: str, reverse: bool, rng: np.random.Generator) -> None:
    cell = CELLS[name]()
    cell.set_weights({k: rng.normal(size=s) * 0.5 for k, s in cell.shapes.items()})
    x, state, fresh = rng.normal(size=(T, B, D)), _state(cell.state_size, rng), _state(cell.state_size, rng)
    c_out, c_state = rng.normal(size=(T, B, N)), _state(cell.state_size, rng)
    places = ["input", "h", "output", "h"] + (["c"] if "lstm" in name else [])
    masks = [Mask(place, rng.integers(0, 2, size=(T, B, N)) / 0.5) for place in places]
    zones = ["zone_h"] + (["zone_c"] if "lstm" in name else [])
    masks += [Mask(place, rng.integers(0, 2, size=(T, B, N)) * 1.0) for place in zones]
    masks += [Mask(place, np.full((1, 1, N), 0.8)) for place in zones]
    resets = rng.random((T, B)) < 0.4
    resets[0, 0] = resets[T - 1, 0] = True
    options: dict[str, Any] = {
        "lengths": LENGTHS, "resets": resets, "fresh": fresh, "masks": masks, "residual": True, "reverse": reverse,
    }  # fmt: skip

    c_states = [rng.normal(size=(T, *leaf.shape)) for leaf in flatten(state)]

    def loss() -> float:
        out, final, run = layer_forward(cell, x, state, **options)
        pairs = zip([*flatten(final), *run.states], [*flatten(c_state), *c_states], strict=True)
        return float((out * c_out).sum() + sum((a * b).sum() for a, b in pairs))

    _, _, run = layer_forward(cell, x, state, **options)
    d_x, d_state, d_fresh = layer_backward(run, c_out, c_state, c_states)
    checked = [("x", x, d_x)]
    checked += [(f"state {k}", a, g) for k, (a, g) in enumerate(zip(flatten(state), flatten(d_state), strict=True))]
    checked += [(f"fresh {k}", a, g) for k, (a, g) in enumerate(zip(flatten(fresh), flatten(d_fresh), strict=True))]
    checked += [(k, cell.weights[k], cell.grads[k]) for k in cell.weights]
    for label, array, gradient in checked:
        numeric = np.zeros_like(array)
        for index in np.ndindex(array.shape):
            kept = array[index]
            array[index] = kept + STEP
            above = loss()
            array[index] = kept - STEP
            numeric[index] = (above - loss()) / (2 * STEP)
            array[index] = kept
        assert_close(label, gradient, numeric, FINITE_DIFFERENCE)
    assert any(np.abs(leaf).max() > 0 for leaf in flatten(d_fresh))


def test_a_row_is_read_from_its_end(rng: np.random.Generator) -> None:
    """Backwards with lengths is forwards over rows that were turned around by hand."""
    cell = tf1.GRUCell(D, N)
    cell.set_weights({k: rng.normal(size=s) for k, s in cell.shapes.items()})
    x, state = rng.normal(size=(T, B, D)), rng.normal(size=(B, N))
    out, final, _ = layer_forward(cell, x, state, lengths=LENGTHS, reverse=True)
    for b, n in enumerate(LENGTHS):
        alone, last, _ = layer_forward(cell, x[:n, b : b + 1][::-1], state[b : b + 1])
        assert_close(f"row {b}", out[:n, b : b + 1], alone[::-1], 1e-12)
        assert_close(f"row {b} final", final[b : b + 1], last, 1e-12)
        assert not out[n:, b].any()


@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "backwards"])
def test_states_after_each_step(reverse: bool, rng: np.random.Generator) -> None:
    """The last state of a shorter run is one of the states of a longer one; past a row's end stands its last state."""
    cell = tf1.LSTMCell(D, N)
    cell.set_weights({k: rng.normal(size=s) for k, s in cell.shapes.items()})
    x, state, mask = rng.normal(size=(T, B, D)), _state(cell.state_size, rng), Mask("c", rng.random((T, B, N)))
    resets = rng.random((T, B)) < 0.4
    options: dict[str, Any] = {"masks": [mask], "resets": resets, "reverse": reverse}
    _, final, run = layer_forward(cell, x, state, lengths=LENGTHS, **options)
    for b, n in enumerate(LENGTHS):
        for kept, last in zip(run.states, flatten(final), strict=True):
            assert (kept[n:, b] == last[b]).all()
        for m in range(n):
            part = slice(m, n) if reverse else slice(0, m + 1)
            options = {"masks": [Mask("c", mask.values[:, b : b + 1][: part.stop - part.start])], "reverse": reverse}
            row = (x[part, b : b + 1], tf1.LSTMState(*[leaf[b : b + 1] for leaf in flatten(state)]))
            _, last, _ = layer_forward(cell, *row, resets=resets[part, b : b + 1], **options)
            for kept, leaf in zip(run.states, flatten(last), strict=True):
                assert_close(f"row {b} at {m}", kept[m, b], leaf[0], 1e-12)


def test_zoneout_keeps_what_was_there(rng: np.random.Generator) -> None:
    """Of nothing new nothing changes; h is made from the whole new c; the output is the new state."""
    cell = tf1.LSTMCell(D, N)
    cell.set_weights({k: rng.normal(size=s) for k, s in cell.shapes.items()})
    x, state = rng.normal(size=(1, B, D)), _state(cell.state_size, rng)
    out, plain, _ = layer_forward(cell, x, state)
    none, one = Mask("zone_c", np.zeros((1, 1, N))), np.zeros((1, 1, N))
    one[..., 0] = 1
    got, zoned, _ = layer_forward(cell, x, state, masks=[none, Mask("zone_h", one)])
    assert (zoned[0] == state[0]).all() and (zoned[1][:, 1:] == state[1][:, 1:]).all()
    assert (zoned[1][:, 0] == plain[1][:, 0]).all() and (got[0] == zoned[1]).all() and (out[0] == plain[1]).all()


def test_masks_follow_their_stream() -> None:
    values = mask_values(3, (2, 5), "float32", 0.7, by_floor=False, stream=(1, 2, 3), stride=100)
    noise = uniform((2, 5), "float32", 1, 2, 203)
    assert_close("step 2", values[2], (noise >= np.float32(0.3)) / 0.7, 0.0)
    zoned = mask_values(3, (2, 5), "float32", 0.7, by_floor=False, stream=(1, 2, 3), stride=100, zone=True)
    assert_close("zones", zoned[2], (noise >= np.float32(0.3)) * 1.0, 0.0)
    floored = mask_values(
        1, (1, 5), "float64", 0.7, by_floor=True, stream=(0, 0, 0), noise=np.linspace(0, 0.9, 5)[None]
    )
    assert_close("given noise", floored[0, 0], np.array([0, 0, 1, 1, 1]) / 0.7, 0.0)
