"""raw_rnn: the loop that the caller steers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import cellweave as cw
from helpers import nest
from helpers.woven import assert_same_run, both_ways

B, T, D, N = 3, 5, 4, 3
XS = torch.linspace(-1.0, 1.0, B * T * D).reshape(T, B, D)
H = torch.linspace(-0.5, 0.5, B * N).reshape(B, N)
LENGTHS = torch.tensor([5, 2, 0])


def _loop(cell: Any, lengths: torch.Tensor = LENGTHS, **changes: Any) -> Any:
    """TF's documentation's loop: inputs out of a TensorArray, each row until its length."""
    array = cw.TensorArray(dtype="float32", size=T).unstack(XS)

    def loop_fn(time: int, output: Any, state: Any, loop_state: Any) -> Any:
        answer = {
            "finished": time >= lengths,
            "input": array.read(time) if time < T else torch.zeros(B, D),
            "state": cell.zero_state(B, "float32") if output is None else state,
            "emit": output,
            "loop_state": None,
        }
        for key, change in changes.items():
            answer[key] = change(time, output, state, loop_state)
        return tuple(answer.values())

    return cw.raw_rnn(cell, loop_fn)


@pytest.mark.parametrize("cell", [cw.GRUCell(N), cw.LSTMCell(N)], ids=["gru", "lstm"])
@both_ways
def test_is_dynamic_rnn_with_lengths(cell: Any, backend: str | None) -> None:
    emitted, final, loop_state = _loop(cell)
    with cw.use_backend(backend):
        out, state = cw.dynamic_rnn(cell, XS, LENGTHS, dtype="float32", time_major=True)
    assert emitted.size() == 5 and loop_state is None
    assert nest.picture(final) == nest.picture(state)
    assert_same_run(backend, (out, state), (emitted.stack(), final))


def test_one_entry_per_executed_step() -> None:
    emitted, _, _ = _loop(cw.GRUCell(N), torch.tensor([2, 1, 0]))
    assert emitted.size() == 2
    none, final, _ = _loop(cw.GRUCell(N), torch.tensor([0, 0, 0]), state=lambda t, o, s, ls: H)
    assert none.size() == 0 and final is H
    assert none.stack().shape == (0, B, N) and none.stack().dtype == torch.float32


def test_no_step_makes_variables_and_keeps_the_structure() -> None:
    cell = cw.LSTMCell(N)
    structure = {"a": torch.zeros(2, dtype=torch.float64), "b": torch.zeros((), dtype=torch.int32)}
    emitted, _, _ = _loop(cell, torch.zeros(B), emit=lambda *_: structure)
    assert list(cw.variable_names(cell)) == ["rnn/lstm_cell/kernel", "rnn/lstm_cell/bias"]
    found = {key: (array.stack().shape, array.stack().dtype) for key, array in emitted.items()}
    assert found == {"a": ((0, B, 2), torch.float64), "b": ((0, B), torch.int32)}
    assert emitted["a"].write(0, torch.ones(2)).stack().shape == (1, 2)


def test_calls_of_the_loop_function() -> None:
    seen: list[Any] = []

    def note(time: int, output: Any, state: Any, loop_state: Any) -> Any:
        seen.append((time, output is None, state is None, loop_state))
        return time * 10

    _, _, loop_state = _loop(cw.GRUCell(N), torch.tensor([2, 1, 0]), loop_state=note)
    assert seen == [(0, True, True, None), (1, False, False, 0), (2, False, False, 10)] and loop_state == 20


def test_the_state_given_back_goes_into_the_next_step() -> None:
    cell = cw.GRUCell(N)
    emitted, final, _ = _loop(
        cell, torch.tensor([2, 2, 2]), state=lambda t, o, s, ls: H if s is None else s * 2, emit=lambda t, o, s, ls: s
    )
    first = cell(XS[0], H)[0]
    second = cell(XS[1], 2 * first)[0]
    assert emitted is not None and torch.equal(final, 2 * second)


def test_rows_finished_before_a_step_keep_their_state_and_emit_zeros() -> None:
    emitted, final, _ = _loop(
        cw.GRUCell(N), emit=lambda t, o, s, ls: torch.zeros(N) if o is None else torch.full((B, N), float(t)),
        state=lambda t, o, s, ls: torch.zeros(B, N) if s is None else torch.full((B, N), float(t)),
    )  # fmt: skip
    assert emitted.stack()[:, :, 0].tolist() == [[1, 1, 0], [2, 2, 0], [3, 0, 0], [4, 0, 0], [5, 0, 0]]
    assert final[:, 0].tolist() == [5.0, 2.0, 0.0]


@both_ways
def test_a_structure_of_emits(backend: str | None) -> None:
    def emit(time: int, output: Any, state: Any, loop_state: Any) -> Any:
        if output is None:
            return {"out": torch.zeros(N), "more": (torch.zeros(2, 2, dtype=torch.int64),)}
        return {"out": output, "more": (torch.full((B, 2, 2), time),)}

    cell = cw.GRUCell(N)
    emitted, _, _ = _loop(cell, emit=emit)
    assert set(emitted) == {"out", "more"}
    with cw.use_backend(backend):
        out, _ = cw.dynamic_rnn(cell, XS, LENGTHS, dtype="float32", time_major=True)
    assert_same_run(backend, out, emitted["out"].stack())
    more = emitted["more"][0].stack()
    assert (
        more.dtype == torch.int64
        and more[:, 0, 0, 0].tolist() == [1, 2, 3, 4, 5]
        and more[4, 1].tolist() == [[0, 0], [0, 0]]
    )


def test_no_emit_gives_zeros_of_the_structure() -> None:
    emitted, _, _ = _loop(cw.GRUCell(N), emit=lambda t, o, s, ls: None)
    assert emitted.stack().shape == (5, B, N) and not emitted.stack().any()
    emitted, _, _ = _loop(cw.GRUCell(N), emit=lambda t, o, s, ls: torch.zeros(2) if o is None else None)
    assert emitted.stack().shape == (5, B, 2)


def test_loop_state_is_kept_when_none_comes() -> None:
    _, _, loop_state = _loop(cw.GRUCell(N), loop_state=lambda t, o, s, ls: {"at": t} if t < 3 else None)
    assert loop_state == {"at": 2}


def test_a_tensor_array_as_loop_state() -> None:
    def collect(time: int, output: Any, state: Any, loop_state: Any) -> Any:
        return cw.TensorArray(dtype="float32") if output is None else loop_state.write(time - 1, output)

    cell = cw.GRUCell(N)
    emitted, _, collected = _loop(cell, torch.full((B,), 3), loop_state=collect)
    assert torch.equal(collected.stack(), emitted.stack())


@pytest.mark.parametrize("kind", ["bool", "tensor", "list"])
def test_forms_of_finished(kind: str) -> None:
    def finished(time: int, *rest: Any) -> Any:
        done = time >= 3
        return {"bool": done, "tensor": torch.tensor(done), "list": [done] * B}[kind]

    emitted, _, _ = _loop(cw.GRUCell(N), finished=finished)
    assert emitted.size() == 3


def test_finished_is_bool_and_fits_the_rows() -> None:
    with pytest.raises(cw.ArgumentTypeError, match="raw_rnn: expected finished as bool, got"):
        _loop(cw.GRUCell(N), finished=lambda t, *rest: (t >= LENGTHS).int())
    with pytest.raises(cw.ArgumentTypeError, match="raw_rnn: expected finished as bool, got None"):
        _loop(cw.GRUCell(N), finished=lambda t, *rest: None)
    for bad in (
        torch.ones(B + 1, dtype=torch.bool),
        torch.ones(1, dtype=torch.bool),
        torch.ones(B, 1, dtype=torch.bool),
    ):
        with pytest.raises(cw.ShapeError, match=r"raw_rnn: expected finished"):
            _loop(cw.GRUCell(N), finished=lambda t, *rest, bad=bad: bad)


def test_finished_rows_stay_finished() -> None:
    """A row that says it goes on after it was finished does not come back."""
    emitted, _, _ = _loop(cw.GRUCell(N), finished=lambda t, *rest: torch.tensor([t >= 4, t == 2, True]))
    assert emitted.stack().any(dim=2).tolist() == [
        [True, True, False], [True, True, False], [True, False, False], [True, False, False]
    ]  # fmt: skip


def test_the_output_may_feed_the_next_input() -> None:
    cell = cw.BasicRNNCell(D)
    emitted, _, _ = _loop(
        cell, torch.full((B,), 3), input=lambda t, o, s, ls: XS[0] if o is None else o,
        state=lambda t, o, s, ls: torch.zeros(B, D) if s is None else s,
    )  # fmt: skip
    x, state = XS[0], torch.zeros(B, D)
    for step in range(3):
        x, state = cell(x, state)
        assert torch.equal(emitted.read(step), x)


def test_structures_must_stay() -> None:
    with pytest.raises(cw.ArgumentTypeError, match="raw_rnn: the initial state"):
        _loop(cw.LSTMCell(N), state=lambda t, o, s, ls: (H, H))
    with pytest.raises(cw.ArgumentTypeError, match="raw_rnn: the next state"):
        _loop(cw.LSTMCell(N), state=lambda t, o, s, ls: cw.LSTMStateTuple(H, H) if o is None else (H, H))
    with pytest.raises(cw.ArgumentTypeError, match="raw_rnn: the emitted value"):
        _loop(cw.GRUCell(N), emit=lambda t, o, s, ls: None if o is None else (o,))


@pytest.mark.parametrize(
    "change, error, facts",
    [
        (lambda state: state[:1], cw.ShapeError, r"\[3, 3\] as before, got \[1, 3\]"),  # which would fit any rows
        (lambda state: state[:, :2], cw.ShapeError, r"\[3, 3\] as before, got \[3, 2\]"),
        (lambda state: state.double(), cw.DTypeError, "float32, got float64"),
        (lambda state: None, cw.ArgumentError, "tensors, got None"),
        (lambda state: 0.0, cw.ArgumentTypeError, "tensors, got float"),
    ],
    ids=["rows", "width", "dtype", "none", "number"],
)
def test_a_state_stays_as_it_is(change: Any, error: type[Exception], facts: str) -> None:
    with pytest.raises(error, match=f"raw_rnn: expected the next state .*{facts}"):
        _loop(cw.GRUCell(N), torch.ones(B), state=lambda t, o, s, ls: H if s is None else change(s))


@pytest.mark.parametrize(
    "emit, error, facts",
    [
        (lambda t, o: o[:1], cw.ShapeError, r"\[3, '...'\], got \[1, 3\]"),  # which would fit any rows
        (lambda t, o: o.sum(), cw.ShapeError, r"\[3, '...'\], got \[\]"),
        (lambda t, o: o[:, :t], cw.ShapeError, r"\[3, 1\], got \[3, 2\]"),
        (lambda t, o: 1.0, cw.ArgumentTypeError, "tensors, got float"),
    ],
    ids=["rows", "scalar", "growing", "number"],
)
def test_an_emit_has_all_rows_and_one_shape(emit: Any, error: type[Exception], facts: str) -> None:
    with pytest.raises(error, match=f"raw_rnn: expected the emitted value .*{facts}"):
        _loop(cw.GRUCell(N), emit=lambda t, o, s, ls: None if o is None else emit(t, o))


def test_a_state_may_hold_an_array() -> None:
    class Keeping(cw.RNNCell):
        state_size, output_size = (N, 1), N

        def call(self, inputs: Any, state: Any) -> Any:
            return state[0] + inputs[:, :N], (state[0] + 1, state[1].write(state[1].size(), inputs))

    _, (last, kept), _ = _loop(
        Keeping(), torch.full((B,), 2), state=lambda t, o, s, ls: (H, cw.TensorArray()) if s is None else s
    )
    assert torch.equal(last, H + 2) and torch.equal(kept.stack(), XS[:2])


@pytest.mark.parametrize("value", ["32", 1.5, -1], ids=repr)
def test_parallel_iterations_is_an_int(value: Any) -> None:
    with pytest.raises(cw.ArgumentTypeError, match="raw_rnn: expected parallel_iterations as an int"):
        cw.raw_rnn(cw.GRUCell(N), lambda *a: None, parallel_iterations=value)


@pytest.mark.parametrize("result", [None, (), (True, XS[0], H, None), [True] * 6, XS])
def test_five_things_come_back(result: Any) -> None:
    with pytest.raises(cw.ArgumentTypeError, match="raw_rnn: expected loop_fn to return"):
        cw.raw_rnn(cw.GRUCell(N), lambda *a: result)


def test_a_first_input_is_needed() -> None:
    with pytest.raises(cw.ArgumentError, match="raw_rnn: expected loop_fn to give the first input"):
        cw.raw_rnn(cw.GRUCell(N), lambda *a: (torch.zeros(B, dtype=torch.bool), None, H, None, None))


def test_scope() -> None:
    for kwargs, prefix in (({}, "rnn"), ({"scope": "foo"}, "foo")):
        cell = cw.BasicRNNCell(N)
        cw.raw_rnn(cell, lambda t, o, s, ls: (torch.tensor(t >= 1), XS[0], H if s is None else s, o, None), **kwargs)
        assert cell.scope_name == f"{prefix}/basic_rnn_cell"


@both_ways
def test_masks_are_drawn_step_by_step(backend: str | None) -> None:
    cell = cw.GRUCell(N)
    a, b = (cw.DropoutWrapper(cell, 0.5, 0.5, 0.5, seed=3) for _ in range(2))
    emitted, final, _ = _loop(a)
    with cw.use_backend(backend):
        out, state = cw.dynamic_rnn(b, XS, LENGTHS, dtype="float32", time_major=True)
    assert_same_run(backend, (out, state), (emitted.stack(), final))
    assert torch.equal(a.get_extra_state(), b.get_extra_state())


def test_gradients_stop_with_the_rows() -> None:
    cell = cw.GRUCell(N)
    xs = XS.clone().requires_grad_()
    loop = lambda t, o, s, ls: (t >= LENGTHS, xs[min(t, T - 1)], H if s is None else s, o, None)  # noqa: E731
    emitted, final, _ = cw.raw_rnn(cell, loop)
    (emitted.stack().sum() + final.sum()).backward()
    assert (xs.grad[:, 0] != 0).all() and (xs.grad[:2, 1] != 0).all()
    assert not xs.grad[2:, 1].any() and not xs.grad[:, 2].any()
