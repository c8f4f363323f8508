"""The commands, put together."""

from __future__ import annotations

from typing import Annotated

import typer

from cellweave.cli._convert import convert
from cellweave.cli._doctor import doctor
from cellweave.cli._generate import generate
from cellweave.cli._inspect import inspect
from cellweave.cli._train import train
from cellweave.training import package_versions

#: What the parser raises on a wrong command line: `UsageError`, which lies elsewhere in each version of typer.
USAGE_ERRORS: tuple[type[BaseException], ...] = (typer.BadParameter.__bases__[0],)

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cellweave {package_versions()['cellweave']}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Recurrent cells with TensorFlow 1's API: look into its checkpoints, train a language model, and let it write."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


app.command()(train)
app.command()(generate)
app.command()(inspect)
app.command()(convert)
app.command()(doctor)
