"""Stepper: single steps give what `dynamic_rnn` gives, whatever the composition and whatever changes between steps."""

from __future__ import annotations

import copy
import os
import pickle
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

import cellweave as cw
from cellweave import keras
from cellweave.ops.common._library import missing_reason
from cellweave.specs import RNNSpec
from helpers import nest
from helpers.tolerances import assert_close

ROWS, DEPTH, STEPS = 2, 5, 6

CELLS: dict[str, Callable[[], Any]] = {
    "lstm": lambda: cw.LSTMCell(7),
    "lstm-options": lambda: cw.LSTMCell(7, use_peepholes=True, cell_clip=0.3, num_proj=4, proj_clip=0.2),
    "lstm-one-tensor": lambda: cw.BasicLSTMCell(7, state_is_tuple=False),
    "gru": lambda: cw.GRUCell(7),
    "rnn-relu": lambda: cw.BasicRNNCell(7, activation="relu"),
    "stack": lambda: cw.MultiRNNCell([cw.LSTMCell(5), cw.GRUCell(7)]),
    "residual": lambda: cw.ResidualWrapper(cw.GRUCell(DEPTH)),
    "residual-stack": lambda: cw.ResidualWrapper(cw.MultiRNNCell([cw.LSTMCell(7), cw.GRUCell(DEPTH)])),
    "dropout-off": lambda: cw.DropoutWrapper(cw.GRUCell(7), input_keep_prob=0.5, state_keep_prob=0.5),
    "own-activation": lambda: cw.GRUCell(7, activation=torch.sin),
}


def inputs(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(STEPS, ROWS, DEPTH, dtype=dtype)


def ready(name: str, dtype: str = "float32") -> Any:
    cell = CELLS[name]().eval()
    cw.dynamic_rnn(cell, inputs(getattr(torch, dtype)), dtype=dtype, time_major=True)
    for weight in cell.parameters():
        torch.nn.init.uniform_(weight, -0.5, 0.5)
    return cell


def unrolled(cell: Any, x: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
    start = {"dtype": x.dtype} if state is None else {"initial_state": state}
    with torch.no_grad(), cw.use_backend("reference"):
        return cw.dynamic_rnn(cell, x, time_major=True, **start)


def assert_steps(step: cw.Stepper, cell: Any, x: torch.Tensor, state: Any = None) -> None:
    wanted, final = unrolled(cell, x, state)
    found = torch.stack([step(frame) for frame in x])
    tolerance = 1e-5 if x.dtype == torch.float32 else 1e-13
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)
    nest.flatten(step.state)
    for got, leaf in zip(nest.flatten(step.state), nest.flatten(final), strict=True):
        torch.testing.assert_close(got, leaf, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CELLS)
def test_steps_are_those_of_the_unroll(name: str, dtype: str) -> None:
    cell, x = ready(name, dtype), inputs(getattr(torch, dtype))
    assert_steps(cw.Stepper(cell, batch_size=ROWS, dtype=dtype), cell, x)


@pytest.mark.parametrize("fresh", [False, True], ids=["zeros", "a-state"])
@pytest.mark.parametrize("name", CELLS)
def test_rows_that_start_anew(name: str, fresh: bool) -> None:
    cell, x = ready(name), inputs()
    resets = torch.tensor([[False, False], [False, True], [False, False], [True, True], [False, False], [True, False]])
    zeros = cell.zero_state(ROWS, "float32")
    anew = nest.pack(zeros, [torch.rand_like(leaf) for leaf in nest.flatten(zeros)]) if fresh else None
    with torch.no_grad(), cw.use_backend("reference"):
        wanted, final = cw.dynamic_rnn(cell, x, time_major=True, dtype="float32", resets=resets, reset_state=anew)
    step = cw.Stepper(cell, batch_size=ROWS)
    found = torch.stack([step(frame, flags, anew) for frame, flags in zip(x, resets, strict=True)])
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    for a, b in zip(nest.flatten(step.state), nest.flatten(final), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("prepared_in", [torch.no_grad, torch.inference_mode], ids=["no_grad", "inference_mode"])
@pytest.mark.parametrize("fresh", [False, True], ids=["zeros", "a-state"])
def test_rows_start_anew_in_any_mode(fresh: bool, prepared_in: Callable[[], Any]) -> None:
    cell, x = ready("lstm"), inputs()
    anew = cw.LSTMStateTuple(torch.rand(ROWS, 7), torch.rand(ROWS, 7)) if fresh else None
    step, same = cw.Stepper(cell, batch_size=ROWS), cw.Stepper(cell, anew, batch_size=ROWS)
    with prepared_in():
        step(x[0])
    found, wanted = step(x[1], [True, True], anew), same(x[1])
    assert torch.equal(found, wanted)
    with torch.inference_mode():
        step(x[2])
        assert torch.equal(step(x[1], [True, True], anew), wanted)


@pytest.mark.parametrize("name", ["lstm", "own-activation"])
@pytest.mark.parametrize("started", [False, True], ids=["at-first", "later"])
def test_wrong_resets_leave_the_state(started: bool, name: str) -> None:
    step, x = cw.Stepper(ready(name), batch_size=ROWS), inputs()[0]
    if started:
        step(x)
    before, flags = step.state, [True, False]
    doubled = nest.pack(before, [leaf.double() for leaf in nest.flatten(before)])
    wrong: list[tuple[type[Exception], str, tuple[Any, ...]]] = [
        (cw.ShapeError, r"resets \[B\] = \[2\] of a step, got \[1\]", (x, flags[:1])),
        (cw.ArgumentTypeError, "resets as booleans, got int64", (x, [1, 0])),
        (cw.ArgumentError, "resets because reset_state was given", (x, None, before)),
        (cw.DTypeError, "reset_state of float32", (x, flags, doubled)),
        (cw.ShapeError, "input", (x[:, :2], flags)),
        (cw.ShapeError, r"inputs \[2, I\]", (x[:1], flags)),
        (cw.DTypeError, "inputs of float32", (x.double(), flags)),
    ]
    for error, words, given in wrong:
        with pytest.raises(error, match=words):
            step(*given)
        for a, b in zip(nest.flatten(step.state), nest.flatten(before), strict=True):
            assert torch.equal(a, b)


def test_keras_cells() -> None:
    cell = keras.GRUCell(7)
    x = inputs()
    cell(x[0], [torch.zeros(ROWS, 7)])
    assert_steps(cw.Stepper(cell, batch_size=ROWS), cell, x)


def test_goes_on_from_a_state_and_leaves_it_alone() -> None:
    cell, x = ready("lstm"), inputs()
    state = cw.LSTMStateTuple(torch.randn(ROWS, 7), torch.randn(ROWS, 7))
    before = [leaf.clone() for leaf in state]
    step = cw.Stepper(cell, state)
    assert_steps(step, cell, x, state)
    assert all(torch.equal(a, b) for a, b in zip(before, state, strict=True))
    step.reset(state)
    assert_steps(step, cell, x, state)


def test_outputs_are_the_callers_own() -> None:
    cell, x = ready("gru"), inputs()
    step = cw.Stepper(cell, batch_size=ROWS)
    first = step(x[0])
    kept = first.clone()
    wanted = unrolled(cell, x[:2])[0][1]
    first.fill_(9.0)
    torch.testing.assert_close(step(x[1]), wanted)
    assert torch.equal(first, torch.full_like(kept, 9.0))


@pytest.mark.parametrize("view", ["strided", "negative", "between words"])
def test_goes_on_with_any_layout_of_inputs(view: str) -> None:
    cell, x = ready("gru"), inputs()
    wanted = unrolled(cell, x)[0]
    step = cw.Stepper(cell, batch_size=ROWS)
    found = [step(x[0])]
    for frame in x[1:]:
        other = frame.t().contiguous().t()
        if view == "negative":
            other = torch._neg_view(-frame)
        elif view == "between words":
            memory = bytearray(1) + bytearray(frame.numpy().tobytes())
            other = torch.frombuffer(memory, dtype=torch.float32, offset=1).view(ROWS, DEPTH)
        found.append(step(other))
    torch.testing.assert_close(torch.stack(found), wanted)


def test_a_hook_is_heard() -> None:
    cell, x = ready("stack"), inputs()
    step = cw.Stepper(cell, batch_size=ROWS)
    wanted = unrolled(cell, x)[0]
    step(x[0])
    heard: list[Any] = []
    hooks = [part.register_forward_hook(lambda *_: heard.append(1)) for part in (cell, cell.cells[1])]
    torch.testing.assert_close(step(x[1]), wanted[1])
    assert len(heard) == 2
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(step(x[2]), wanted[2])
    assert len(heard) == 2


class Owned(cw.BasicRNNCell):  # type: ignore[misc]
    """A user's own cell that can be told to compute something else."""

    act = "tanh"

    def spec(self) -> RNNSpec:
        return RNNSpec(7, self.act)

    def call(self, inputs: torch.Tensor, state: torch.Tensor) -> Any:
        act = {"tanh": torch.tanh, "relu": torch.relu}[self.act]
        h = act(torch.cat([inputs, state], 1) @ self.kernel + self.bias)
        return h, h


@pytest.mark.parametrize("change", ["a cell", "a wrapped cell", "a residual", "a spec", "a call"])
def test_sees_another_composition(change: str) -> None:
    cells = {
        "a cell": lambda: cw.MultiRNNCell([cw.GRUCell(7), cw.GRUCell(7)]),
        "a wrapped cell": lambda: cw.ResidualWrapper(cw.GRUCell(DEPTH)),
        "a residual": lambda: cw.ResidualWrapper(cw.GRUCell(DEPTH)),
        "a spec": lambda: Owned(7),
        "a call": lambda: cw.GRUCell(7),
    }
    cell, other, x = cells[change](), cells[change](), inputs()
    for each in (cell, other):
        cw.dynamic_rnn(each, x, dtype="float32", time_major=True)
    step = cw.Stepper(cell, batch_size=ROWS)
    step(x[0])
    step(x[1])
    state = step.state
    if change == "a cell":
        cell.cells[0] = other.cells[0]
    elif change == "a wrapped cell":
        cell.cell = other.cell
    elif change == "a residual":
        cell._residual_fn = lambda x, y: x - y
    elif change == "a spec":
        cell.act = "relu"
    else:
        cell.call = lambda inputs, state: (2 * state, inputs @ torch.ones(DEPTH, 7))
    assert_steps(step, cell, x[2:], state)


@pytest.mark.parametrize("change", ["in place", "replaced", "data", "load"])
def test_sees_new_weights(change: str) -> None:
    cell, x = ready("stack"), inputs()
    step = cw.Stepper(cell, batch_size=ROWS)
    for frame in x:
        step(frame)
    state = step.state
    weight = cell.cells[1].gates_kernel
    with torch.no_grad():
        if change == "in place":
            weight.mul_(0.5)
        elif change == "replaced":
            cell.cells[1].gates_kernel = torch.nn.Parameter(weight * 0.5)
        elif change == "data":
            weight.data = weight * 0.5
        else:
            cell.load_state_dict({name: value * 0.5 for name, value in cell.state_dict().items()})
    assert_steps(step, cell, x, state)


class Masked(cw.RNNCell):  # type: ignore[misc]
    """A user's own cell whose weights are made anew at each call."""

    state_size = output_size = 7

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.tied = 1.0, False
        self.register_buffer("pattern", torch.ones(7, 7))

    def build(self, input_shape: Any) -> None:
        self.kernel = self.add_weight("kernel", [input_shape[-1], 7])
        self.first, self.second = self.add_weight("first", [7, 7]), self.add_weight("second", [7, 7])
        super().build(input_shape)

    def spec(self) -> RNNSpec:
        return RNNSpec(7, joined_kernel=False, use_bias=False)

    def named_weights(self) -> dict[str, torch.Tensor]:
        inner = self.first if self.tied else self.second * self.pattern * self.scale
        return {"kernel": self.kernel, "recurrent_kernel": inner}

    def call(self, inputs: torch.Tensor, state: torch.Tensor) -> Any:
        weights = self.named_weights()
        h = torch.tanh(inputs @ weights["kernel"] + state @ weights["recurrent_kernel"])
        return h, h


@pytest.mark.parametrize("change", ["an attribute", "a buffer", "another buffer", "to a parameter", "from a parameter"])
def test_sees_weights_that_are_made_of_something_else(change: str) -> None:
    cell, x = Masked(), inputs()
    cell.tied = change == "from a parameter"
    cw.dynamic_rnn(cell, x, dtype="float32", time_major=True)
    step = cw.Stepper(cell, batch_size=ROWS)
    step(x[0])
    step(x[1])
    state = step.state
    if change == "an attribute":
        cell.scale = 2.0
    elif change == "a buffer":
        cell.pattern[3:] = 0.0
    elif change == "another buffer":
        cell.pattern = torch.zeros(7, 7)
    else:
        cell.tied = not cell.tied
    assert_steps(step, cell, x[2:], state)


def test_sees_what_a_custom_getter_reads() -> None:
    average = {"factor": 1.0}

    def getter(get: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        return get(*args, **kwargs) * average["factor"]  # type: ignore[no-any-return]

    x = inputs()
    with cw.VariableStore(), cw.variable_scope("rnn", custom_getter=getter):
        cell = cw.GRUCell(7)
        cw.dynamic_rnn(cell, x, dtype="float32", time_major=True)
    step = cw.Stepper(cell, batch_size=ROWS)
    step(x[0])
    step(x[1])
    state, average["factor"] = step.state, 0.5
    assert_steps(step, cell, x[2:], state)


#: Ways to make a Stepper or Stream like another.
COPIES: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda step: pickle.loads(pickle.dumps(step)),
}


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("name", ["lstm", "stack", "own-activation"])
def test_copies_go_on_by_themselves(name: str, way: str) -> None:
    cell, x = ready(name), inputs()
    step = cw.Stepper(cell, batch_size=ROWS)
    for number in range(3):
        twin = COPIES[way](step)
        state = step.state
        assert_steps(twin, cell, x[number:], state)
        for got, leaf in zip(nest.flatten(step.state), nest.flatten(state), strict=True):
            torch.testing.assert_close(got, leaf, rtol=0, atol=0)
        step(x[number])


@pytest.mark.skipif(missing_reason() is not None, reason=f"the native core is missing: {missing_reason()}")
def test_use_backend_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    cell, x, called = ready("lstm"), inputs(), []
    step, call = cw.Stepper(cell, batch_size=ROWS), type(cell).call
    step(x[0])
    monkeypatch.setattr(type(cell), "call", lambda *args: called.append(0) or call(*args))
    step(x[1])
    assert not called
    with cw.use_backend("reference"):
        step(x[2])
    assert called == [0]
    step(x[3])
    assert called == [0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_with_one_thread() -> None:
    threads, cell, x = torch.get_num_threads(), cw.LSTMCell(300), torch.randn(2, 8, 300)
    try:
        torch.set_num_threads(2)
        cw.dynamic_rnn(cell, x, dtype="float32", time_major=True)
        wanted, _ = unrolled(cell, x)
        step = cw.Stepper(cell, batch_size=8)
        step(x[0])  # on two threads, which a child has not
        child = os.fork()
        if child == 0:
            torch.set_num_threads(1)
            os._exit(0 if torch.allclose(step(x[1]), wanted[1], atol=1e-5) else 1)
        status = exit_status(child, seconds=60)
        torch.testing.assert_close(step(x[1]), wanted[1])
    finally:
        torch.set_num_threads(threads)
    assert status == 0


def exit_status(child: int, seconds: float) -> int | None:
    """What a child process ends with; None: it hung, and was killed."""
    for _ in range(int(seconds * 50)):
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return None


def test_draws_masks_in_training_mode_and_none_after_eval() -> None:
    cell, x = ready("dropout-off"), torch.ones(STEPS, ROWS, DEPTH)
    step = cw.Stepper(cell, batch_size=ROWS)
    step(x[0])
    cell.train()
    masked = [step(frame) for frame in x]
    assert len({float(out.sum()) for out in masked}) == STEPS
    state = step.state
    cell.eval()
    assert_steps(step, cell, x, state)


def test_calls_an_unbuilt_cell_first() -> None:
    cell = cw.GRUCell(7)
    x = inputs()
    found = torch.stack([frame for step in [cw.Stepper(cell, batch_size=ROWS)] for frame in map(step, x)])
    torch.testing.assert_close(found, unrolled(cell, x)[0])


def test_takes_any_layout_of_inputs() -> None:
    cell, x = ready("gru"), inputs()
    wanted = unrolled(cell, x)[0]
    step = cw.Stepper(cell, batch_size=ROWS)
    wide = torch.full((STEPS, ROWS, 2 * DEPTH), 9.0)
    wide[..., ::2] = x
    torch.testing.assert_close(torch.stack([step(frame) for frame in wide[..., ::2]]), wanted)


def test_gives_no_gradients() -> None:
    cell, x = ready("gru"), inputs().requires_grad_()
    step = cw.Stepper(cell, batch_size=ROWS)
    assert not step(x[0]).requires_grad and not step(x[1]).requires_grad


@pytest.mark.parametrize("name", ["gru", "lstm", "stack"])
def test_other_devices(name: str) -> None:
    cell, x = ready(name), inputs()
    wanted = unrolled(cell, x)[0]
    step = cw.Stepper(cell, batch_size=ROWS)
    step(x[0])
    with pytest.raises(RuntimeError, match="meta"):
        step(x[1].to("meta"))
    torch.testing.assert_close(step(x[1]), wanted[1])
    state = nest.pack(step.state, [leaf.to("meta") for leaf in nest.flatten(step.state)])
    with pytest.raises(RuntimeError, match="meta"):
        cw.Stepper(cell, state)(x[2])
    with torch.device("meta"):  # which new tensors would be made on
        found = cw.Stepper(cell, step.state)(x[2])
    torch.testing.assert_close(found, wanted[2])


def test_a_state_of_several_dtypes() -> None:
    state = cw.LSTMStateTuple(torch.zeros(ROWS, 7), torch.zeros(ROWS, 7, dtype=torch.float64))
    with pytest.raises(cw.DTypeError, match=r"float32.*float64"):
        cw.Stepper(ready("lstm"), state)(inputs()[0])


def test_weights_of_inference_mode() -> None:
    cell, x = ready("stack"), inputs()
    with torch.inference_mode():
        for inner in cell.cells:
            for name, weight in list(inner.named_parameters()):
                setattr(inner, name, torch.nn.Parameter(weight.clone()))
    assert all(weight.is_inference() for weight in cell.parameters())
    step = cw.Stepper(cell, batch_size=ROWS)
    assert_steps(step, cell, x[:3])
    state = step.state
    with torch.inference_mode():
        next(cell.parameters()).mul_(-1.0)
    assert_steps(step, cell, x[3:], state)


@pytest.mark.parametrize(
    "wrong, error, facts",
    [
        (torch.zeros(ROWS + 1, DEPTH), cw.ShapeError, r"Stepper.*\[2, I\].*\[3, 5\]"),
        (torch.zeros(DEPTH), cw.ShapeError, r"Stepper.*\[2, I\].*\[5\]"),
        (torch.zeros(ROWS, DEPTH, dtype=torch.float64), cw.DTypeError, "Stepper.*float32.*float64"),
        (torch.zeros(ROWS, DEPTH + 1), cw.ShapeError, "GRUCell.*5.*6"),
    ],
)
def test_wrong_inputs(wrong: torch.Tensor, error: type[Exception], facts: str) -> None:
    cell, x = ready("gru"), inputs()
    step = cw.Stepper(cell, batch_size=ROWS)
    wanted = unrolled(cell, x)[0]
    step(x[0])
    with pytest.raises(error, match=facts):
        step(wrong)
    torch.testing.assert_close(step(x[1]), wanted[1])


def test_no_cell() -> None:
    with pytest.raises(cw.ArgumentTypeError, match=r"Stepper.*recurrent cell"):
        cw.Stepper("lstm")


@pytest.mark.skipif(missing_reason() is not None, reason=f"the native core is missing: {missing_reason()}")
@pytest.mark.parametrize("name", ["stack", "residual", "dropout-off"])
def test_runs_on_the_core_where_it_can(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cell, x = ready(name), inputs()
    step = cw.Stepper(cell, batch_size=ROWS)
    step(x[0])
    monkeypatch.setattr(type(cell), "call", None)  # nobody calls the cell any more
    with torch.inference_mode():
        assert step(x[1]).shape[0] == ROWS


def test_compiled_code_leaves_it_as_it_is() -> None:
    """It keeps a state: nothing of it is traced, which would say so in warnings."""
    torch._dynamo.reset()
    cell, x = cw.LSTMCell(6), torch.randn(3, 7, 4)
    resets = torch.rand(3, 7) < 0.4
    outputs, _ = cw.dynamic_rnn(cell, x, dtype="float32", resets=resets)
    stepper = cw.Stepper(cell, batch_size=3)
    step = torch.compile(lambda *given: stepper(*given) * 2, backend="aot_eager")
    found = torch.stack([step(*given) for given in zip(x.unbind(1), resets.unbind(1), strict=True)], 1)
    assert_close("outputs", found, outputs.detach() * 2, 1e-6)
    with pytest.raises(torch._dynamo.exc.Unsupported, match="cellweave: a Stepper keeps its state"):
        torch.compile(stepper, backend="aot_eager", fullgraph=True)(x[:, 0])
