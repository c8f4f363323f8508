"""`cellweave train`: train a language model on a text file."""

from __future__ import annotations

import shlex
import shutil
import sys
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from cellweave import training
from cellweave.cli._main import EXIT_INTERRUPTED
from cellweave.cli._progress import show_progress

_DEFAULTS = training.TrainConfig().to_settings()
_MODEL = frozenset(field.name for field in fields(training.ModelConfig))
_TEXT = ("level", "min_count", "max_vocabulary", "max_characters")
_REASONS = {
    "steps": "all steps done",
    "patience": "validation stopped improving",
    "seconds": "the time limit was reached",
}


def _setting(name: str, text: str, *flags: str, default: str = "") -> Any:
    """An option for one setting; its default comes from the library, so that None means "not given"."""
    value = default or _DEFAULTS[name]
    shown = f" Default: {value}." if default or value is not None else ""
    panel = "Model" if name in _MODEL else "Text" if name in _TEXT else "Training"
    return typer.Option(*flags, help=text + shown, show_default=False, rich_help_panel=panel)


def train(
    text: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            help="Text file, UTF-8. Default: the Python standard library's source text.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("run"),
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in the folder, to the same bits.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in the folder.")] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Time a training step woven and step by step at the end.")
    ] = False,
    preset: Annotated[str | None, typer.Option(help="Settings by name: demo.", show_default=False)] = None,
    level: Annotated[str | None, _setting("level", "Tokens: char or word.")] = None,
    min_count: Annotated[
        int | None, _setting("min_count", "Rarer tokens become <unk>.", default="5 for char, 2 for word")
    ] = None,
    max_vocabulary: Annotated[int | None, _setting("max_vocabulary", "Most tokens kept.")] = None,
    max_characters: Annotated[
        int | None, _setting("max_characters", "Characters read.", default="all of a file")
    ] = None,
    cell: Annotated[str | None, _setting("cell", "lstm, gru or rnn.")] = None,
    layers: Annotated[int | None, _setting("layers", "Recurrent layers.")] = None,
    units: Annotated[int | None, _setting("units", "Units per layer.")] = None,
    embedding: Annotated[int | None, _setting("embedding", "Columns of the embedding.")] = None,
    tied: Annotated[
        bool | None,
        _setting("tied", "Output layer shares the embedding's weights.", "--tied/--untied", default="untied"),
    ] = None,
    input_keep: Annotated[float | None, _setting("input_keep", "Probability of keeping an input value.")] = None,
    state_keep: Annotated[float | None, _setting("state_keep", "Probability of keeping a state value.")] = None,
    output_keep: Annotated[float | None, _setting("output_keep", "Probability of keeping an output value.")] = None,
    variational: Annotated[
        bool | None,
        _setting(
            "variational",
            "One mask for all steps of a window, or one per step.",
            "--variational/--per-step",
            default="per step",
        ),
    ] = None,
    mask_per_row: Annotated[
        bool | None,
        _setting(
            "mask_per_row",
            "Variational masks per batch row, or shared by all.",
            "--mask-per-row/--mask-shared",
            default="shared",
        ),
    ] = None,
    steps: Annotated[int | None, _setting("steps", "Steps of the run.")] = None,
    epochs: Annotated[int | None, _setting("epochs", "Epochs of the run, instead of steps.", default="10")] = None,
    batch: Annotated[int | None, _setting("batch", "Rows read side by side.")] = None,
    time: Annotated[int | None, _setting("time", "Time steps of truncated backpropagation.")] = None,
    optimizer: Annotated[str | None, _setting("optimizer", "adam, adamw or sgd.")] = None,
    lr: Annotated[float | None, _setting("lr", "Highest learning rate.")] = None,
    weight_decay: Annotated[float | None, _setting("weight_decay", "Of adamw.")] = None,
    schedule: Annotated[
        str | None, _setting("schedule", "cosine, plateau (halve when validation is no better) or constant.")
    ] = None,
    warmup: Annotated[int | None, _setting("warmup", "Steps in which the learning rate rises.")] = None,
    clip: Annotated[float | None, _setting("clip", "Largest global gradient norm; 0: none.")] = None,
    validate_every: Annotated[
        int | None, _setting("validate_every", "Steps between validations.", default="an epoch")
    ] = None,
    snapshot_every: Annotated[int | None, _setting("snapshot_every", "Steps between snapshots.")] = None,
    log_every: Annotated[int | None, _setting("log_every", "Steps between lines of the metrics file.")] = None,
    patience: Annotated[int | None, _setting("patience", "Validations without improvement that end the run.")] = None,
    max_seconds: Annotated[float | None, _setting("max_seconds", "Training seconds that end the run.")] = None,
    seed: Annotated[int | None, _setting("seed", "Of weights and dropout.")] = None,
    threads: Annotated[int | None, _setting("threads", "Threads of a computation.", default="torch's number")] = None,
) -> None:
    """Train a language model; the folder gets model, metrics, learning curve, sample and snapshot."""
    given = {name: value for name, value in locals().items() if name in _DEFAULTS and value is not None}
    settings = training.preset_settings(preset) | given
    if "text" in given:
        settings["text"] = str(text)
    if "steps" in given or "epochs" in given:  # either replaces what a preset says
        settings = {name: value for name, value in settings.items() if name not in {"steps", "epochs"} - set(given)}
    if resume and overwrite:
        raise typer.BadParameter("--resume continues a run and --overwrite replaces it; give one of them")
    try:
        with show_progress(Console()) as observe:
            if resume:
                result = training.resume(out, settings=settings, observe=observe)
            else:
                result = training.train(training.make_config(settings), out, overwrite=overwrite, observe=observe)
    except KeyboardInterrupt as error:
        typer.echo(f"cellweave: {str(error) or 'Interrupted.'}", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from error
    _report(result)
    if compare:
        _report_engines(training.compare_engines(result.run))


def _report_engines(found: training.EngineComparison) -> None:
    typer.echo(f"\nPlan of the recurrent layers in a training step (T={found.steps}, B={found.rows}):\n{found.plan}")
    typer.echo(
        f"A training step takes {1000 * found.woven:.1f} ms woven and {1000 * found.stepwise:.1f} ms step by step: "
        f"{found.speed_up:.1f} times as fast (medians, measured just now)."
    )


def _report(result: training.TrainResult) -> None:
    unit = "character" if result.level == "char" else "word"
    typer.echo(f"\nSample:\n{result.sample}\n")
    typer.echo(f"Ended after {result.step} steps and {result.seconds:.0f} s: {_REASONS[result.reason]}.")
    typer.echo(
        f"Validation perplexity: {result.perplexity_before:.2f} before training, {result.perplexity_after:.2f} after "
        f"step {result.best_step}, which is {result.bits_after:.2f} bits per {unit}."
    )
    typer.echo(f"Learning curve: {result.curve} (and {result.curve.with_suffix('.svg').name})")
    here = sys.argv[0]  # a clone's .venv/bin/cellweave is not on the path
    program = here if here.endswith("/cellweave") and not shutil.which("cellweave") else "cellweave"
    typer.echo(f"Write more: {program} generate {shlex.quote(str(result.run))} --prompt TEXT")
