"""`cellweave convert`: a TF1 checkpoint in another format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cellweave.transfer import convert_tf1


def convert(
    path: Annotated[Path, typer.Argument(help="As for inspect.", show_default=False)],
    to: Annotated[str, typer.Option(help="safetensors, torch or tf1.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="The new file; a prefix for tf1.", show_default=False)],
    everything: Annotated[
        bool, typer.Option("--everything", help="Optimizer slots, averages and counters, too.")
    ] = False,
    stored_names: Annotated[
        bool, typer.Option("--stored-names", help="Keep the keys; default: names as TF 1.2 and later spell them.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier file.")] = False,
) -> None:
    """Write the variables of a TensorFlow 1 checkpoint as safetensors, as a torch file, or as a new checkpoint."""
    done = convert_tf1(path, out, to=to, everything=everything, stored_names=stored_names, overwrite=overwrite)
    left = f", {len(done.left)} left (see cellweave inspect)" if done.left else ""
    typer.echo(f"{done.path}: {len(done.names)} tensors{left}")
