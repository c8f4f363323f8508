"""Entry of the command line: errors become one line and an exit code."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cellweave._errors import CellweaveError

#: Exit codes: a wrong input, and Ctrl-C as shells report it (128 + SIGINT).
EXIT_WRONG_INPUT = 2
EXIT_INTERRUPTED = 130


def _complain(line: str) -> None:
    print(f"cellweave: {' '.join(line.split())}", file=sys.stderr)


@contextmanager
def _escaped() -> Iterator[None]:
    """Characters that the output's encoding lacks are written as escapes of Python's strings, not refused."""
    stream = sys.stdout
    if not isinstance(stream, io.TextIOWrapper) or stream.errors != "strict":
        yield
        return
    stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        if not stream.closed:
            stream.reconfigure(errors="strict")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name. Default: the process's own.
    Returns:
        Exit code: 0, 2 after a wrong input (one line on stderr says what was expected, what was got, what to do), 130
        after Ctrl-C.
    """
    try:
        from cellweave.cli._app import USAGE_ERRORS, app
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich", "safetensors"):
            raise
        _complain(
            f"command line: expected the package {error.name}, got none. Install it: pip install 'cellweave[train]'"
        )
        return EXIT_WRONG_INPUT
    try:
        with _escaped():
            code = app(args=None if argv is None else list(argv), prog_name="cellweave", standalone_mode=False)
    except USAGE_ERRORS as error:
        message = getattr(error, "format_message", error.__str__)().rstrip(".")
        context = getattr(error, "ctx", None)
        command = "cellweave" if context is None else context.command_path
        _complain(f"command line: expected a command and options that it has, got: {message}. See {command} --help.")
        return EXIT_WRONG_INPUT
    except CellweaveError as error:
        _complain(str(error))
        return EXIT_WRONG_INPUT
    except OSError as error:
        if error.filename is None:  # no file, so what it prints to
            _complain(f"output: expected to write to it, got: {error.strerror}.")
        else:
            _complain(
                f"{error.filename}: expected to read or write it, got: {error.strerror}. Check the path and its rights."
            )
        return EXIT_WRONG_INPUT
    except KeyboardInterrupt as error:
        _complain(str(error) or "Interrupted.")
        return EXIT_INTERRUPTED
    return code if isinstance(code, int) else 0
