"""Woven unrolls beside single steps: first calls, fallbacks, what surrounds a call, what use_backend demands."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import cellweave as cw
from cellweave.specs import GRUSpec, RNNSpec
from helpers import nest
from helpers.fake_backend import Fake, fakes
from helpers.woven import assert_same_run
from properties.compositions import tables

B, T, D, N = 3, 5, 4, 3
XS = torch.linspace(-1.0, 1.0, B * T * D).reshape(B, T, D)
F32 = {"dtype": "float32"}


def both(make: Any, run: Any) -> tuple[Any, Any]:
    """What a run gives step by step and by a backend that computes alike, and where all streams stand then."""
    found = []
    for backend in ("reference", "native"):
        torch.manual_seed(3)
        cw.set_random_seed(None)
        cell, fake = make(), Fake()
        with fakes(fake), cw.use_backend(backend):
            found.append((run(cell), tables(cell), list(cell.parameters()), torch.get_rng_state()))
        assert bool(fake.calls) is (backend == "native")
    for a, b in zip(nest.flatten(found[0]), nest.flatten(found[1]), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    return found[0], found[1]


def drop(cell: Any, **kwargs: Any) -> Any:
    return cw.DropoutWrapper(cell, 0.5, 0.6, 0.7, **kwargs)


class TestFirstCalls:
    """Variables are made, and streams started, in the order in which single steps would."""

    @pytest.mark.parametrize("graph_seed", [None, 5])
    def test_of_an_unbuilt_composition(self, graph_seed: int | None) -> None:
        def make() -> Any:
            return cw.MultiRNNCell([drop(cw.GRUCell(N)), drop(cw.LSTMCell(N)), cw.BasicRNNCell(2)])

        def run(cell: Any) -> Any:
            cw.set_random_seed(graph_seed)
            return [cw.dynamic_rnn(cell, XS, **F32) for _ in range(2)]

        both(make, run)

    def test_in_a_run_of_several_calls(self) -> None:
        def run(cell: Any) -> Any:
            with cw.session_run():
                return [cw.dynamic_rnn(cell, XS, **F32), cw.static_rnn(cell, list(XS.unbind(1)), **F32)]

        both(lambda: drop(cw.GRUCell(N), seed=1), run)

    def test_of_a_static_unroll(self) -> None:
        def run(cell: Any) -> Any:
            return [cw.static_rnn(cell, list(XS.unbind(1)), **F32) for _ in range(2)]

        both(lambda: drop(cw.MultiRNNCell([cw.GRUCell(N), cw.GRUCell(N)]), seed=1), run)

    def test_names_and_flags_are_those_of_a_call(self) -> None:
        cells = []
        for backend in ("reference", None):
            cell = cw.MultiRNNCell([drop(cw.GRUCell(N)), cw.RNNCellDropoutWrapper(cw.LSTMCell(N))])
            with fakes(Fake()), cw.use_backend(backend):
                cw.dynamic_rnn(cell, XS, scope="here", **F32)
            cells.append(cell)
        assert list(cw.variable_names(cells[0])) == list(cw.variable_names(cells[1]))
        flags = [[(m.built, m.first_call_done) for m in cell.modules() if isinstance(m, cw.Layer)] for cell in cells]
        assert flags[0] == flags[1]

    def test_a_failing_one_leaves_nothing_behind(self) -> None:
        cell = drop(cw.GRUCell(N), variational_recurrent=True, input_size=D + 1, **F32)
        with pytest.raises(cw.ShapeError, match=r"expected input \[B, 5\]"):
            cw.dynamic_rnn(cell, XS, **F32)
        assert not list(cell.parameters()) and not cell.cell.built and not tables(cell)[0].numel()

    def test_loaded_weights_are_checked(self) -> None:
        cell = cw.GRUCell(N)
        cell.build([B, D])
        state = {**cell.state_dict(), "more": torch.zeros(1)}
        other = cw.GRUCell(N)
        with pytest.raises(RuntimeError, match="more"):
            other.load_state_dict(state)
        other.load_state_dict(cell.state_dict())
        assert_same_run(None, cw.dynamic_rnn(other, XS, **F32), cw.dynamic_rnn(cell, XS, **F32))


class TestErrorsAreThoseOfSteps:
    """What single steps refuse is refused in the same words."""

    def test_inputs_of_another_size(self) -> None:
        cell = cw.GRUCell(N)
        cw.dynamic_rnn(cell, XS, **F32)
        with pytest.raises(cw.ShapeError, match=r"GRUCell: expected inputs \[B, 4\] because the cell was built"):
            cw.dynamic_rnn(cell, XS[..., :2], **F32)

    def test_inputs_of_another_dtype(self) -> None:
        cell = cw.GRUCell(N)
        cw.dynamic_rnn(cell, XS, **F32)
        with pytest.raises(cw.DTypeError, match="GRUCell: expected inputs of dtype float32"):
            cw.dynamic_rnn(cell, XS.double(), dtype="float64")
        with pytest.raises(cw.DTypeError, match="expected state of dtype"):
            cw.dynamic_rnn(cell, XS, dtype="float64")

    def test_keep_nothing(self) -> None:
        cell = drop(cw.GRUCell(N))
        cell._keep["input"] = 0.0
        with pytest.raises(cw.ArgumentError, match="expected input_keep_prob above 0"):
            cw.dynamic_rnn(cell, XS, **F32)

    def test_a_sum_of_different_sizes(self) -> None:
        with pytest.raises(cw.ShapeError, match="Give a residual_fn"):
            cw.dynamic_rnn(cw.ResidualWrapper(cw.GRUCell(N)), XS, **F32)


class TestAskedFor:
    """A backend that was asked for runs, or the reasons are told."""

    def test_every_layers_reason(self) -> None:
        cell = cw.MultiRNNCell([cw.GRUCell(N), cw.ResidualWrapper(cw.LSTMCell(2), lambda x, y: y), cw.BasicRNNCell(2)])
        cw.dynamic_rnn(cell, XS, **F32)
        with (
            fakes(Fake("native", "is asleep")),
            cw.use_backend("native"),
            pytest.raises(cw.BackendError) as error,
        ):
            cw.dynamic_rnn(copy.deepcopy(cell), XS, **F32)
        assert str(error.value) == (
            "dynamic_rnn: expected layers that native can run, got GRUCell: native: is asleep; "
            "ResidualWrapper: ResidualWrapper has a residual_fn of its own; BasicRNNCell: native: is asleep."
        )

    @pytest.mark.parametrize("unroll", ["dynamic", "static", "bidirectional"])
    def test_only_steps(self, unroll: str) -> None:
        cell = cw.ResidualWrapper(cw.GRUCell(N), residual_fn=lambda x, y: y)
        run = {
            "dynamic": lambda: cw.dynamic_rnn(cell, XS, **F32),
            "static": lambda: cw.static_rnn(cell, list(XS.unbind(1)), **F32),
            "bidirectional": lambda: cw.bidirectional_dynamic_rnn(cell, cell, XS, **F32),
        }[unroll]
        with cw.use_backend("native"), pytest.raises(cw.BackendError, match="ResidualWrapper has a residual_fn of its"):
            run()

    def test_static_steps_with_masks_of_their_own(self) -> None:
        cell = drop(cw.GRUCell(N))
        with fakes(Fake()), cw.use_backend("native"), pytest.raises(cw.BackendError, match="each step draws masks"):
            cw.static_rnn(cell, list(XS.unbind(1)), **F32)

    def test_a_loop_that_the_caller_steers(self) -> None:
        with cw.use_backend("native"), pytest.raises(cw.BackendError, match="raw_rnn: expected an unroll that native"):
            cw.raw_rnn(cw.GRUCell(N), lambda *_: None)

    def test_nothing_to_run(self) -> None:
        with fakes(Fake("native", "is asleep")), cw.use_backend("native"):
            out, state = cw.dynamic_rnn(cw.GRUCell(N), XS[:, :0], **F32)
            assert out.shape == (B, 0, N) and not state.any()
            assert cw.dynamic_rnn(cw.GRUCell(N), XS[:0], **F32)[0].shape == (0, T, N)


class Mine(cw.RNNCell):
    """A GRU under other names, described by its user."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.inner = cw.GRUCell(size)
        self.calls = 0

    @property
    def state_size(self) -> Any:
        return [self.inner.state_size]

    @property
    def output_size(self) -> int:
        return self.inner.output_size

    def spec(self) -> GRUSpec:
        return self.inner.spec()

    def named_weights(self) -> dict[str, torch.Tensor]:
        return self.inner.named_weights()

    def call(self, inputs: torch.Tensor, state: Any) -> Any:
        self.calls += 1
        output, new = self.inner(inputs, state[0])
        return output, [new]


class Plain(nn.Module):
    """One that is no RNNCell, with a state that is h before c."""

    state_size = (N, N)
    output_size = N
    state_order = "hc"

    def __init__(self) -> None:
        super().__init__()
        self.cell_inside = cw.LSTMCell(N)
        self.cell_inside.build([B, D])

    def zero_state(self, rows: int, dtype: Any) -> Any:
        return torch.zeros(rows, N), torch.zeros(rows, N)

    def spec(self) -> Any:
        return self.cell_inside.spec()

    def named_weights(self) -> Any:
        return self.cell_inside.named_weights()

    def forward(self, inputs: Any, state: Any) -> Any:
        output, new = self.cell_inside(inputs, cw.LSTMStateTuple(state[1], state[0]))
        return output, (new.h, new.c)


class TestCellsOfUsers:
    """They weave as ours do once they describe themselves."""

    @pytest.mark.parametrize(
        "make", [lambda: Mine(N), Plain, lambda: cw.MultiRNNCell([drop(Mine(N), seed=1), Mine(2)])]
    )
    def test_described(self, make: Any) -> None:
        both(make, lambda cell: [cw.dynamic_rnn(cell, XS, [5, 2, 0], **F32) for _ in range(3)])

    def test_the_step_is_not_called(self) -> None:
        cell = Mine(N)
        cw.dynamic_rnn(cell, XS, **F32)
        calls = cell.calls
        with fakes(Fake()):
            cw.dynamic_rnn(cell, XS[:, :2], **F32)
        assert cell.calls == calls

    @pytest.mark.parametrize(
        "weights, reason",
        [
            ({}, "named_weights.. of Mine has no gates/kernel"),
            ({"gates/kernel": torch.zeros(7, 5)}, r"gates/kernel of Mine is \[7, 5\], by its spec \[7, 6\]"),
            ({"gates/kernel": torch.zeros(7, 6).double()}, "gates/kernel of Mine differs from the inputs in dtype"),
            ({"gates/kernel": torch.zeros(7, 6).to_sparse()}, "gates/kernel of Mine is not an ordinary dense tensor"),
        ],
        ids=["missing", "shape", "dtype", "sparse"],
    )
    def test_weights_that_are_not_those_of_the_spec(self, weights: Any, reason: str) -> None:
        cell = Mine(N)
        cw.dynamic_rnn(cell, XS, **F32)
        cell.named_weights = lambda: weights  # type: ignore[method-assign]
        with fakes(Fake()):
            calls = cell.calls
            cw.dynamic_rnn(cell, XS, **F32)
            assert cell.calls == calls + T
            with cw.use_backend("native"), pytest.raises(cw.BackendError, match=reason):
                cw.dynamic_rnn(cell, XS, **F32)

    def test_a_spec_that_fails(self) -> None:
        cell = Mine(N)
        cell.spec = lambda: RNNSpec(no=1)  # type: ignore[method-assign]
        with pytest.raises(TypeError, match="no"):
            cw.dynamic_rnn(cell, XS, **F32)


class TestTransforms:
    """What only single steps know goes by single steps."""

    @pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # torch's own, when jvp is first used
    def test_vmap_and_forward_mode(self) -> None:
        cell = cw.GRUCell(N)
        out, _ = cw.dynamic_rnn(cell, XS, **F32)
        many = torch.stack([XS, 2 * XS])
        mapped = torch.func.vmap(lambda x: cw.dynamic_rnn(cell, x, **F32)[0])(many)
        torch.testing.assert_close(mapped[0], out, rtol=0, atol=1e-6)
        _, tangent = torch.func.jvp(lambda x: cw.dynamic_rnn(cell, x, **F32)[0], (XS,), (torch.ones_like(XS),))
        assert tangent.shape == out.shape and tangent.any()

    def test_functional_call(self) -> None:
        cell = cw.GRUCell(N)
        cw.dynamic_rnn(cell, XS, **F32)
        zeros = {name: torch.zeros_like(weight) for name, weight in cell.named_parameters()}

        class Unroll(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.cell = cell

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return cw.dynamic_rnn(self.cell, x, initial_state=torch.ones(B, N))[0]

        module = Unroll()
        out = torch.func.functional_call(module, {f"cell.{name}": value for name, value in zeros.items()}, (XS,))
        assert torch.allclose(out[:, 0], torch.full((B, N), 0.5)) and not torch.allclose(module(XS), out)

    def test_parametrized_weights(self) -> None:
        cell = cw.GRUCell(N)
        cell.build([B, D])
        nn.utils.parametrizations.weight_norm(cell, "gates_kernel")
        with fakes(fake := Fake()):
            out, _ = cw.dynamic_rnn(cell, XS, **F32)
        assert fake.calls, "a weight that is computed is a weight"
        with cw.use_backend("reference"):
            assert_same_run(None, cw.dynamic_rnn(cell, XS, **F32)[0], out)
        out.sum().backward()
        assert cell.parametrizations.gates_kernel.original0.grad is not None

    def test_autocast(self) -> None:
        cell = cw.GRUCell(N)
        cw.dynamic_rnn(cell, XS, **F32)
        with torch.autocast("cpu"), torch.no_grad():
            with fakes(Fake("native", "no"), Fake("torch")):
                row = cw.explain(copy.deepcopy(cell), XS).rows[0]
                assert row.backend == "reference" and "torch: autocast is on" in row.why
                with cw.use_backend("torch"), pytest.raises(cw.BackendError, match="autocast is on"):
                    cw.dynamic_rnn(copy.deepcopy(cell), XS, **F32)
            assert cw.dynamic_rnn(cell, XS, **F32)[0].dtype == torch.float32


def test_unbuilt_cells_of_a_store_are_shared_as_steps_would() -> None:
    for backend in ("reference", None):
        with cw.use_backend(backend), cw.VariableStore() as store:
            first = cw.dynamic_rnn(cw.GRUCell(N), XS, **F32)
            with cw.variable_scope(cw.get_variable_scope(), reuse=True):
                again = cw.dynamic_rnn(cw.GRUCell(N), XS, **F32)
            assert len(store.variables) == 4 and torch.equal(first[0], again[0])


@pytest.mark.parametrize("kwargs", [{}, {"variational_recurrent": True, "input_size": D, "dtype": "float32"}], ids=str)
def test_a_wrapper_of_both_directions(kwargs: Any) -> None:
    """Two ops per step; one run's mask, drawn once."""

    def run(cell: Any) -> Any:
        return [cw.bidirectional_dynamic_rnn(cell, cell, XS, [5, 2, 0], **F32) for _ in range(2)]

    both(lambda: drop(cw.GRUCell(N), seed=1, **kwargs), run)


def test_a_wrapper_that_two_layers_share() -> None:
    def make() -> Any:
        shared = drop(cw.GRUCell(D), seed=1)
        return cw.MultiRNNCell([shared, drop(cw.GRUCell(D), seed=1), shared])

    both(make, lambda cell: [cw.dynamic_rnn(cell, XS, **F32) for _ in range(2)])


@pytest.mark.parametrize("make", [lambda: cw.BasicRNNCell(N), lambda: cw.GRUCell(N), lambda: cw.LSTMCell(N)])
def test_inputs_without_columns(make: Any, nan_poison: None) -> None:
    """An empty tensor has no address, and without one the core takes gates for computed."""
    x, cell = torch.zeros(B, T, 0), make()
    cw.dynamic_rnn(cell, x, **F32)
    for weight in cell.parameters():
        nn.init.uniform_(weight, -1.0, 1.0)
    found = []
    for backend in ("reference", None):
        with cw.use_backend(backend):
            outputs, state = cw.dynamic_rnn(cell, x, **F32)
        grads = torch.autograd.grad(outputs.sum(), list(cell.parameters()))
        found.append((outputs, state, grads))
    step = cw.Stepper(cell, batch_size=B)
    stepped = torch.stack([step(frame) for frame in x.unbind(1)], dim=1)
    for a, b in zip(nest.flatten(found[0]), nest.flatten(found[1]), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    torch.testing.assert_close(stepped, found[0][0], rtol=0, atol=1e-6)


class OwnStart(cw.LSTMCell):
    """A cell that starts from whatever it is told to."""

    start: Any = None

    def zero_state(self, batch_size: Any, dtype: Any) -> Any:
        return super().zero_state(batch_size, dtype) if self.start is None else self.start


def own_starts() -> Any:
    right = torch.zeros(B, N)
    wrong = {
        "one row": right[:1], "no rows": right[0], "rows of another batch": torch.zeros(B + 2, N),
        "narrow": right[:, 1:], "wide": torch.zeros(B, N + 1), "nothing": None, "a matrix of rows": right[None],
    }  # fmt: skip
    for name, leaf in wrong.items():
        yield pytest.param(cw.LSTMStateTuple(leaf, right), id=name)
        yield pytest.param(cw.LSTMStateTuple(right, leaf), id=f"{name} in h")
    yield pytest.param((right, right), id="another tuple")
    yield pytest.param(right, id="one tensor")


UNROLLS: dict[str, Any] = {
    "dynamic_rnn": lambda cell: cw.dynamic_rnn(cell, XS, **F32),
    "lengths": lambda cell: cw.dynamic_rnn(cell, XS, [5, 2, 0], **F32),
    "static_rnn": lambda cell: cw.static_rnn(cell, list(XS.unbind(1)), [5, 2, 0], **F32),
    "both": lambda cell: cw.bidirectional_dynamic_rnn(cw.GRUCell(N), cell, XS, **F32),
}


@pytest.mark.parametrize("unroll", UNROLLS.values(), ids=UNROLLS)
@pytest.mark.parametrize("start", list(own_starts()))
@pytest.mark.parametrize("make", [lambda c: c, lambda c: cw.MultiRNNCell([c, cw.GRUCell(2)])], ids=["cell", "stack"])
def test_a_start_of_its_own_that_does_not_fit_raises_as_steps_do(start: Any, unroll: Any, make: Any) -> None:
    """A core that took it would read beyond its memory."""
    inner = OwnStart(N)
    cell = make(inner)
    cw.dynamic_rnn(cell, XS, **F32)
    inner.start = start
    with pytest.raises((ValueError, TypeError, AttributeError)) as stepwise, cw.use_backend("reference"):
        unroll(cell)
    with pytest.raises(stepwise.type) as woven:
        unroll(cell)
    assert str(woven.value) == str(stepwise.value)


@pytest.mark.parametrize("width", [N - 1, N + 1])
def test_a_start_of_its_own_that_does_not_fit_a_stepper(width: int) -> None:
    cell = OwnStart(N)
    cw.dynamic_rnn(cell, XS, **F32)
    cell.start = cw.LSTMStateTuple(torch.zeros(B, width), torch.zeros(B, width))
    with pytest.raises(cw.ShapeError, match="OwnStart: expected state"):
        cw.Stepper(cell, batch_size=B)(XS[:, 0])


def test_a_start_of_its_own_that_does_not_fit_is_said() -> None:
    cell = OwnStart(N)
    cw.dynamic_rnn(cell, XS, **F32)
    cell.start = cw.LSTMStateTuple(torch.zeros(1, N), torch.zeros(B, N))
    reason = r"the state that it starts from has a leaf \[1, 3\], by its state_size \[3, 3\]"
    with cw.use_backend("native"), pytest.raises(cw.BackendError, match=reason):
        cw.dynamic_rnn(cell, XS, **F32)
    cell.start = (torch.zeros(B, N), torch.zeros(B, N))
    with cw.use_backend("native"), pytest.raises(cw.BackendError, match="the state that it starts from is"):
        cw.dynamic_rnn(cell, XS, **F32)
