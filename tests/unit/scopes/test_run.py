"""Session runs: one unroll call is one run; which op a call is; what is drawn once."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch

import cellweave as cw
from cellweave.scopes import current_run, nothing_is_open, run_is_open, running_loop
from helpers.woven import assert_same_run, both_ways

X, H = torch.ones(2, 4), torch.zeros(2, 8)
SEQUENCE = torch.ones(2, 3, 4)


def _wrapper(**kwargs: Any) -> Any:
    torch.manual_seed(0)
    cell = cw.DropoutWrapper(cw.GRUCell(8), **{"output_keep_prob": 0.5, "seed": 3, **kwargs})
    cell.build([2, 4])
    return cell


def _mask(output: torch.Tensor) -> torch.Tensor:
    return output != 0


def _variational(**kwargs: Any) -> Any:
    return _wrapper(variational_recurrent=True, dtype="float32", **kwargs)


class TestRuns:
    def test_outside_every_call_is_a_run(self) -> None:
        assert current_run() is not current_run()

    def test_inside_all_is_one_run(self) -> None:
        with cw.session_run() as run:
            assert current_run() is run
            with cw.session_run() as inner:
                assert inner is run
            assert current_run() is run
        assert current_run() is not run

    def test_whether_one_is_open(self) -> None:
        assert not run_is_open()
        with cw.session_run():
            assert run_is_open()
        assert not run_is_open()

    def test_a_rehearsal_counts_no_ops(self) -> None:
        layer = _wrapper()
        with cw.session_run() as run:
            run.op_of(layer)
            with run.rehearsal():
                assert [run.op_of(layer), run.ops_made(layer)] == [1, 2]
            with pytest.raises(KeyError), run.rehearsal():
                run.op_of(layer)
                raise KeyError
            assert run.ops_made(layer) == 1 and run.op_of(layer) == 1

    def test_what_is_open(self) -> None:
        assert nothing_is_open()
        with cw.variable_scope("a"):
            assert not nothing_is_open()
        with cw.VariableStore():
            assert not nothing_is_open()
        assert nothing_is_open()

    def test_an_error_ends_the_run(self) -> None:
        with pytest.raises(KeyError), cw.session_run() as run:
            raise KeyError
        assert current_run() is not run

    def test_threads_have_runs_of_their_own(self) -> None:
        found: list[Any] = []
        with cw.session_run() as run:
            thread = threading.Thread(target=lambda: found.append(current_run()))
            thread.start()
            thread.join(10)
        assert found[0] is not run


class TestHandCalls:
    def test_without_a_run_the_stream_continues(self) -> None:
        cell = _wrapper()
        assert not torch.equal(_mask(cell(X, H)[0]), _mask(cell(X, H)[0]))

    def test_in_a_run_each_call_is_an_op_with_the_same_seed(self) -> None:
        cell = _wrapper()
        with cw.session_run():
            first, second = (_mask(cell(X, H)[0]) for _ in range(2))
        with cw.session_run():
            third, fourth = (_mask(cell(X, H)[0]) for _ in range(2))
        assert torch.equal(first, second)
        assert torch.equal(third, fourth)
        assert not torch.equal(first, third)

    def test_in_a_run_seedless_calls_differ(self) -> None:
        cell = _wrapper(seed=None)
        with cw.session_run():
            assert not torch.equal(_mask(cell(X, H)[0]), _mask(cell(X, H)[0]))

    def test_the_first_op_continues_where_calls_without_a_run_stopped(self) -> None:
        one, other = _wrapper(), _wrapper()
        one(X, H)
        other(X, H)
        with cw.session_run():
            inside = _mask(one(X, H)[0])
        assert torch.equal(inside, _mask(other(X, H)[0]))

    def test_variational_masks_are_drawn_once_in_a_run(self) -> None:
        cell = _variational()
        with cw.session_run():
            first, second = (_mask(cell(X, H)[0]) for _ in range(2))
        third = _mask(cell(X, H)[0])
        assert torch.equal(first, second)
        assert not torch.equal(first, third)

    def test_variational_masks_are_shared_by_unrolls_in_a_run(self) -> None:
        cell = _variational()
        with cw.session_run():
            first, _ = cw.dynamic_rnn(cell, SEQUENCE, dtype="float32")
            second = cell(X, H)[0]
        assert torch.equal(_mask(first[:, 0]), _mask(second))
        assert torch.equal(_mask(first[:, 0]), _mask(first[:, 2]))

    def test_two_wrappers_do_not_share_masks(self) -> None:
        cells = [_variational(seed=None), _variational(seed=None)]
        with cw.session_run():
            masks = [_mask(cell(X, H)[0]) for cell in cells]
        assert not torch.equal(*masks)


class TestUnrolls:
    def test_steps_of_a_loop_are_one_op(self) -> None:
        """dynamic_rnn: every step draws anew; static_rnn: every step is an op of its own, with the same masks."""
        looped, _ = cw.dynamic_rnn(_wrapper(), SEQUENCE, dtype="float32")
        unrolled, _ = cw.static_rnn(_wrapper(), SEQUENCE.unbind(1), dtype="float32")
        assert not torch.equal(_mask(looped[:, 0]), _mask(looped[:, 1]))
        assert torch.equal(_mask(unrolled[0]), _mask(unrolled[1]))
        assert torch.equal(_mask(unrolled[0]), _mask(looped[:, 0]))

    @both_ways
    def test_steps_by_hand_equal_the_loop(self, backend: str | None) -> None:
        """Outside a run each hand call continues the stream, as the steps of a loop do."""
        with cw.use_backend(backend):
            looped, _ = cw.dynamic_rnn(_wrapper(), SEQUENCE, dtype="float32")
        cell, state = _wrapper(), H
        for step in range(3):
            out, state = cell(SEQUENCE[:, step], state)
            assert_same_run(backend, looped[:, step], out)

    def test_two_unrolls_in_a_run_are_two_ops(self) -> None:
        cell = _wrapper()
        with cw.session_run():
            first, _ = cw.dynamic_rnn(cell, SEQUENCE, dtype="float32")
            second, _ = cw.dynamic_rnn(cell, SEQUENCE, dtype="float32")
        assert torch.equal(first, second)
        third, _ = cw.dynamic_rnn(cell, SEQUENCE, dtype="float32")
        assert not torch.equal(first, third)

    def test_a_cell_twice_in_a_stack_is_two_ops(self) -> None:
        cell = cw.DropoutWrapper(cw.BasicRNNCell(8, activation="linear"), output_keep_prob=0.5, seed=3)
        cell.build([2, 8])
        stack = cw.MultiRNNCell([cell, cell])
        cw.dynamic_rnn(stack, torch.ones(2, 3, 8), dtype="float32")
        table = cell.get_extra_state()
        assert len(table) == 2
        assert torch.equal(table[0, 4:7], table[1, 4:7])


class TestLoops:
    def test_a_loop_opens_a_run(self) -> None:
        with running_loop(3) as loop:
            assert current_run() is loop.run
            assert current_run().loop is loop
        assert current_run().loop is None

    def test_loops_nest(self) -> None:
        with running_loop(3) as outer:
            with running_loop(None) as inner:
                assert current_run().loop is inner
            assert current_run().loop is outer

    def test_steps_left(self) -> None:
        with running_loop(3) as known, running_loop(None) as unknown:
            for left in (3, 2, 1):
                known.next_step()
                unknown.next_step()
                assert (known.steps_left, unknown.steps_left) == (left, 1)

    def test_ops_are_the_same_at_every_step(self) -> None:
        layer, other = object(), object()
        with running_loop(2) as loop:
            steps = []
            for _ in range(2):
                loop.next_step()
                steps.append([loop.run.op_of(layer), loop.run.op_of(layer), loop.run.op_of(other)])
            assert steps == [[0, 1, 0], [0, 1, 0]]
        with running_loop(2) as loop:
            loop.next_step()
            assert loop.run.op_of(layer) == 0

    def test_a_loop_after_a_call_in_one_run_is_the_next_op(self) -> None:
        layer = object()
        with cw.session_run() as run:
            assert run.op_of(layer) == 0
            with running_loop(1) as loop:
                loop.next_step()
                assert run.op_of(layer) == 1
            assert run.op_of(layer) == 2

    def test_taking_back(self) -> None:
        undone: list[tuple[str, int]] = []
        with running_loop(5) as loop:
            loop.drawn["a"] = (lambda steps: undone.append(("a", steps)), 5)
            loop.drawn["b"] = (lambda steps: undone.append(("b", steps)), 1)
            loop.take_back(2)
        assert undone == [("a", 2), ("b", 1)]
