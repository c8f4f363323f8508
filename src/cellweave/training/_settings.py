"""Settings of a language model and of its training: frozen, checked when made, written as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from cellweave._errors import ArgumentError

CELLS = ("lstm", "gru", "rnn")
LEVELS = ("char", "word")
OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULES = ("cosine", "plateau", "constant")

#: Epochs of a run whose settings name neither steps nor epochs.
DEFAULT_EPOCHS = 10

#: Settings by preset. `demo` learns from the standard library's own source text: its steps are fixed, so that every
#: machine trains the same model, and its seconds end the run early on a machine too slow for them. One thread: two
#: would be faster on an idle machine, and many times slower on a busy one, where threads wait for each other.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "demo": {
        "level": "char",
        "cell": "lstm",
        "layers": 1,
        "units": 256,
        "embedding": 64,
        "input_keep": 0.95,
        "output_keep": 0.95,
        "variational": True,
        "mask_per_row": True,
        "steps": 3000,
        "batch": 32,
        "time": 40,
        "optimizer": "adam",
        "lr": 1e-2,
        "schedule": "cosine",
        "warmup": 40,
        "validate_every": 250,
        "snapshot_every": 250,
        "max_seconds": 140.0,
        "threads": 1,
        "seed": 1,
    },
}


def _require_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ArgumentError(f"{name}: expected one of {', '.join(allowed)}, got {value!r}. Choose one of these.")


def _require_int(name: str, value: object, minimum: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ArgumentError(f"{name}: expected a whole number of at least {minimum}, got {value!r}.")


def _require_number(name: str, value: object, minimum: float, *, above: bool = False) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value < minimum or (above and value == minimum):  # type: ignore[operator]
        raise ArgumentError(
            f"{name}: expected a number {'above' if above else 'of at least'} {minimum:g}, got {value!r}."
        )


def _require_flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ArgumentError(f"{name}: expected true or false, got {value!r}.")


def _require_keep(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 < value <= 1.0:
        raise ArgumentError(
            f"{name}: expected a probability of keeping a value, above 0 and at most 1, got {value!r}. "
            "Use 1 for no dropout."
        )


@dataclass(frozen=True)
class ModelConfig:
    """What the language model is made of.

    Attributes:
        cell: "lstm", "gru" or "rnn". Default "lstm".
        layers: Recurrent layers, at least 1. Default 1.
        units: Units of each layer, H. Default 128.
        embedding: Width of the embedding, I. Default 64.
        input_keep, state_keep, output_keep: Probability of keeping an input, state or output value of a layer, in
            (0, 1]; 1 (the default) is no dropout.
        variational: One mask for all time steps of a window instead of a new one per step. Default False.
        mask_per_row: With `variational`, a mask per batch row instead of one shared by all. Default False.
        tied: The output layer uses the embedding's weights; needs `embedding == units`. Default False.
    Raises:
        ArgumentError: a value is outside what is allowed.
    """

    cell: str = "lstm"
    layers: int = 1
    units: int = 128
    embedding: int = 64
    input_keep: float = 1.0
    state_keep: float = 1.0
    output_keep: float = 1.0
    variational: bool = False
    mask_per_row: bool = False
    tied: bool = False

    def __post_init__(self) -> None:
        _require_choice("cell", self.cell, CELLS)
        for name in ("layers", "units", "embedding"):
            _require_int(name, getattr(self, name), 1)
        for name in ("input_keep", "state_keep", "output_keep"):
            _require_keep(name, getattr(self, name))
        for name in ("variational", "mask_per_row", "tied"):
            _require_flag(name, getattr(self, name))
        if self.mask_per_row and not self.variational:
            raise ArgumentError(
                "mask_per_row: expected variational dropout, got per-step dropout, whose masks differ per row anyway. "
                "Add variational or leave mask_per_row out."
            )
        if self.tied and self.embedding != self.units:
            raise ArgumentError(
                f"tied: expected as many embedding columns as units, got embedding {self.embedding} and units "
                f"{self.units}. Make them equal."
            )


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the bits of a training run.

    Attributes:
        model: The model.
        text: Path of the text file; None (the default) is the Python standard library's own source text.
        level: Tokens are characters ("char", the default) or words ("word").
        min_count: A token rarer than this in the training part becomes `<unk>`. Default None: 5 for characters, 2 for
            words.
        max_vocabulary: Most tokens kept, the commonest first. Default 10,000.
        max_characters: Characters read from the text. Default None: all of a file, 2,000,000 of the standard library.
        steps, epochs: Length of the run; at most one of the two. Default: 10 epochs.
        batch: Rows read side by side, B. Default 64.
        time: Steps of truncated backpropagation, T. Default 40.
        optimizer: "adam" (the default), "adamw" or "sgd".
        lr: Highest learning rate. Default 0.002.
        weight_decay: Of adamw. Default 0.01.
        schedule: "cosine" (the default; down to 5 % of `lr`), "plateau" (halved when validation gets no better) or
            "constant".
        warmup: Steps in which the learning rate rises to `lr`. Default 0.
        clip: Largest global norm of the gradients; 0 is no clipping. Default 1.
        validate_every: Steps between validations. Default None: once per epoch.
        snapshot_every: Steps between snapshots. Default 100.
        log_every: Steps between lines of the metrics file. Default 20.
        patience: Validations without improvement that end the run. Default None: never.
        max_seconds: Training seconds that end the run. Default None: no limit. The one setting that lets a machine's
            speed decide; a run that ends before it is repeatable.
        seed: Of weights and dropout, any whole number from 0. Default 0.
        threads: Threads of a computation; results depend on it in the last bits. Default None: torch's own number,
            which is written down at the start of the run.
    Raises:
        ArgumentError: a value is outside what is allowed.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    text: str | None = None
    level: str = "char"
    min_count: int | None = None
    max_vocabulary: int = 10_000
    max_characters: int | None = None
    steps: int | None = None
    epochs: int | None = None
    batch: int = 64
    time: int = 40
    optimizer: str = "adam"
    lr: float = 2e-3
    weight_decay: float = 0.01
    schedule: str = "cosine"
    warmup: int = 0
    clip: float = 1.0
    validate_every: int | None = None
    snapshot_every: int = 100
    log_every: int = 20
    patience: int | None = None
    max_seconds: float | None = None
    seed: int = 0
    threads: int | None = None

    def __post_init__(self) -> None:
        _require_choice("level", self.level, LEVELS)
        _require_choice("optimizer", self.optimizer, OPTIMIZERS)
        _require_choice("schedule", self.schedule, SCHEDULES)
        for name in ("batch", "time", "max_vocabulary", "snapshot_every", "log_every"):
            _require_int(name, getattr(self, name), 1)
        for name in ("min_count", "max_characters", "steps", "epochs", "validate_every", "patience", "threads"):
            if getattr(self, name) is not None:
                _require_int(name, getattr(self, name), 1)
        for name in ("warmup", "seed"):
            _require_int(name, getattr(self, name), 0)
        _require_number("lr", self.lr, 0.0, above=True)
        for name in ("clip", "weight_decay"):
            _require_number(name, getattr(self, name), 0.0)
        if self.max_seconds is not None:
            _require_number("max_seconds", self.max_seconds, 0.0, above=True)
        if self.steps is not None and self.epochs is not None:
            raise ArgumentError(
                f"steps: expected steps or epochs, got both, {self.steps} and {self.epochs}. Leave one out."
            )

    def to_settings(self) -> dict[str, Any]:
        """All settings as one flat dict, the model's among them; `make_config` reads it back."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "model"}
        return {f.name: getattr(self.model, f.name) for f in fields(self.model)} | own


_MODEL_SETTINGS = frozenset(f.name for f in fields(ModelConfig))
_RUN_SETTINGS = frozenset(f.name for f in fields(TrainConfig)) - {"model"}


def preset_settings(preset: str | None) -> dict[str, Any]:
    """The settings that a preset stands for; none for None.

    Raises:
        ArgumentError: no preset has this name.
    """
    if preset is None:
        return {}
    _require_choice("preset", preset, tuple(PRESETS))
    return dict(PRESETS[preset])


def make_config(settings: Mapping[str, Any]) -> TrainConfig:
    """A config from a flat dict of settings; what is missing takes its default.

    Args:
        settings: Values by name, the fields of `TrainConfig` and `ModelConfig` alike.
    Raises:
        ArgumentError: a name is unknown or a value is outside what is allowed.
    """
    unknown = sorted(set(settings) - _MODEL_SETTINGS - _RUN_SETTINGS)
    if unknown:
        known = ", ".join(sorted(_MODEL_SETTINGS | _RUN_SETTINGS))
        raise ArgumentError(f"settings: expected names among {known}, got {unknown[0]!r}.")
    model = ModelConfig(**{name: value for name, value in settings.items() if name in _MODEL_SETTINGS})
    return TrainConfig(model=model, **{name: value for name, value in settings.items() if name in _RUN_SETTINGS})
