"""Cells by class name, for wrappers' configs."""

from __future__ import annotations

from typing import Any

import pytest

import cellweave as cw
from cellweave import keras
from cellweave.cells import cell_config, cell_from_config


@pytest.mark.parametrize(
    "cell",
    [
        cw.BasicRNNCell(3, "relu"),
        cw.GRUCell(3, name="foo"),
        cw.BasicLSTMCell(3, 0.5),
        cw.LSTMCell(3, True, 0.5, num_proj=2),
        keras.SimpleRNNCell(3),
        keras.GRUCell(3, reset_after=False),
        keras.LSTMCell(3, unit_forget_bias=False),
        cw.DropoutWrapper(cw.GRUCell(3), 0.5, seed=3),
        cw.ResidualWrapper(cw.DeviceWrapper(cw.LSTMCell(3), "/cpu:0")),
        cw.RNNCellDropoutWrapper(keras.LSTMCell(3), 0.5, seed=3),
        cw.RNNCellResidualWrapper(cw.RNNCellDeviceWrapper(keras.GRUCell(3), "cpu")),
    ],
    ids=lambda cell: type(cell).__name__,
)
def test_round_trip(cell: Any) -> None:
    """The TF1 and the Keras cells share names; the config tells them apart."""
    data = cell_config(cell)
    assert data["class_name"] == type(cell).__name__
    other = cell_from_config(data, None, "here")
    assert type(other) is type(cell) and other is not cell
    assert cell_config(other) == data


class Own(cw.GRUCell):
    """A cell that nobody registered."""


def test_own_classes_come_from_custom_objects() -> None:
    data = cell_config(Own(3))
    with pytest.raises(cw.ArgumentError, match="here: expected a known cell class, got 'Own'.*custom_objects"):
        cell_from_config(data, None, "here")
    assert type(cell_from_config(data, {"Own": Own}, "here")) is Own


def test_custom_objects_come_first() -> None:
    assert type(cell_from_config(cell_config(cw.GRUCell(3)), {"GRUCell": Own}, "here")) is Own


@pytest.mark.parametrize(
    "data", [None, "GRUCell", {}, {"class_name": "GRUCell"}, {"class_name": "GRUCell", "config": 3}]
)
def test_malformed_data(data: Any) -> None:
    with pytest.raises(cw.ArgumentError, match="here: expected a cell's config"):
        cell_from_config(data, None, "here")
