"""One call of a Model is one session run: what is drawn once, whose streams move (contract sections 6 and 10)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import cellweave as cw

N = 8
X, H = torch.ones(2, 4), torch.zeros(2, N)
SEQUENCE = torch.ones(2, 3, 4)


@pytest.fixture
def graph() -> Any:
    with cw.Graph() as opened:
        yield opened


def _wrapper(**kwargs: Any) -> Any:
    arguments = {"output_keep_prob": 0.5, "seed": 3, **kwargs}
    return cw.DropoutWrapper(cw.BasicRNNCell(N, activation=torch.sigmoid), **arguments)  # its outputs are never zero


def _mask(output: torch.Tensor) -> torch.Tensor:
    return output != 0


def _inputs() -> tuple[Any, Any]:
    return cw.Input((None, 4)), cw.Input((None, N))


class TestHandCalls:
    """Each recorded call is an op; a seed makes them start alike."""

    def _model(self, **kwargs: Any) -> Any:
        x, h = _inputs()
        cell = _wrapper(**kwargs)
        first, state = cell(x, h)
        second, _ = cell(x, state)
        return cell, cw.Model([x, h], [first, second])

    def test_equal_masks_within_a_run_new_ones_in_the_next(self, graph: Any) -> None:
        _, model = self._model()
        runs = [[_mask(out) for out in model(X, H)] for _ in range(3)]
        assert all(torch.equal(*run) for run in runs)
        assert not torch.equal(runs[0][0], runs[1][0])
        assert not torch.equal(runs[1][0], runs[2][0])

    def test_a_run_equals_calls_in_a_session_run(self, graph: Any) -> None:
        """What a Model draws is what the same calls draw eagerly, run for run."""
        _, model = self._model()
        runs = [[_mask(out) for out in model(X, H)] for _ in range(2)]
        eager = _wrapper()
        for run in runs:
            with cw.session_run():
                masks = [_mask(eager(X, H)[0]) for _ in range(2)]
            assert all(torch.equal(a, b) for a, b in zip(run, masks, strict=True))

    @pytest.mark.parametrize("graph_seed", [None, 5])
    def test_without_an_op_seed_they_differ(self, graph: Any, graph_seed: int | None) -> None:
        cw.set_random_seed(graph_seed)
        _, model = self._model(seed=None)
        first, second = (_mask(out) for out in model(X, H))
        assert not torch.equal(first, second)

    def test_the_graph_seed_makes_a_graph_repeat(self) -> None:
        runs = []
        for _ in range(2):
            with cw.Graph():
                cw.set_random_seed(5)
                _, model = self._model(seed=None)
            cw.set_random_seed(len(runs))  # the process's seed is another one
            runs.append([_mask(out) for _ in range(2) for out in model(X, H)])
        assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))

    def test_variational_masks_are_one_within_a_run(self, graph: Any) -> None:
        _, model = self._model(variational_recurrent=True, dtype="float32", seed=None)
        runs = [[_mask(out) for out in model(X, H)] for _ in range(2)]
        assert all(torch.equal(*run) for run in runs)
        assert torch.equal(runs[0][0][0], runs[0][0][1])  # and one for the whole batch
        assert not torch.equal(runs[0][0], runs[1][0])

    def test_two_models_in_a_session_run_share_them_too(self, graph: Any) -> None:
        x, h = _inputs()
        cell = _wrapper(variational_recurrent=True, dtype="float32")
        models = [cw.Model([x, h], cell(x, h)[0]) for _ in range(2)]
        with cw.session_run():
            first, second = (_mask(model(X, H)) for model in models)
        third = _mask(models[0](X, H))
        assert torch.equal(first, second)
        assert not torch.equal(first, third)


class TestUnrolls:
    def test_a_run_equals_the_unroll(self, graph: Any) -> None:
        x = cw.Input((None, None, 4))
        model = cw.Model(x, cw.dynamic_rnn(_wrapper(), x, dtype="float32")[0])
        runs = [_mask(model(SEQUENCE)) for _ in range(2)]
        eager = _wrapper()
        for run in runs:
            assert torch.equal(run, _mask(cw.dynamic_rnn(eager, SEQUENCE, dtype="float32", scope="eager")[0]))
        assert not torch.equal(runs[0][:, 0], runs[0][:, 1])
        assert not torch.equal(*runs)

    def test_two_unrolls_of_a_cell_are_two_ops(self, graph: Any) -> None:
        x = cw.Input((None, None, 4))
        cell = _wrapper()
        model = cw.Model(x, [cw.dynamic_rnn(cell, x, dtype="float32")[0] for _ in range(2)])
        runs = [[_mask(out) for out in model(SEQUENCE)] for _ in range(2)]
        assert all(torch.equal(*run) for run in runs)
        assert not torch.equal(runs[0][0], runs[1][0])

    def test_static_steps_are_an_op_each(self, graph: Any) -> None:
        x = cw.Input((None, 3, 4))
        model = cw.Model(x, cw.static_rnn(_wrapper(), x.unbind(1), dtype="float32")[0])
        masks = [_mask(out) for out in model(SEQUENCE)]
        assert torch.equal(masks[0], masks[1]) and torch.equal(masks[0], masks[2])

    def test_directions_have_streams_of_their_own(self, graph: Any) -> None:
        x = cw.Input((None, None, 4))
        (fw, bw), _ = cw.bidirectional_dynamic_rnn(_wrapper(), _wrapper(), x, dtype="float32")
        forward, backward = (_mask(out) for out in cw.Model(x, [fw, bw])(SEQUENCE))
        assert torch.equal(forward, backward.flip(1))

    def test_only_steps_that_run_draw(self, graph: Any) -> None:
        x, lengths = cw.Input((None, None, 4)), cw.Input((None,), dtype="int32")
        cell = _wrapper()
        model = cw.Model([x, lengths], cw.dynamic_rnn(cell, x, lengths, dtype="float32")[0])
        model(SEQUENCE, torch.tensor([1, 2], dtype=torch.int32))
        (row,) = cell.get_extra_state()
        assert row[6].item() == 2 * 2 * N * 256


class TestFetching:
    """A Model runs what its outputs need; other ops' streams stay where they are."""

    def test_a_subset_moves_only_its_own_streams(self, graph: Any) -> None:
        x, h = _inputs()
        one, other = _wrapper(), _wrapper(seed=4)
        a, b = one(x, h)[0], other(x, h)[0]
        both, first = cw.Model([x, h], [a, b]), cw.Model([x, h], a)
        first(X, H)
        first(X, H)
        assert len(one.get_extra_state()) == 1
        assert len(other.get_extra_state()) == 0
        found = _mask(both(X, H)[1])
        assert torch.equal(found, _mask(_fresh(lambda: _wrapper(seed=4))))

    def test_one_call_of_several(self, graph: Any) -> None:
        x, h = _inputs()
        cell = _wrapper()
        a, b = cell(x, h)[0], cell(x, h)[0]
        first, both = cw.Model([x, h], a), cw.Model([x, h], [a, b])
        first(X, H)
        masks = [_mask(out) for out in both(X, H)]
        assert not torch.equal(*masks)  # a is one run ahead
        assert torch.equal(masks[1], _mask(_fresh(_wrapper)))

    def test_the_second_of_two_calls_alone(self, graph: Any) -> None:
        """An op is known by its place in the graph, not by how many ran before it."""
        x, h = _inputs()
        cell = _wrapper()
        a, b = cell(x, h)[0], cell(x, h)[0]
        second, both = cw.Model([x, h], b), cw.Model([x, h], [a, b])
        second(X, H)
        masks = [_mask(out) for out in both(X, H)]
        assert torch.equal(masks[0], _mask(_fresh(_wrapper)))
        assert not torch.equal(*masks)

    def test_models_of_one_graph_are_one_session(self, graph: Any) -> None:
        x, h = _inputs()
        cell = _wrapper()
        out = cell(x, h)[0]
        models = [cw.Model([x, h], out), cw.Model([x, h], out * 2)]
        masks = [_mask(model(X, H)) for model in models]
        assert not torch.equal(*masks)


def _fresh(make: Callable[[], Any]) -> torch.Tensor:
    return make()(X, H)[0]


class TestState:
    def test_a_saved_model_draws_the_same_masks_again(self, graph: Any) -> None:
        x, h = _inputs()
        model = cw.Model([x, h], _wrapper(seed=None)(x, h)[0])
        model(X, H)
        state = {key: value.clone() for key, value in model.state_dict().items()}
        expected = [model(X, H) for _ in range(2)]
        model.load_state_dict(state)
        assert all(torch.equal(model(X, H), out) for out in expected)

    def test_into_a_model_recorded_anew(self) -> None:
        models = []
        for _ in range(2):
            with cw.Graph():
                x, h = _inputs()
                cell = _wrapper(seed=None)
                first, state = cell(x, h)
                models.append(cw.Model([x, h], [first, cell(x, state)[0]]))
        models[0](X, H)
        models[1].load_state_dict(models[0].state_dict())
        pairs = zip(models[0](X, H), models[1](X, H), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)

    def test_a_failing_run_leaves_no_run_open(self, graph: Any) -> None:
        x, y = cw.Input((None, 4)), cw.Input((None, 4))
        model = cw.Model([x, y], x + y)
        with pytest.raises(RuntimeError):
            model(X, torch.ones(7, 4))
        cell = _wrapper(variational_recurrent=True, dtype="float32", seed=None)
        assert not torch.equal(_mask(cell(X, H)[0]), _mask(cell(X, H)[0]))


class TestFedKeepProbs:
    @pytest.fixture
    def fed(self, graph: Any) -> Any:
        x, h = _inputs()
        keep = cw.Input((), name="keep")
        cell = _wrapper(output_keep_prob=keep)
        return cell, (x, h, keep), cell(x, h)[0]

    def test_the_value_of_each_run_counts(self, fed: Any) -> None:
        cell, inputs, out = fed
        model = cw.Model(list(inputs), out)
        assert torch.equal(model(X, H, torch.tensor(1.0)), cell.cell(X, H)[0])
        assert (model(X, H, torch.tensor(0.001)) == 0).float().mean() > 0.8

    def test_it_acts_in_eval_mode_too(self, fed: Any) -> None:
        _, inputs, out = fed
        model = cw.Model(list(inputs), out).eval()
        assert (model(X, H, torch.tensor(0.001)) == 0).any()

    def test_fed_one_draws_all_the_same(self, fed: Any) -> None:
        cell, inputs, out = fed
        cw.Model(list(inputs), out)(X, H, torch.tensor(1.0))
        assert cell.get_extra_state()[0, 6].item() == 2 * N * 256

    def test_it_takes_a_gradient(self, fed: Any) -> None:
        _, inputs, out = fed
        keep = torch.tensor(0.5, requires_grad=True)
        cw.Model(list(inputs), out)(X, H, keep).sum().backward()
        assert keep.grad is not None and keep.grad != 0

    def test_it_has_to_be_an_input(self, fed: Any) -> None:
        _, inputs, out = fed
        with pytest.raises(cw.ArgumentError, match="'keep'"):
            cw.Model(list(inputs[:2]), out)

    def test_an_eager_call_has_no_value_for_it(self, fed: Any) -> None:
        cell, _, _ = fed
        with pytest.raises(cw.ModeError, match=r"^keep: expected a value fed by a Model, got a call outside one"):
            cell(X, H)

    def test_inside_a_stack(self, graph: Any) -> None:
        x, low, high, keep = cw.Input((None, 4)), cw.Input((None, 4)), cw.Input((None, N)), cw.Input(())
        stack = cw.MultiRNNCell([cw.ResidualWrapper(cw.BasicRNNCell(4)), _wrapper(output_keep_prob=keep)])
        model = cw.Model([x, low, high, keep], stack(x, (low, high))[0])
        assert (model(X, torch.zeros(2, 4), H, torch.tensor(1.0)) != 0).all()
        assert (model(X, torch.zeros(2, 4), H, torch.tensor(0.001)) == 0).any()

    def test_inside_an_unroll_of_a_stack(self, graph: Any) -> None:
        x, keep = cw.Input((None, None, 4)), cw.Input(())
        stack = cw.MultiRNNCell([cw.BasicRNNCell(4), _wrapper(output_keep_prob=keep)])
        model = cw.Model([x, keep], cw.dynamic_rnn(stack, x, dtype="float32")[0])
        assert (model(SEQUENCE, torch.tensor(1.0)) != 0).all()
        assert (model(SEQUENCE, torch.tensor(0.001)) == 0).any()

    def test_of_each_kind(self, graph: Any) -> None:
        x, h = _inputs()
        keeps = [cw.Input(()) for _ in range(3)]
        cell = _wrapper(input_keep_prob=keeps[0], state_keep_prob=keeps[1], output_keep_prob=keeps[2])
        model = cw.Model([x, h, *keeps], cell(x, h))
        ones = [torch.tensor(1.0)] * 3
        out, state = model(X, H, *ones)
        assert torch.equal(out, state)
        for kind, changed in enumerate(("output", "state", "output")):
            fed = [torch.tensor(0.001) if index == kind else one for index, one in enumerate(ones)]
            found = dict(zip(("output", "state"), model(X, H, *fed), strict=True))
            assert not torch.equal(found[changed], out)
