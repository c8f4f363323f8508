"""`cellweave generate`: let a trained model write text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cellweave import training


def generate(
    run: Annotated[Path, typer.Argument(help="Folder of a trained run.", show_default=False)],
    prompt: Annotated[str, typer.Option(help="Text to go on from.")] = "",
    length: Annotated[int, typer.Option(help="Characters (or words) to write.")] = 400,
    temperature: Annotated[
        float, typer.Option(help="Below 1: safer text; above 1: wilder; 0: always the likeliest.")
    ] = 0.8,
    seed: Annotated[int, typer.Option(help="The same seed writes the same text.")] = 0,
) -> None:
    """Let a trained model write text after a prompt."""
    typer.echo(training.generate(run, prompt, length, temperature, seed))
