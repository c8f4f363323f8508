"""AttentionCellWrapper."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

import cellweave as cw
from cellweave import contrib
from cellweave.cells import cell_config, cell_from_config
from helpers.tolerances import assert_close
from helpers.woven import assert_same_run
from oracles import tf1

B, T, D, N, L, A, V = 3, 5, 4, 5, 3, 2, 6
SUFFIXES = [
    "kernel", "bias", "gru_cell/gates/kernel", "gru_cell/gates/bias", "gru_cell/candidate/kernel",
    "gru_cell/candidate/bias", "attention/attn_w", "attention/attn_v", "attention/kernel", "attention/bias",
    "attn_output_projection/kernel", "attn_output_projection/bias",
]  # fmt: skip


def _step(w: dict[str, np.ndarray], x: np.ndarray, h: np.ndarray, a: np.ndarray, window: np.ndarray) -> Any:
    """Cheng et al. 2016 with a window of L outputs; `window [B, L, A]`."""
    gru = tf1.GRUCell(7, N)
    gru.set_weights({name.removeprefix("gru_cell/"): w[name] for name in SUFFIXES if name.startswith("gru_cell")})
    y, h, _ = gru.forward(np.hstack([x, a]) @ w["kernel"] + w["bias"], h)
    asked = h @ w["attention/kernel"] + w["attention/bias"]
    scores = np.array(
        [[w["attention/attn_v"] @ np.tanh(o @ w["attention/attn_w"][0, 0] + q) for o in rows]
         for rows, q in zip(window, asked, strict=True)]
    )  # fmt: skip
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    a = np.einsum("bl,bla->ba", shares, window)
    out = np.hstack([y, a]) @ w["attn_output_projection/kernel"] + w["attn_output_projection/bias"]
    return out, h, a, np.concatenate([window[:, 1:], out[:, None]], axis=1)


def _made(rng: np.random.Generator, **options: Any) -> tuple[Any, dict[str, np.ndarray]]:
    cell = contrib.AttentionCellWrapper(cw.GRUCell(N), L, A, V, input_size=7, **options)
    cw.dynamic_rnn(cell, torch.zeros(B, T, D, dtype=torch.float64), dtype="float64")
    names = cw.variable_names(cell)
    found = {}
    for suffix in SUFFIXES:
        weight = names[f"rnn/attention_cell_wrapper/{suffix}"]
        found[suffix] = rng.uniform(-0.7, 0.7, size=tuple(weight.shape))
        with torch.no_grad():
            weight.copy_(torch.tensor(found[suffix]))
    return cell, found


@pytest.mark.parametrize("state_is_tuple", [True, False])
def test_against_the_oracle(state_is_tuple: bool, rng: np.random.Generator) -> None:
    cell, w = _made(rng, state_is_tuple=state_is_tuple)
    x, h, a = rng.normal(size=(T, B, D)), rng.normal(size=(B, N)), rng.normal(size=(B, A))
    window = rng.normal(size=(B, L, A))
    leaves = tuple(torch.tensor(leaf) for leaf in (h, a, window.reshape(B, L * A)))
    state = leaves if state_is_tuple else torch.cat(leaves, dim=1)
    got, last = cw.dynamic_rnn(cell, torch.tensor(x), initial_state=state, time_major=True)
    for t in range(T):
        out, h, a, window = _step(w, x[t], h, a, window)
        assert_close(f"step {t}", got[t], out, 1e-12)
    final = torch.cat(last, dim=1) if state_is_tuple else last
    assert_close("state", final, np.hstack([h, a, window.reshape(B, L * A)]), 1e-12)


def test_names_in_order_of_creation() -> None:
    with cw.VariableStore() as store:
        cell = contrib.AttentionCellWrapper(cw.GRUCell(N), L)
        for _ in range(2):
            cw.dynamic_rnn(cell, torch.zeros(B, T, D), dtype="float32")
    assert list(store.variables) == [f"rnn/attention_cell_wrapper/{suffix}" for suffix in SUFFIXES]
    assert [w is v for w, v in zip(cell.weights, store.variables.values(), strict=True)] == [True] * len(SUFFIXES)
    built = contrib.AttentionCellWrapper(cw.GRUCell(N), L)
    built.build([None, D])
    assert [w.shape for w in built.weights] == [w.shape for w in cell.weights]


def test_sizes_gradients_and_plan(rng: np.random.Generator) -> None:
    cell, _ = _made(rng)
    assert cell.state_size == (N, A, L * A) and cell.output_size == A
    assert [tuple(leaf.shape) for leaf in cell.zero_state(B, "float32")] == [(B, N), (B, A), (B, L * A)]
    x = torch.tensor(rng.normal(size=(2, 3, D))).requires_grad_()
    torch.autograd.gradcheck(lambda x: cw.dynamic_rnn(cell, x, [3, 1], dtype="float64")[0], (x,))
    assert cw.explain(cell, x, dtype="float64").rows[0].why == "AttentionCellWrapper: it looks back at its own outputs"


def test_config_and_copies(rng: np.random.Generator) -> None:
    cell, _ = _made(rng)
    data = cell_config(cell)
    other = cell_from_config(data, None, "here")
    assert cell_config(other)["config"].items() >= {"attn_length": L, "attn_size": A, "attn_vec_size": V}.items()
    other.load_state_dict(cell.state_dict())
    x = torch.tensor(rng.normal(size=(B, D)))
    for same in (other, copy.deepcopy(cell)):
        assert_same_run("reference", same(x, same.zero_state(B, "float64")), cell(x, cell.zero_state(B, "float64")))


def test_errors() -> None:
    with pytest.raises(cw.ArgumentTypeError, match="AttentionCellWrapper"):
        contrib.AttentionCellWrapper(3, L)
    with pytest.raises(cw.ArgumentError, match="attn_length: expected a positive int, got 0"):
        contrib.AttentionCellWrapper(cw.GRUCell(N), 0)
    with pytest.raises(cw.ArgumentError, match="state_is_tuple=False"):
        contrib.AttentionCellWrapper(cw.LSTMCell(N), L, state_is_tuple=False)
    with pytest.raises(cw.ShapeError, match="state of 3 elements, got 2"):
        contrib.AttentionCellWrapper(cw.GRUCell(N), L)(torch.zeros(B, D), (torch.zeros(B, N), torch.zeros(B, N)))
