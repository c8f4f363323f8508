"""`cellweave doctor`: what a bug report needs."""

from __future__ import annotations

import typer

from cellweave.training import describe_environment


def doctor() -> None:
    """Print versions, devices, and which backends are on or why they are off."""
    for title, lines in describe_environment().items():
        typer.echo(title)
        for name, text in lines.items():
            typer.echo(f"  {name:<12} {text}")
