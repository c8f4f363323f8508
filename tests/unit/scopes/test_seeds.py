"""The graph seed, and the pair of seeds that each random op gets (contract section 10)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import cellweave as cw
from cellweave.scopes import op_seeds, seed_state

M = 2**31 - 1


@pytest.mark.parametrize(
    "graph, op, pair",
    [
        (None, 5, (87654321, 5)),
        (None, 0, (87654321, 0)),
        (None, -1, (87654321, M - 1)),
        (None, M, (87654321, 0)),
        (None, 2**40 + 3, (87654321, (2**40 + 3) % M)),
        (7, 5, (7, 5)),
        (-7, 5, (M - 7, 5)),
        (2**31, 5, (1, 5)),
        (0, 0, (0, M)),
        (M, 2 * M, (0, M)),
        (0, 3, (0, 3)),
        (3, 0, (3, 0)),
    ],
)
def test_pairs(graph: int | None, op: int, pair: tuple[int, int]) -> None:
    cw.set_random_seed(graph)
    assert op_seeds(op) == pair


def test_ops_without_a_seed_are_counted() -> None:
    cw.set_random_seed(9)
    assert [op_seeds(None), op_seeds(4), op_seeds(None)] == [(9, 0), (9, 4), (9, 1)]
    cw.set_random_seed(9)
    assert op_seeds(None) == (9, 0)
    cw.set_random_seed(0)
    assert [op_seeds(None), op_seeds(None)] == [(0, M), (0, 1)]


def test_without_any_seed_torchs_generator_decides() -> None:
    cw.set_random_seed(None)
    pairs = []
    for _ in range(2):
        torch.manual_seed(3)
        pairs.append([op_seeds(None), op_seeds(None)])
    assert pairs[0] == pairs[1]
    assert pairs[0][0] != pairs[0][1]
    assert all(0 <= word < 2**64 for pair in pairs[0] for word in pair)
    torch.manual_seed(4)
    assert op_seeds(None) != pairs[0][0]


@pytest.mark.parametrize("seed", [0, -5, 2**70, np.int64(4), torch.tensor(3)], ids=repr)
def test_seeds(seed: Any) -> None:
    cw.set_random_seed(seed)
    assert op_seeds(1) == (int(seed) % M, 1)


@pytest.mark.parametrize("seed", [1.5, "1", True, [1]], ids=repr)
def test_no_seeds(seed: Any) -> None:
    cw.set_random_seed(2)
    with pytest.raises(cw.ArgumentTypeError, match=r"set_random_seed: expected an int or None, got "):
        cw.set_random_seed(seed)
    assert op_seeds(1) == (2, 1)


def test_unsetting() -> None:
    cw.set_random_seed(2)
    cw.set_random_seed(None)
    assert op_seeds(1) == (87654321, 1)


def test_each_graph_has_a_seed_of_its_own() -> None:
    cw.set_random_seed(1)
    with cw.Graph() as graph:
        assert op_seeds(5) == (87654321, 5)
        cw.set_random_seed(2)
        assert op_seeds(5) == (2, 5)
        assert seed_state() is graph.seeds
        with cw.Graph():
            assert op_seeds(5) == (87654321, 5)
        assert op_seeds(5) == (2, 5)
    assert op_seeds(5) == (1, 5)
    with graph:
        assert op_seeds(None) == (2, 0)


def test_a_store_uses_the_process_seed() -> None:
    cw.set_random_seed(1)
    with cw.VariableStore():
        assert op_seeds(5) == (1, 5)
        cw.set_random_seed(3)
    assert op_seeds(5) == (3, 5)


def test_a_graph_seed_decides_masks_and_weights() -> None:
    results = []
    for seed in (4, 4, 5):
        cw.set_random_seed(seed)
        torch.manual_seed(seed + len(results))  # must not matter
        cell = cw.DropoutWrapper(cw.GRUCell(8), output_keep_prob=0.5)
        results.append(cw.dynamic_rnn(cell, torch.ones(2, 3, 4), dtype="float32")[0])
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_setting_the_seed_leaves_streams_that_ran() -> None:
    """Ops that have drawn keep their seeds, as ops of a TF1 graph do."""
    outs = []
    for reseed in (False, True):
        cw.set_random_seed(4)
        cell = cw.DropoutWrapper(cw.GRUCell(8), output_keep_prob=0.5)
        cell(torch.ones(2, 4), torch.zeros(2, 8))
        if reseed:
            cw.set_random_seed(17)
        outs.append(cell(torch.ones(2, 4), torch.zeros(2, 8))[0])
    assert torch.equal(*outs)
