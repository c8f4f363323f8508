"""`cellweave inspect`: what a TF1 checkpoint holds, and the Python that loads it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cellweave.transfer import inspect_tf1


def inspect(
    path: Annotated[
        Path,
        typer.Argument(help="A checkpoint's prefix or file, a folder, a SavedModel, a .pb graph.", show_default=False),
    ],
    code: Annotated[bool, typer.Option("--code", help="Print the Python lines only.")] = False,
) -> None:
    """Show what a TensorFlow 1 checkpoint holds, and print the Python that builds and loads the model."""
    found = inspect_tf1(path)
    typer.echo(found.code.rstrip("\n") if code else str(found))
