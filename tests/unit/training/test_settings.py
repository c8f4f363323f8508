"""Settings: checked when made, flat as JSON."""

from __future__ import annotations

import dataclasses
import json

import pytest

from cellweave import ArgumentError
from cellweave.training import ModelConfig, TrainConfig, make_config, preset_settings
from cellweave.training._settings import PRESETS


def test_defaults_are_valid_and_frozen():
    config = TrainConfig()
    assert config.model == ModelConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.lr = 1.0


def test_flat_settings_round_trip_through_json():
    config = make_config({"cell": "gru", "units": 9, "lr": 0.1, "text": "a.txt", "level": "word", "patience": 3})
    assert (config.model.cell, config.model.units, config.lr) == ("gru", 9, 0.1)
    assert make_config(json.loads(json.dumps(config.to_settings()))) == config


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_valid(preset):
    make_config(preset_settings(preset))


def test_preset_none_has_no_settings():
    assert preset_settings(None) == {}


@pytest.mark.parametrize(
    "settings, facts",
    [
        ({"cell": "gruu"}, "cell: expected one of lstm, gru, rnn, got 'gruu'"),
        ({"level": "byte"}, "level: expected one of char, word, got 'byte'"),
        ({"optimizer": "rmsprop"}, "optimizer: expected one of adam, adamw, sgd, got 'rmsprop'"),
        ({"schedule": "step"}, "schedule: expected one of cosine, plateau, constant, got 'step'"),
        ({"units": 0}, "units: expected a whole number of at least 1, got 0"),
        ({"layers": True}, "layers: expected a whole number of at least 1, got True"),
        ({"embedding": 2.5}, "embedding: expected a whole number of at least 1, got 2.5"),
        ({"input_keep": 0.0}, "input_keep: expected a probability .* got 0.0"),
        ({"state_keep": 1.5}, "state_keep: expected a probability .* got 1.5"),
        ({"output_keep": float("nan")}, "output_keep: expected a probability .* got nan"),
        ({"variational": 1}, "variational: expected true or false, got 1"),
        ({"mask_per_row": True}, "mask_per_row: expected variational dropout, got per-step"),
        ({"tied": True, "units": 8, "embedding": 9}, "tied: expected .* got embedding 9 and units 8"),
        ({"batch": 0}, "batch: expected a whole number of at least 1, got 0"),
        ({"time": -1}, "time: expected a whole number of at least 1, got -1"),
        ({"steps": 0}, "steps: expected a whole number of at least 1, got 0"),
        ({"steps": 5, "epochs": 1}, "steps: expected steps or epochs, got both, 5 and 1"),
        ({"warmup": -1}, "warmup: expected a whole number of at least 0, got -1"),
        ({"seed": -1}, "seed: expected a whole number of at least 0, got -1"),
        ({"lr": 0}, "lr: expected a number above 0, got 0"),
        ({"lr": float("inf")}, "lr: expected a number above 0, got inf"),
        ({"clip": -1.0}, "clip: expected a number of at least 0, got -1.0"),
        ({"max_seconds": 0.0}, "max_seconds: expected a number above 0, got 0.0"),
        ({"threads": 0}, "threads: expected a whole number of at least 1, got 0"),
        ({"patience": 0}, "patience: expected a whole number of at least 1, got 0"),
        ({"unit": 3}, "settings: expected names among .*units.*, got 'unit'"),
    ],
)
def test_a_value_outside_what_is_allowed_is_named(settings, facts):
    with pytest.raises(ArgumentError, match=facts):
        make_config(settings)


def test_unknown_preset():
    with pytest.raises(ArgumentError, match="preset: expected one of demo, got 'fast'"):
        preset_settings("fast")
