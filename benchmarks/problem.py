"""What all contestants get: weights in cellweave's layout, inputs, upstream gradients, resets, lengths. numpy only."""

from __future__ import annotations

from typing import Any

import numpy as np
from registry import GATES, STEPS_BETWEEN_RESETS, Case

Arrays = dict[str, Any]  # name -> float32 array
FORGET_BIAS = 1.0  # cellweave's and TF1's LSTM add it in the step; others get it in their bias


def weights(case: Case) -> Arrays:
    """By the names and in the layout of cellweave's cells: LSTM `i j f o`, TF1's GRU `r u`, Keras's GRU `u r c`."""
    rng = np.random.RandomState(1)  # its numbers are the same in every version of numpy
    I, H, G = case.I, case.H, GATES[case.kind]
    shapes = {
        "lstm": {"kernel": (I + H, 4 * H), "bias": (4 * H,)},
        "gru_before": {
            "gates_kernel": (I + H, 2 * H), "gates_bias": (2 * H,),
            "candidate_kernel": (I + H, H), "candidate_bias": (H,),
        },
        "gru_after": {"kernel": (I, G * H), "recurrent_kernel": (H, G * H), "bias": (2, G * H)},
        "rnn": {"kernel": (I + H, H), "bias": (H,)},
    }[case.kind]  # fmt: skip
    scale = H**-0.5
    return {name: rng.uniform(-scale, scale, shape).astype(np.float32) for name, shape in shapes.items()}


def inputs(case: Case) -> Any:
    """`[T, B, I]`."""
    return np.random.RandomState(2).standard_normal((case.T, case.B, case.I)).astype(np.float32)


def upstream(case: Case) -> Any:
    """Gradients of the outputs, `[T, B, H]`."""
    return np.random.RandomState(3).standard_normal((case.T, case.B, case.H)).astype(np.float32)


def state(case: Case) -> Arrays:
    """The state that a streaming step starts from: h, and c for an LSTM, each `[B, H]`."""
    rng = np.random.RandomState(4)
    names = ("c", "h") if case.kind == "lstm" else ("h",)
    return {name: rng.uniform(-0.5, 0.5, (case.B, case.H)).astype(np.float32) for name in names}


def resets(case: Case) -> Any:
    """`[T, B]` bool: True replaces the state by zeros before that step. Sequences shorter than the mean get more."""
    mean = STEPS_BETWEEN_RESETS if case.T >= STEPS_BETWEEN_RESETS else 3
    return np.random.RandomState(5).random_sample((case.T, case.B)) < 1 / mean


def lengths(case: Case) -> Any:
    """`[B]` int64: evenly spread from 1 to T, in no order, so that half of the steps are padding."""
    return np.random.RandomState(6).permutation(np.linspace(1, case.T, case.B).round().astype(np.int64))


def split(case: Case, w: Arrays) -> tuple[Any, Any, Any, Any]:
    """Input kernel `[I, GH]`, recurrent kernel `[H, GH]`, input bias `[GH]`, recurrent bias `[GH]`.

    Columns stay in cellweave's order; gru_before's are `r u c`. The LSTM's forget bias is not in the bias; only
    gru_after has a recurrent bias other than zeros.
    """
    if case.kind == "gru_after":
        return w["kernel"], w["recurrent_kernel"], w["bias"][0], w["bias"][1]
    if case.kind == "gru_before":
        kernel = np.concatenate([w["gates_kernel"], w["candidate_kernel"]], axis=1)
        bias = np.concatenate([w["gates_bias"], w["candidate_bias"]])
    else:
        kernel, bias = w["kernel"], w["bias"]
    return kernel[: case.I], kernel[case.I :], bias, np.zeros_like(bias)


def joined(case: Case, kernel: Any, recurrent: Any, bias: Any, recurrent_bias: Any = None) -> Arrays:
    """The way back from `split`, for gradients; only gru_after has a recurrent bias of its own."""
    if case.kind == "gru_after":
        return {"kernel": kernel, "recurrent_kernel": recurrent, "bias": np.stack([bias, recurrent_bias])}
    whole = np.concatenate([kernel, recurrent], axis=0)
    if case.kind != "gru_before":
        return {"kernel": whole, "bias": bias}
    gates = 2 * case.H
    return {
        "gates_kernel": whole[:, :gates],
        "gates_bias": bias[:gates],
        "candidate_kernel": whole[:, gates:],
        "candidate_bias": bias[gates:],
    }


def reordered(columns: Any, order: tuple[int, ...]) -> Any:
    """Blocks of the last axis in another order: block n of the result is block `order[n]`."""
    blocks = np.split(columns, len(order), axis=-1)
    return np.concatenate([blocks[block] for block in order], axis=-1)


def restored(columns: Any, order: tuple[int, ...]) -> Any:
    """The way back from `reordered`."""
    return reordered(columns, tuple(int(place) for place in np.argsort(order)))
