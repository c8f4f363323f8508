"""What is particular to single cells of contrib."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import cellweave as cw
from cellweave import contrib
from helpers.tolerances import assert_close
from oracles import contrib as oracles
from oracles.contrib import LSTMVariant
from oracles.philox import uniform
from oracles.tf1 import LSTMState

B, D, N = 3, 4, 5


@pytest.mark.parametrize("bound", [None, 0, 0.0, -1, -0.5])
def test_a_bound_that_is_not_above_zero_is_none(bound: Any) -> None:
    assert contrib.LSTMBlockCell(N, cell_clip=bound).spec().cell_clip is None


def test_block_gru_takes_one_of_two_sizes() -> None:
    assert contrib.GRUBlockCell(cell_size=N).state_size == contrib.GRUBlockCellV2(num_units=N).output_size == N
    for sizes in ({}, {"num_units": N, "cell_size": N}):
        with pytest.raises(cw.ArgumentError, match="GRUBlockCell: expected one of num_units and cell_size"):
            contrib.GRUBlockCell(**sizes)


def test_block_cells_share_a_name_with_the_plain_ones() -> None:
    """As in TF1, where a checkpoint of one loads into the other."""
    with cw.VariableStore() as store:
        cw.dynamic_rnn(contrib.LSTMBlockCell(N), torch.zeros(2, 3, D), dtype="float32")
        with cw.variable_scope(cw.get_variable_scope(), reuse=True):
            cw.dynamic_rnn(cw.LSTMCell(N), torch.zeros(2, 3, D), dtype="float32")
    assert list(store.variables) == ["rnn/lstm_cell/kernel", "rnn/lstm_cell/bias"]


def test_starting_values_of_normalizations_and_biases() -> None:
    cell = contrib.LayerNormBasicLSTMCell(N, norm_gain=0.5, norm_shift=0.25)
    plain = contrib.LayerNormBasicLSTMCell(200, layer_norm=False)
    with cw.variable_scope("scope", initializer=cw.initializers.Constant(7.0)):
        cell.build([B, D])
    plain.build([B, D])
    assert (cell.kernel == 7).all()
    assert (cell.input_gamma == 0.5).all() and (cell.state_gamma == 0.5).all()
    assert (cell.input_beta == 0.25).all() and (cell.state_beta == 0.25).all()
    bound = (6 / (800 + 800)) ** 0.5  # the bias of the cell without normalization starts by Glorot's rule
    assert bound / 2 < float(plain.bias.detach().abs().max()) <= bound


def test_a_scope_initializer_reaches_the_bias_without_normalization() -> None:
    cell = contrib.LayerNormBasicLSTMCell(N, layer_norm=False)
    with cw.variable_scope("scope", initializer=cw.initializers.Constant(7.0)):
        cell.build([B, D])
    assert (cell.bias == 7).all()


def test_half_precision_normalizes_with_a_larger_epsilon() -> None:
    cell = contrib.LayerNormBasicLSTMCell(N, dtype="float16")
    out, state = cell(torch.zeros(B, D).half(), (torch.zeros(B, N).half(), torch.zeros(B, N).half()))
    assert out.dtype == torch.float16 and torch.isfinite(out).all() and torch.isfinite(state.c).all()


class TestRecurrentDropout:
    """Masks on act(j), drawn by one op per cell."""

    def _cell(self, rng: np.random.Generator) -> tuple[Any, LSTMVariant]:
        cell = contrib.LayerNormBasicLSTMCell(N, dropout_keep_prob=0.6, dropout_prob_seed=11, dtype="float64")
        cell.build([B, D])
        oracle = LSTMVariant(D, N, layer_norm=True)
        oracle.set_weights({k: rng.uniform(-0.8, 0.8, size=s) for k, s in oracle.shapes.items()})
        cell.set_weights(list(oracle.weights.values()))
        return cell, oracle

    def _expected(self, oracle: LSTMVariant, x: np.ndarray, steps: range, state: LSTMState) -> list[np.ndarray]:
        """Steps whose candidate is dropped by the op's own stream: 256 blocks an element and step."""
        outputs = []
        for t in steps:
            noise = uniform((B, N), "float64", 87654321, 11, 256 * B * N * t)
            oracle.options["candidate_factor"] = np.where(noise >= 1 - 0.6, 1 / 0.6, 0.0)
            out, state, _ = oracle.forward(x[t], state)
            outputs.append(out)
        return outputs

    def test_masks_in_an_unroll_and_in_the_next(self, rng: np.random.Generator) -> None:
        cell, oracle = self._cell(rng)
        x = rng.normal(size=(8, B, D))
        zeros = LSTMState(np.zeros((B, N)), np.zeros((B, N)))
        for run in (0, 1):
            steps = range(4 * run, 4 * run + 4)
            want = self._expected(oracle, x, steps, zeros)
            out, _ = cw.dynamic_rnn(cell, torch.tensor(x[steps.start : steps.stop]), dtype="float64", time_major=True)
            assert_close(f"run {run}", out, np.stack(want), 1e-12)

    def test_steps_past_every_row_draw_nothing(self, rng: np.random.Generator) -> None:
        long, _ = self._cell(rng)
        short = contrib.LayerNormBasicLSTMCell.from_config(long.get_config())
        short.load_state_dict(long.state_dict())
        x = torch.tensor(rng.normal(size=(B, 6, D)))
        cw.dynamic_rnn(long, x, [2, 1, 0], dtype="float64")
        cw.dynamic_rnn(short, x[:, :2], dtype="float64")
        assert torch.equal(long.get_extra_state(), short.get_extra_state()) and len(long.get_extra_state()) == 1

    def test_a_state_dict_goes_on_where_it_was(self, rng: np.random.Generator) -> None:
        cell, _ = self._cell(rng)
        x = torch.tensor(rng.normal(size=(B, 5, D)))
        cw.dynamic_rnn(cell, x, dtype="float64")
        other = contrib.LayerNormBasicLSTMCell.from_config(cell.get_config())
        other.load_state_dict(cell.state_dict())
        assert torch.equal(cw.dynamic_rnn(other, x, dtype="float64")[0], cw.dynamic_rnn(cell, x, dtype="float64")[0])

    def test_evaluation_drops_nothing_and_can_be_planned(self, rng: np.random.Generator) -> None:
        cell, oracle = self._cell(rng)
        assert cell.spec().reason == "its dropout acts inside a step"
        cell.eval()
        x, c, h = rng.normal(size=(B, D)), rng.normal(size=(B, N)), rng.normal(size=(B, N))
        want, _, _ = oracle.forward(x, LSTMState(c, h))
        assert_close("output", cell(torch.tensor(x), (torch.tensor(c), torch.tensor(h)))[0], want, 1e-13)
        assert cell.spec().layer_norm

    def test_a_tensor_probability_is_fed(self, rng: np.random.Generator) -> None:
        keep = torch.tensor(1.0, dtype=torch.float64)
        cell, _ = self._cell(rng)
        fed = contrib.LayerNormBasicLSTMCell(N, dropout_keep_prob=keep, dropout_prob_seed=11, dtype="float64")
        fed.build([B, D])
        fed.set_weights(cell.get_weights())
        cell.eval()
        x = torch.tensor(rng.normal(size=(B, D)))
        state = (torch.zeros(B, N, dtype=torch.float64), torch.zeros(B, N, dtype=torch.float64))
        assert_close("all kept", fed(x, state)[0], cell(x, state)[0], 1e-13)
        assert len(fed.get_extra_state()) == 1  # numbers were drawn all the same
        keep.fill_(0.6)
        assert not torch.equal(fed(x, state)[1].c, cell(x, state)[1].c)

    @pytest.mark.parametrize("keep", [-0.1, 1.5])
    def test_other_probabilities(self, keep: float) -> None:
        with pytest.raises(cw.ArgumentError, match="dropout_keep_prob: expected a probability"):
            contrib.LayerNormBasicLSTMCell(N, dropout_keep_prob=keep)


def test_coupled_matrices_in_several_variables(rng: np.random.Generator) -> None:
    whole = contrib.CoupledInputForgetGateLSTMCell(N, num_proj=3, dtype="float64")
    cut = contrib.CoupledInputForgetGateLSTMCell(
        N, num_proj=3, num_unit_shards=3, num_proj_shards=2, state_is_tuple=False, dtype="float64"
    )
    whole.build([B, D])
    cut.build([B, D])
    scope = "coupled_input_forget_gate_lstm_cell"
    shapes = {name: tuple(value.shape) for name, value in cw.variable_names(cut).items()}
    assert shapes == {
        f"{scope}/W_0": (3, 15), f"{scope}/W_1": (2, 15), f"{scope}/W_2": (2, 15), f"{scope}/B": (15,),
        f"{scope}/W_P_0": (3, 3), f"{scope}/W_P_1": (2, 3),
    }  # fmt: skip
    kernel, bias, projection = whole.get_weights()
    cut.set_weights([*np.split(kernel, [3, 5]), bias, *np.split(projection, [3])])
    x, c, h = (torch.tensor(rng.normal(size=(B, k))) for k in (D, N, 3))
    out, state = cut(x, torch.cat([c, h], dim=1))
    want, pair = whole(x, (c, h))
    assert torch.equal(out, want) and torch.equal(state, torch.cat(list(pair), dim=1))
    with pytest.raises(cw.ShapeError, match=r"expected inputs \[B, 4\]"):
        cut(x[:, :3], torch.cat([c, h], dim=1))
    with pytest.raises(cw.ArgumentError, match="at most 5 shards of a matrix of 5 rows, got 6"):
        contrib.CoupledInputForgetGateLSTMCell(N, num_proj=3, num_proj_shards=6).build([B, D])


def test_coupled_bias_exists_and_is_not_added_under_normalization() -> None:
    cell = contrib.CoupledInputForgetGateLSTMCell(N, layer_norm=True, use_peepholes=True)
    cell.build([B, D])
    names = [name.split("/", 1)[1] for name in cw.variable_names(cell)]
    assert names == [
        "W_0", "B", "transform/gamma", "transform/beta", "forget/gamma", "forget/beta", "output/gamma", "output/beta",
        "W_F_diag", "W_O_diag", "state/gamma", "state/beta",
    ]  # fmt: skip
    x, state = torch.randn(B, D), (torch.randn(B, N), torch.randn(B, N))
    before = cell(x, state)[0]
    with torch.no_grad():
        cell.B += 1
    assert torch.equal(cell(x, state)[0], before)


def test_intersection_needs_inputs_as_wide_as_its_units() -> None:
    with pytest.raises(cw.ShapeError, match=r"expected inputs \[B, 5\].*got depth 4.*num_in_proj"):
        contrib.IntersectionRNNCell(N)(torch.zeros(B, D), torch.zeros(B, N))
    cell = contrib.IntersectionRNNCell(1)
    cell(torch.zeros(B, 1), torch.zeros(B, 1))
    assert [tuple(weight.shape) for weight in cell.weights] == [(2, 4), (4,)]


@pytest.mark.parametrize("kind", [contrib.UGRNNCell, contrib.IntersectionRNNCell])
def test_initializer_is_that_of_the_kernels(kind: Any) -> None:
    cell = kind(D, initializer=cw.initializers.Constant(3.0))
    cell.build([B, D])
    assert (cell.kernel == 3).all() and (cell.bias == 0).all()


@pytest.mark.parametrize("kind", [contrib.IndRNNCell, contrib.IndyGRUCell, contrib.IndyLSTMCell])
def test_diagonals_start_between_minus_one_and_one(kind: Any) -> None:
    cell = kind(400)
    cell.build([B, D])
    diagonals = [value.detach() for name, value in cell.named_weights().items() if name.endswith("kernel_u")]
    assert diagonals and all(0.9 < float(value.abs().max()) <= 1 and abs(value.mean()) < 0.2 for value in diagonals)


def test_indy_gru_biases() -> None:
    cell = contrib.IndyGRUCell(N)
    cell.build([B, D])
    assert (cell.gates_bias == 1).all() and (cell.candidate_bias == 0).all()
    other = contrib.IndyGRUCell(N, bias_initializer="zeros", kernel_initializer="ones")
    other.build([B, D])
    assert (other.gates_bias == 0).all() and (other.gates_kernel_w == 1).all() and (other.candidate_kernel == 1).all()


class TestPhased:
    """Inputs of times and features."""

    @pytest.mark.parametrize("peepholes", [False, True])
    def test_against_the_oracle(self, peepholes: bool, rng: np.random.Generator) -> None:
        cell = contrib.PhasedLSTMCell(N, peepholes, leak=0.05, ratio_on=0.3, dtype="float64")
        cell.build([B, D])
        weights = {name: rng.uniform(-0.8, 0.8, size=tuple(w.shape)) for name, w in cell.named_weights().items()}
        weights |= {"period": rng.uniform(1, 3, N), "phase": rng.uniform(0, 1, N), "ratio_on": rng.uniform(0.2, 0.6, N)}
        cell.set_weights(list(weights.values()))
        x, c, h = rng.normal(size=(7, B, D)), rng.normal(size=(B, N)), rng.normal(size=(B, N))
        times = np.cumsum(rng.uniform(0, 1, size=(7, B, 1)), axis=0) - 1.0
        start = cw.LSTMStateTuple(torch.tensor(c), torch.tensor(h))
        inputs = (torch.tensor(times), torch.tensor(x))
        out, state = cw.dynamic_rnn(cell, inputs, initial_state=start, time_major=True)
        for t in range(7):
            c, h = oracles.phased_lstm(weights, times[t], x[t], c, h, leak=0.05, peepholes=peepholes)
            assert_close(f"step {t}", out[t], h, 1e-12)
        assert_close("c", state.c, c, 1e-12)
        assert [name.removeprefix("phased_lstm_cell/") for name in cw.variable_names(cell)] == [
            "mask_gates/kernel", "mask_gates/bias", "new_input/kernel", "new_input/bias", "output_gate/kernel",
            "output_gate/bias", "period", "phase", "ratio_on",
        ]  # fmt: skip

    def test_gradients(self, rng: np.random.Generator) -> None:
        """But that to the period through the modulus, of which there is none: it is held here."""
        cell = contrib.PhasedLSTMCell(N, True, dtype="float64", period_init_max=3.0, ratio_on=0.4)
        cell.build([2, D])
        weights = {key: value for key, value in cell.named_parameters() if key != "period"}
        time = torch.tensor([[0.37], [1.61]], dtype=torch.float64).requires_grad_()
        x, c, h = (torch.tensor(rng.normal(size=(2, k))).requires_grad_() for k in (D, N, N))

        def run(time: torch.Tensor, x: torch.Tensor, c: torch.Tensor, h: torch.Tensor, *rest: torch.Tensor) -> Any:
            given = dict(zip(weights, rest, strict=True))
            out, state = torch.func.functional_call(cell, given, ((time, x), (c, h)))
            return out, state.c

        torch.autograd.gradcheck(run, (time, x, c, h, *weights.values()))

    def test_times_may_be_wider_than_features(self) -> None:
        cell = contrib.PhasedLSTMCell(N)
        times = 1e9 + torch.arange(3, dtype=torch.float64).reshape(1, 3, 1) / 7
        out, state = cw.dynamic_rnn(cell, (times.expand(B, 3, 1), torch.randn(B, 3, D)), dtype="float32")
        assert out.dtype == state.c.dtype == cell.period.dtype == torch.float32

    def test_starting_values(self) -> None:
        cell = contrib.PhasedLSTMCell(500, period_init_min=2.0, period_init_max=50.0, trainable_ratio_on=False)
        cell.build([B, D])
        logs = cell.period.detach().log()
        assert 2 <= float(logs.exp().min()) < 2.5 and 40 < float(logs.exp().max()) <= 50
        assert abs(float(logs.mean()) - (np.log(2) + np.log(50)) / 2) < 0.2
        assert ((cell.phase >= 0) & (cell.phase < cell.period)).all() and bool((cell.phase > 0.9 * cell.period).any())
        assert torch.allclose(cell.ratio_on, torch.tensor(0.1)) and not cell.ratio_on.requires_grad
        assert cell.ratio_on is cell.non_trainable_weights[0]

    def test_inputs_that_are_no_pair(self) -> None:
        state = (torch.zeros(B, N), torch.zeros(B, N))
        with pytest.raises(cw.ArgumentTypeError, match="expected inputs as a pair"):
            contrib.PhasedLSTMCell(N)(torch.zeros(B, D), state)
        with pytest.raises(cw.ShapeError, match=r"expected times \[3, 1\]"):
            contrib.PhasedLSTMCell(N)((torch.zeros(B, 2), torch.zeros(B, D)), state)


class TestConvLSTM:
    """States as images."""

    @pytest.mark.parametrize(
        "axes, space, window", [(1, [5], [3]), (1, [4], [2]), (2, [4, 3], [3, 2]), (3, [3, 2, 4], [1, 2, 3])], ids=str
    )
    @pytest.mark.parametrize("use_bias", [False, True])
    def test_against_the_oracle(
        self, axes: int, space: list[int], window: list[int], use_bias: bool, rng: np.random.Generator
    ) -> None:
        cell = contrib.ConvLSTMCell(axes, [*space, 2], 3, window, use_bias, forget_bias=0.4, dtype="float64")
        cell.build([B, *space, 2])
        names = ["kernel", "biases"] if use_bias else ["kernel"]
        weights = {name: rng.normal(size=tuple(getattr(cell, name).shape)) for name in names}
        cell.set_weights(list(weights.values()))
        x, c, h = (rng.normal(size=(B, *space, k)) for k in (2, 3, 3))
        want_c, want_h = oracles.conv_lstm(weights, x, c, h, forget_bias=0.4)
        out, state = cell(torch.tensor(x), (torch.tensor(c), torch.tensor(h)))
        assert_close("c", state.c, want_c, 1e-12)
        assert_close("h", out, want_h, 1e-12)
        assert list(cw.variable_names(cell)) == [f"conv_lstm_cell/{name}" for name in names]

    @pytest.mark.parametrize("axes", [1, 2, 3])
    def test_by_the_number_of_axes(self, axes: int) -> None:
        kind = getattr(contrib, f"Conv{axes}DLSTMCell")
        cell = kind(input_shape=[4] * axes + [2], output_channels=3, kernel_shape=[3] * axes)
        out, state = cw.dynamic_rnn(cell, torch.randn(2, 5, *[4] * axes, 2), [5, 0], dtype="float32")
        assert out.shape == (2, 5, *[4] * axes, 3) and not out[1].any() and not state.h[1].any()
        assert list(cw.variable_names(cell)) == [f"rnn/conv_{axes}d_lstm_cell/{name}" for name in ("kernel", "biases")]
        again = kind.from_config(cell.get_config())
        assert again.get_config() == cell.get_config()
        assert "no backend knows its recurrence" in cell.spec().reason

    def test_skip_connection(self) -> None:
        """TF1's state kept the inputs as well, which no second step took; here a sequence runs."""
        options = {"input_shape": (4, 3, 2), "output_channels": 3, "kernel_shape": (3, 3)}
        skipping, plain = contrib.Conv2DLSTMCell(skip_connection=True, **options), contrib.Conv2DLSTMCell(**options)
        x = torch.randn(2, 5, 4, 3, 2)
        out, state = cw.dynamic_rnn(skipping, x, dtype="float32")
        plain.build([None, 4, 3, 2])
        plain.load_state_dict(skipping.state_dict())
        want, want_state = cw.dynamic_rnn(plain, x, dtype="float32")
        assert torch.equal(out, torch.cat([want, x], dim=-1)) and torch.equal(state.h, want_state.h)

    def test_errors(self) -> None:
        with pytest.raises(cw.ArgumentError, match=r"input_shape of 3 sizes, got \[4, 2\]"):
            contrib.ConvLSTMCell(2, [4, 2], 3, [3, 3])
        with pytest.raises(cw.ArgumentError, match=r"kernel_shape of 2 sizes, got \[3\]"):
            contrib.ConvLSTMCell(2, [4, 4, 2], 3, [3])
        with pytest.raises(cw.ArgumentError, match="conv_ndims 1, 2 or 3, got 4"):
            contrib.ConvLSTMCell(4, [4, 4, 4, 4, 2], 3, [3] * 4)
        cell = contrib.ConvLSTMCell(1, [4, 2], 3, [3])
        state = cell.zero_state(B, "float32")
        with pytest.raises(cw.ShapeError, match=r"expected inputs \[B, 4, 2\], got \[3, 5, 2\]"):
            cell(torch.zeros(B, 5, 2), state)
        with pytest.raises(cw.ShapeError, match=r"expected state h \[B, 4, 3\]"):
            cell(torch.zeros(B, 4, 2), (state.c, state.h[:, :2]))
