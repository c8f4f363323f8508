"""What `print(model)` shows of layers."""

from __future__ import annotations

import pytest
import torch

import cellweave as cw


class OwnCell(cw.RNNCell):
    state_size = output_size = 3

    def call(self, inputs, state):
        return inputs, state


class OddCell(cw.GRUCell):
    def get_config(self):
        raise NotImplementedError


class TwiceAsWide(cw.LSTMCell):
    def __init__(self, half):
        super().__init__(2 * half, use_peepholes=True)


class NoModule:
    state_size = output_size = 3

    def zero_state(self, batch_size, dtype):
        return torch.zeros(batch_size, 3)

    def __call__(self, inputs, state):
        return inputs, state


@pytest.mark.parametrize(
    "cell, shown",
    [
        (lambda: cw.GRUCell(64), "GRUCell(64)"),
        (lambda: cw.GRUCell(64, activation="relu", name="g"), "GRUCell(64, activation='relu')"),
        (lambda: cw.BasicLSTMCell(3, 0.0), "BasicLSTMCell(3, forget_bias=0.0)"),
        (lambda: cw.LSTMCell(3, True, 1.5, num_proj=2), "LSTMCell(3, use_peepholes=True, cell_clip=1.5, num_proj=2)"),
        (lambda: cw.keras.GRUCell(3, reset_after=False), "GRUCell(3, reset_after=False)"),
        (lambda: cw.contrib.ConvLSTMCell(1, [8, 1], 4, [3]), "ConvLSTMCell(1, [8, 1], 4, [3])"),
        (lambda: TwiceAsWide(4), "TwiceAsWide(8, use_peepholes=True)"),
        (OwnCell, "OwnCell()"),
        (lambda: OddCell(3), "OddCell()"),
    ],
)
def test_a_cell_shows_its_size_and_options(cell, shown):
    assert repr(cell()) == shown


@pytest.mark.parametrize(
    "wrapper, first",
    [
        (lambda: cw.DropoutWrapper(cw.GRUCell(3), output_keep_prob=0.8, seed=1), "output_keep_prob=0.8, seed=1"),
        (lambda: cw.DropoutWrapper(OwnCell(), input_keep_prob=0.9), "input_keep_prob=0.9"),
        (lambda: cw.DropoutWrapper(cw.GRUCell(3), output_keep_prob=torch.tensor(0.8)), "(cell): GRUCell(3)"),
        (lambda: cw.DropoutWrapper(OddCell(3), output_keep_prob=0.8), "(cell): OddCell()"),
        (lambda: cw.ResidualWrapper(cw.GRUCell(3), lambda x, y: x), "(cell): GRUCell(3)"),
        (lambda: cw.contrib.InputProjectionWrapper(cw.GRUCell(3), 4), "num_proj=4"),
        (lambda: cw.RNNCellDropoutWrapper(cw.keras.GRUCell(3), 0.5), "input_keep_prob=0.5"),
        (lambda: cw.MultiRNNCell([cw.GRUCell(3)], state_is_tuple=False), "state_is_tuple=False"),
        (lambda: cw.CudnnLSTM(2, 3, direction="bidirectional"), "2, 3, direction='bidirectional'"),
    ],
)
def test_what_holds_cells_shows_its_own_options_first(wrapper, first):
    assert repr(wrapper()).splitlines()[1].strip() == first


@pytest.mark.parametrize("wrapper", [cw.DropoutWrapper, cw.ResidualWrapper, lambda cell: cw.MultiRNNCell([cell])])
def test_around_a_cell_that_is_no_module(wrapper):
    assert repr(wrapper(NoModule())).endswith("()")
