"""The short way: taken by a second call of the common kind, and never where it would not be the long one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import cellweave as cw
from cellweave.layers import _dynamic_rnn
from helpers import nest
from helpers.fake_backend import Fake, fakes

B, T, D, N = 3, 5, 4, 3
XS = torch.linspace(-1.0, 1.0, B * T * D).reshape(B, T, D)
H = torch.linspace(-0.5, 0.5, B * N).reshape(B, N)


class Short:
    """Counts which way calls go."""

    def __init__(self) -> None:
        self.taken = 0
        self.real = _dynamic_rnn.run_again

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        found = self.real(*args, **kwargs)
        self.taken += found is not None
        return found


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[Short]:
    counter = Short()
    monkeypatch.setattr(_dynamic_rnn, "run_again", counter)
    with fakes(Fake()):  # something to weave with, native core or not
        yield counter


def lstm() -> Any:
    return cw.LSTMCell(N)


def stack() -> Any:
    return cw.MultiRNNCell([cw.DropoutWrapper(cw.GRUCell(N), 0.5, seed=1), cw.LSTMCell(2, state_is_tuple=False)])


TAKEN: dict[str, tuple[Any, dict[str, Any]]] = {
    "dtype": (lstm, {"dtype": "float32"}),
    "torch's dtype": (lstm, {"dtype": torch.float32}),
    "numpy's dtype": (lstm, {"dtype": np.float32}),
    "state": (lstm, {"initial_state": cw.LSTMStateTuple(H, 2 * H)}),
    "state and dtype": (lambda: cw.GRUCell(N), {"initial_state": H, "dtype": "float32"}),
    "stack": (stack, {"initial_state": (H, torch.ones(B, 4))}),
    "lengths": (lstm, {"dtype": "float32", "sequence_length": torch.tensor([5, 0, 9])}),
    "resets": (lstm, {"dtype": "float32", "resets": XS[..., 0] > 0}),
    "resets and lengths": (
        lambda: cw.GRUCell(N),
        {"dtype": "float32", "resets": XS[..., 0] > 0, "sequence_length": torch.tensor([3, 0, 2])},
    ),
    "masks": (lambda: cw.DropoutWrapper(cw.LSTMCell(N), 0.5, 0.5, 0.5, seed=3), {"dtype": "float32"}),
    "masks and lengths": (
        lambda: cw.DropoutWrapper(cw.GRUCell(N), 0.5, 0.5, 0.5, seed=3),
        {"dtype": "float32", "sequence_length": torch.tensor([3, 0, 2])},
    ),
    "variational masks": (
        lambda: cw.DropoutWrapper(
            cw.GRUCell(N), 0.5, 0.5, 0.5, variational_recurrent=True, input_size=D, dtype="float32", seed=3
        ),
        {"dtype": "float32"},
    ),
    "joined states": (lambda: cw.LSTMCell(N, state_is_tuple=False), {"dtype": "float32"}),
    "device wrapper": (lambda: cw.DeviceWrapper(cw.GRUCell(N), "cpu"), {"dtype": "float32"}),
}


@pytest.mark.parametrize("name", TAKEN)
@pytest.mark.parametrize("time_major", [False, True])
def test_is_the_long_way(name: str, time_major: bool, short: Short) -> None:
    make, kwargs = TAKEN[name]
    xs = XS.transpose(0, 1) if time_major else XS
    if time_major and "resets" in kwargs:
        kwargs = kwargs | {"resets": kwargs["resets"].transpose(0, 1)}
    found = []
    for scope in (None, "long"):
        torch.manual_seed(0)
        cell = make()
        runs = [cw.dynamic_rnn(cell, xs, time_major=time_major, scope=scope, **kwargs) for _ in range(3)]
        found.append(runs[1:])
    assert short.taken == 2, "the second and the third call"
    assert nest.picture(found[0]) == nest.picture(found[1])
    for a, b in zip(nest.flatten(found[0]), nest.flatten(found[1]), strict=True):
        assert torch.equal(a, b)


class Ones(cw.GRUCell):
    """Starts from ones."""

    def zero_state(self, batch_size: Any, dtype: Any) -> Any:
        return torch.ones(batch_size, N)


LONG: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "a start of its own": (lambda: Ones(N), XS, {"dtype": "float32"}),
    "a list of lengths": (lstm, XS, {"dtype": "float32", "sequence_length": [5, 1, 2]}),
    "resets to a state": (
        lambda: cw.GRUCell(N),
        XS,
        {"dtype": "float32", "resets": XS[..., 0] > 0, "reset_state": H},
    ),
    "resets of no booleans": (lstm, XS, {"dtype": "float32", "resets": XS[..., 0]}),
    "a scope": (lstm, XS, {"dtype": "float32", "scope": "s"}),
    "another state structure": (lstm, XS, {"initial_state": (H, H)}),
    "no state and no dtype": (lstm, XS, {}),
    "a state of other rows": (lstm, XS, {"initial_state": cw.LSTMStateTuple(H[:1], H)}),
    "a state, and outputs of another dtype": (lambda: cw.GRUCell(N), XS, {"initial_state": H, "dtype": "float64"}),
    "a state of another dtype": (lambda: cw.GRUCell(N), XS, {"initial_state": H.double()}),
    "inputs of another depth": (lstm, XS[..., :2], {"dtype": "float32"}),
    "no steps": (lstm, XS[:, :0], {"dtype": "float32"}),
    "a subclass of tensors": (lstm, XS.as_subclass(type("Mine", (torch.Tensor,), {})), {"dtype": "float32"}),
    "parallel iterations": (lstm, XS, {"dtype": "float32", "parallel_iterations": 3}),
    "a replacing state alone": (lambda: cw.GRUCell(N), XS, {"dtype": "float32", "reset_state": H}),
}


@pytest.mark.parametrize("name", LONG)
def test_the_long_way(name: str, short: Short) -> None:
    make, xs, kwargs = LONG[name]
    cell = make()
    cw.dynamic_rnn(cell, XS, dtype="float32")
    outcomes = []
    for _ in range(2):
        try:
            outcomes.append(cw.dynamic_rnn(cell, xs, **kwargs)[0].shape)
        except cw.CellweaveError as error:
            outcomes.append(str(error))
    assert short.taken == 0 and outcomes[0] == outcomes[1]
    if name == "a start of its own":
        assert not torch.equal(cw.dynamic_rnn(cell, XS, dtype="float32")[0][:, 0], cell(XS[:, 0], 0 * H)[0])


@pytest.mark.parametrize("name", ["zero_state", "get_initial_state"])
@pytest.mark.parametrize("place", ["object", "class"])
@pytest.mark.parametrize("wrap", [lambda c: c, cw.ResidualWrapper, lambda c: cw.MultiRNNCell([c])])
def test_a_start_of_its_own_that_comes_later(wrap: Any, place: str, name: str, short: Short) -> None:
    class Late(cw.GRUCell):
        pass

    inner = Late(D)
    cell = wrap(inner)
    for _ in range(2):
        zeros = cw.dynamic_rnn(cell, XS, dtype="float32")[0]
    assert short.taken == 1
    start = lambda *_, **__: torch.ones(B, D)  # noqa: E731
    setattr(inner if place == "object" else Late, name, start)
    for _ in range(2):
        found = cw.dynamic_rnn(cell, XS, dtype="float32")[0]
        with cw.use_backend("reference"):
            torch.testing.assert_close(found, cw.dynamic_rnn(cell, XS, dtype="float32")[0])
    if name == "get_initial_state" and cell is inner:
        assert not torch.equal(found, zeros)
    delattr(inner if place == "object" else Late, name)
    torch.testing.assert_close(cw.dynamic_rnn(cell, XS, dtype="float32")[0], zeros)


def test_inside_a_store_or_scope_names_are_counted(short: Short) -> None:
    cell = lstm()
    with cw.VariableStore():
        for _ in range(2):
            cw.dynamic_rnn(cell, XS, dtype="float32")
        with cw.variable_scope(None, default_name="rnn") as scope:
            assert scope.name == "rnn_1"
    with cw.variable_scope("here"):
        cw.dynamic_rnn(cell, XS, dtype="float32")
    assert short.taken == 0
    cw.dynamic_rnn(cell, XS, dtype="float32")
    assert short.taken == 1


def test_use_backend_is_heard(short: Short) -> None:
    cell = lstm()
    cw.dynamic_rnn(cell, XS, dtype="float32")
    with cw.use_backend("reference"):
        cw.dynamic_rnn(cell, XS, dtype="float32")
    assert short.taken == 0


def test_gradients_are_asked_for_anew(short: Short) -> None:
    cell = lstm()
    cw.dynamic_rnn(cell, XS, dtype="float32")
    with torch.no_grad():
        out, _ = cw.dynamic_rnn(cell, XS, dtype="float32")
    assert not out.requires_grad
    xs = XS.clone().requires_grad_()
    out, _ = cw.dynamic_rnn(cell, xs, dtype="float32")
    out.sum().backward()
    assert xs.grad.any() and cell.kernel.grad.any()
    for parameter in cell.parameters():
        parameter.requires_grad_(False)
    assert not cw.dynamic_rnn(cell, XS, dtype="float32")[0].requires_grad
    assert short.taken == 3
