"""Blocks in which layers keep no gates: nested, left by an error, and in one thread only."""

from __future__ import annotations

import threading

import pytest

import cellweave as cw
from cellweave.ops.common._recompute import gates_come_again


def test_blocks_inside_blocks() -> None:
    assert not gates_come_again()
    with cw.recompute_gates():
        assert gates_come_again()
        with cw.recompute_gates(False):
            assert not gates_come_again()
        assert gates_come_again()
    assert not gates_come_again()


def test_an_error_leaves_the_block() -> None:
    with pytest.raises(KeyError), cw.recompute_gates():
        raise KeyError
    assert not gates_come_again()


def test_other_threads_keep_theirs() -> None:
    found: list[bool] = []
    with cw.recompute_gates():
        thread = threading.Thread(target=lambda: found.append(gates_come_again()))
        thread.start()
        thread.join()
    assert found == [False]
