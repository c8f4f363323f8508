"""Where streams start: the wrapper's seed, the graph seed, torch's generator."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import cellweave as cw
from oracles.philox import op_seeds, uniform
from unit.wrappers.masks import Ones, kept

B, D = 3, 8
X = torch.ones(B, D)


def _drop(seed: int | None, **kwargs: Any) -> cw.DropoutWrapper:
    return cw.DropoutWrapper(Ones(D), **({"output_keep_prob": 0.5} | kwargs), seed=seed)


@pytest.mark.parametrize("graph_seed", [0, 42, -3, 2**31 + 4, 2**64])
def test_graph_seed_and_seed(graph_seed: int) -> None:
    cw.set_random_seed(graph_seed)
    wrapper = _drop(11)
    for draw in range(2):
        mask = kept(11, "output", 0, (B, D), 0.5, draw=draw, graph_seed=graph_seed)
        assert torch.equal(wrapper(X, X)[0] != 0, mask)


def test_ops_that_have_drawn_keep_their_seeds() -> None:
    wrapper = _drop(11)
    wrapper(X, X)
    cw.set_random_seed(42)
    assert torch.equal(wrapper(X, X)[0] != 0, kept(11, "output", 0, (B, D), 0.5, draw=1))
    assert torch.equal(_drop(11)(X, X)[0] != 0, kept(11, "output", 0, (B, D), 0.5, graph_seed=42))


def test_graph_seed_without_seed_counts_ops() -> None:
    """As TF 2.15 does: 0, 1, 2, ... in the order in which ops first draw."""
    cw.set_random_seed(5)
    wrapper, other = _drop(None, input_keep_prob=0.5), _drop(None)
    wrapper(X, X)
    other(X, X)
    rows = [tuple(row[4:6]) for w in (wrapper, other) for row in w.get_extra_state().tolist()]
    assert rows == [op_seeds(5, k) for k in range(3)]
    cw.set_random_seed(0)
    fresh = _drop(None)
    fresh(X, X)
    assert tuple(fresh.get_extra_state()[0, 4:6].tolist()) == (0, 2**31 - 1)


def test_graph_seed_makes_seedless_programs_repeatable() -> None:
    runs = []
    for _ in range(2):
        cw.set_random_seed(5)
        runs.append(cw.dynamic_rnn(_drop(None), torch.ones(B, 4, D), dtype="float32")[0])
    assert torch.equal(*runs)


def test_manual_seed_makes_programs_repeatable_without_any_seed() -> None:
    runs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        wrapper = _drop(None)
        runs.append([wrapper(X, X)[0] for _ in range(2)])
    assert all(torch.equal(a, b) for a, b in zip(runs[0], runs[1], strict=True))
    assert not torch.equal(runs[0][0], runs[2][0]) and not torch.equal(runs[0][0], runs[0][1])


def test_seedless_ops_differ() -> None:
    wrapper = cw.DropoutWrapper(Ones(64), 0.5, 0.5, 0.5)
    x = torch.ones(B, 64)
    wrapper(x, x)
    seeds = {tuple(row[4:6]) for row in wrapper.get_extra_state().tolist()}
    assert len(seeds) == 3


def test_seedless_static_steps_differ() -> None:
    """Each step is an op of its own; without a seed they start apart."""
    outputs, _ = cw.static_rnn(_drop(None), [X, X], dtype="float32")
    assert not torch.equal(*outputs)


def test_a_seedless_stream_is_philox_all_the_same() -> None:
    wrapper = _drop(None)
    outs = [wrapper(X, X)[0] for _ in range(2)]
    pair = [value % 2**64 for value in wrapper.get_extra_state()[0, 4:6].tolist()]
    for draw, out in enumerate(outs):
        assert torch.equal(out != 0, torch.tensor(uniform((B, D), "float32", *pair, draw * 256 * B * D) >= 0.5))


def test_a_seeded_wrapper_leaves_torchs_generator_alone() -> None:
    before = torch.get_rng_state()
    cw.dynamic_rnn(_drop(11), torch.ones(B, 4, D), dtype="float32")
    cw.set_random_seed(4)
    _drop(None)(X, X)
    assert torch.equal(torch.get_rng_state(), before)


def test_graphs_have_graph_seeds_of_their_own() -> None:
    cw.set_random_seed(1)
    with cw.Graph():
        cw.set_random_seed(2)
        assert torch.equal(_drop(11)(X, X)[0] != 0, kept(11, "output", 0, (B, D), 0.5, graph_seed=2))
    assert torch.equal(_drop(11)(X, X)[0] != 0, kept(11, "output", 0, (B, D), 0.5, graph_seed=1))


@pytest.mark.parametrize("seed", ["1", 1.0, True], ids=repr)
def test_what_is_no_graph_seed(seed: Any) -> None:
    with pytest.raises(cw.ArgumentTypeError, match="set_random_seed: expected an int or None"):
        cw.set_random_seed(seed)
