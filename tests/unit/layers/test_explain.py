"""explain: a plan without a run."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import cellweave as cw
from cellweave.scopes import seed_state
from helpers.fake_backend import Fake, fakes
from properties.compositions import tables

X = torch.zeros(2, 5, 3)


def dropped(**kwargs: Any) -> Any:
    """TF1's and TF2's wrappers without seeds, whose streams any careless look would make."""
    first = cw.DropoutWrapper(cw.GRUCell(3), 0.5, 0.5, 0.5, **kwargs)
    return cw.MultiRNNCell([first, cw.RNNCellDropoutWrapper(cw.GRUCell(3), output_keep_prob=0.5)])


@pytest.mark.parametrize("built", [False, True])
def test_nothing_is_made_and_nothing_moves(built: bool, capsys: pytest.CaptureFixture[str]) -> None:
    with cw.VariableStore() as store:
        cell = dropped()
        if built:
            cell.build([2, 3])
        names, streams = list(store.variables), [len(table) for table in tables(cell)]
        stood = torch.get_rng_state(), seed_state().unseeded_ops, dict(seed_state().eager_blocks)
        for backend in (None, "reference", "native"):
            with cw.use_backend(backend):
                cw.explain(cell, X)
        assert list(store.variables) == names and [len(table) for table in tables(cell)] == streams
        assert torch.equal(stood[0], torch.get_rng_state())
        assert stood[1:] == (seed_state().unseeded_ops, seed_state().eager_blocks)
        out, _ = cw.dynamic_rnn(cell, X, dtype="float32")
        assert out.shape == (2, 5, 3)


def test_arguments_are_those_of_dynamic_rnn() -> None:
    cell, h = cw.GRUCell(3), torch.zeros(2, 3)
    with fakes(Fake()):
        plan = cw.explain(
            cell, X.transpose(0, 1), [1, 2], h, "float32", 32, False, True, "scope", resets=X[..., 0].T > 0
        )
    assert plan.rows[0].inside == "lengths, resets"
    with pytest.raises(cw.ArgumentTypeError, match="explain: expected a recurrent cell"):
        cw.explain(3, X)
    with pytest.raises(cw.ShapeError, match="explain: expected inputs"):
        cw.explain(cell, X[0])


def test_the_dtype_is_the_inputs() -> None:
    with fakes(Fake()):
        assert cw.explain(cw.GRUCell(3), X.double()).backends == ("native",)


def test_what_use_backend_asks_for() -> None:
    cell = cw.GRUCell(3)
    with fakes(Fake("native", "out of order"), Fake("torch")):
        with cw.use_backend("reference"):
            row = cw.explain(cell, X).rows[0]
            assert (row.backend, row.why) == ("reference", "asked for by use_backend")
        with cw.use_backend("torch"):
            assert cw.explain(cell, X).backends == ("torch",)
        with cw.use_backend("native"):
            row = cw.explain(cell, X).rows[0]
            assert (row.backend, row.why) == ("none", "native: out of order")


def opaque() -> Any:
    return cw.ResidualWrapper(cw.GRUCell(3), residual_fn=lambda x, y: y)


class Mine(cw.RNNCell):
    """A cell that says nothing of itself."""

    state_size = output_size = 3

    def call(self, inputs: Any, state: Any) -> Any:
        return inputs, state


REASONS: dict[str, tuple[Any, Any, str]] = {
    "a cell of one's own": (Mine, X, r"Mine has no spec\(\)"),
    "a first call": (
        lambda: cw.MultiRNNCell([opaque(), cw.GRUCell(3)]),
        X,
        "its first call makes the variables of a layer that only runs step by step",
    ),
    "a structure": (Mine, (X, X), r"its inputs are not one floating tensor \[B, T, D\]"),
    "four axes": (Mine, X[..., None], "its inputs are not one floating tensor"),
    "meta": (lambda: cw.GRUCell(3), X.to("meta"), "its tensors have no values"),
}


@pytest.mark.parametrize("name", [name for name in REASONS if name != "meta"])
def test_where_a_call_would_raise_nothing_runs(name: str) -> None:
    make, x, reason = REASONS[name]
    with cw.use_backend("native"):
        plan = cw.explain(make(), x)
        with pytest.raises(cw.BackendError, match=reason):
            cw.dynamic_rnn(make(), x, dtype="float32")
    assert set(plan.backends) == {"none"}


def test_beside_a_layer_that_only_steps_the_others_are_what_was_asked_for() -> None:
    cell = cw.MultiRNNCell([cw.GRUCell(3), Mine()])
    cw.dynamic_rnn(cell, X, dtype="float32")  # makes the variables
    with fakes(Fake()):
        with cw.use_backend("native"):
            plan = cw.explain(cell, X)
            with pytest.raises(cw.BackendError, match=r"Mine has no spec\(\)"):
                cw.dynamic_rnn(cell, X, dtype="float32")
        assert plan.backends == ("native", "none")
        assert cw.explain(cell, X).backends == ("native", "reference")


@pytest.mark.parametrize("name", REASONS)
def test_why_all_of_it_runs_step_by_step(name: str) -> None:
    make, x, reason = REASONS[name]
    with fakes(Fake()):
        plan = cw.explain(make(), x)
    assert set(plan.backends) == {"reference"}
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(plan.rows[-1].why)


def test_what_surrounds_the_call() -> None:
    cell = cw.GRUCell(3)
    with fakes(Fake()):
        cw.dynamic_rnn(cell, X, dtype="float32")
    handle = torch.nn.modules.module.register_module_forward_hook(lambda *_: None)
    with fakes(Fake()):
        try:
            assert cw.explain(cell, X).rows[0].why == "hooks stand on all modules"
        finally:
            handle.remove()
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False):
            assert cw.explain(cell, X).rows[0].why == "a mode of torch watches every operation"
        assert cw.explain(cell, X.double(), initial_state=torch.zeros(2, 3)).rows[0].why == (
            "its inputs and states differ in dtype or device"
        )
        assert "gates/kernel of GRUCell differs from the inputs in dtype" in cw.explain(cell, X.double()).rows[0].why
        assert cw.explain(cell, X).backends == ("native",)
