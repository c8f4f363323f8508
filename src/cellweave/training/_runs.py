"""Training runs from start or snapshot to the finished folder."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from cellweave._errors import ArgumentTypeError, RunError
from cellweave.training._atomic import write_atomically
from cellweave.training._corpus import Corpus, load_corpus
from cellweave.training._curve import draw_curve, require_matplotlib
from cellweave.training._interrupt import InterruptFlag, InterruptRequested
from cellweave.training._metrics import bits_per_token, loss_fields, perplexity, read_metrics
from cellweave.training._run_folder import RunDescription, RunFolder
from cellweave.training._sampling import build_model, continue_text
from cellweave.training._settings import TrainConfig
from cellweave.training._trainer import Progress, Trainer, evaluate

#: Tokens of the sample by level, and how it is drawn.
_SAMPLE_LENGTH = {"char": 400, "word": 80}
_SAMPLE_TEMPERATURE = 0.8


@dataclass(frozen=True)
class TrainResult:
    """What a finished run achieved.

    Attributes:
        run: The run's folder.
        level: "char" or "word".
        step: Steps done. best_step: After how many of them validation was best.
        reason: Why it ended: "steps", "patience" or "seconds".
        seconds: Training time, resumed parts added up.
        loss_before, loss_after: Validation loss before the first step and of the best weights, nats per token.
        test_loss: Loss of the best weights on the last part of the text, nats per token.
        sample: Text that the best weights wrote.
    """

    run: Path
    level: str
    step: int
    best_step: int
    reason: str
    seconds: float
    loss_before: float
    loss_after: float
    test_loss: float
    sample: str

    @property
    def perplexity_before(self) -> float:
        """Validation perplexity before the first step."""
        return perplexity(self.loss_before)

    @property
    def perplexity_after(self) -> float:
        """Validation perplexity of the best weights."""
        return perplexity(self.loss_after)

    @property
    def bits_after(self) -> float:
        """Validation bits per token of the best weights."""
        return bits_per_token(self.loss_after)

    @property
    def curve(self) -> Path:
        """Path of the learning curve, PNG; the SVG lies beside it."""
        return RunFolder(self.run).curve_png


def _unobserved(progress: Progress) -> None:
    """Nobody watches the run."""


@contextmanager
def numerics(config: TrainConfig) -> Iterator[None]:
    """The run's threads and random numbers; the caller's come back afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads or threads)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _folder_errors(folder: RunFolder) -> Iterator[None]:
    """Tell which folder could not be written or read."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{folder}: expected to read and write there, got: {error.strerror} ({error.filename}). "
            "Free space or choose a folder that you may write to."
        ) from error


def _interrupted(folder: RunFolder, step: int) -> KeyboardInterrupt:
    command = f"cellweave train --resume --out {shlex.quote(str(folder.path))}"
    return KeyboardInterrupt(f"Interrupted after step {step}; the snapshot is saved. Continue: {command}")


def _finish(
    trainer: Trainer, config: TrainConfig, corpus: Corpus, folder: RunFolder, reason: str, flag: InterruptFlag
) -> TrainResult:
    """Judge the best weights, let them write, draw the curve. All of it is repeated when a resume finds it undone."""
    description = RunDescription(config, corpus.vocabulary, corpus.source, corpus.sha256)
    model = build_model(description, trainer.best_weights, str(folder.snapshot))
    test_loss = evaluate(model, corpus.test, config, flag.check)
    sample = continue_text(model, corpus.vocabulary, "", _SAMPLE_LENGTH[config.level], _SAMPLE_TEMPERATURE, config.seed)
    write_atomically(folder.sample, lambda file: file.write(sample.encode() + b"\n"))
    counters = trainer.counters
    values = {"reason": reason, "best_step": counters.best_step, **loss_fields(test_loss)}
    trainer.metrics.write("test", counters.step, {**values, "seconds": round(counters.seconds, 3)})
    trainer.metrics.sync()
    png, svg = draw_curve(
        read_metrics(folder.metrics), config.level, f"{Path(corpus.source).name}, {config.model.cell}"
    )
    write_atomically(folder.curve_png, lambda file: file.write(png))
    write_atomically(folder.curve_svg, lambda file: file.write(svg))
    return TrainResult(
        folder.path, config.level, counters.step, counters.best_step, reason, counters.seconds,
        counters.loss_before, counters.best_loss, test_loss, sample,
    )  # fmt: skip


def _run(
    config: TrainConfig,
    corpus: Corpus,
    folder: RunFolder,
    observe: Callable[[Progress], None],
    snapshot: dict[str, Any] | None,
) -> TrainResult:
    with numerics(config), InterruptFlag() as flag:
        trainer = Trainer(config, corpus, folder, flag, observe, snapshot)
        try:
            reason = trainer.run()
        except InterruptRequested as error:
            trainer.save()
            raise _interrupted(folder, trainer.counters.step) from error
        else:
            try:
                return _finish(trainer, config, corpus, folder, reason, flag)
            except InterruptRequested as error:
                raise _interrupted(folder, trainer.counters.step) from error
        finally:
            trainer.metrics.close()


def train(
    config: TrainConfig,
    out: str | Path,
    *,
    overwrite: bool = False,
    observe: Callable[[Progress], None] = _unobserved,
) -> TrainResult:
    """Train a language model and write everything about it into a folder.

    The folder gets `model.safetensors` (best weights by validation), `config.json`, `metrics.jsonl`, `curve.png`,
    `curve.svg`, `sample.txt` and `snapshot.pt`, from which `resume` goes on after any interruption.

    Args:
        config: Settings.
        out: The run's folder; made if it is missing.
        overwrite: Replace a run that the folder holds. Default False.
        observe: Is given a `Progress` after each step, metrics line and validation. Default: nobody.
    Returns:
        What was achieved.
    Raises:
        RunError: the text or the folder cannot be used, or the loss stopped being finite.
        ArgumentTypeError: another object than a `TrainConfig`.
        KeyboardInterrupt: Ctrl-C was pressed; the snapshot was saved, and the message says where.
    Numerics: the config decides every bit (but for `max_seconds`), on one machine and torch version. torch's default
        generator and thread count are the caller's again afterwards.
    """
    if not isinstance(config, TrainConfig):
        raise ArgumentTypeError(f"train: expected a TrainConfig, got {type(config).__name__}. Call make_config first.")
    require_matplotlib()
    folder = RunFolder(Path(out))
    text = None if config.text is None else str(Path(config.text).absolute())
    config = replace(config, text=text, threads=config.threads or torch.get_num_threads())
    corpus = load_corpus(config)
    with _folder_errors(folder):
        folder.create(overwrite=overwrite)
        folder.write_description(RunDescription(config, corpus.vocabulary, corpus.source, corpus.sha256))
        return _run(config, corpus, folder, observe, None)


def resume(
    out: str | Path,
    *,
    settings: Mapping[str, Any] | None = None,
    observe: Callable[[Progress], None] = _unobserved,
) -> TrainResult:
    """Go on with a run from its snapshot, to the same bits as if it had never stopped.

    Args:
        out: The run's folder. A finished run is judged and drawn again, and not trained further.
        settings: Settings by name that the caller believes the run to have; a run cannot change them. Default: none.
        observe: As for `train`.
    Returns:
        What was achieved.
    Raises:
        RunError: the folder holds no snapshot, a setting differs, or the text changed since the run began.
        KeyboardInterrupt: Ctrl-C was pressed; the snapshot was saved.
    """
    require_matplotlib()
    folder = RunFolder(Path(out))
    snapshot = folder.read_snapshot()
    description = folder.read_description()
    config = description.config
    _require_same_settings(folder, config, settings or {})
    corpus = load_corpus(config, description.vocabulary)
    if corpus.sha256 != description.sha256:
        raise RunError(
            f"{folder}: expected the text that the run began with, got a changed one ({corpus.source}). "
            "Restore the text, or train anew."
        )
    with _folder_errors(folder):
        return _run(config, corpus, folder, observe, snapshot)


def _require_same_settings(folder: RunFolder, config: TrainConfig, settings: Mapping[str, Any]) -> None:
    own = config.to_settings()
    for name, value in settings.items():
        wanted = str(Path(value).absolute()) if name == "text" and value is not None else value
        if name not in own or own[name] != wanted:
            raise RunError(
                f"{folder}: expected the run's own settings, got {name} {value!r} where the run has {own.get(name)!r}. "
                "Leave the option out to continue, or start a new run."
            )
