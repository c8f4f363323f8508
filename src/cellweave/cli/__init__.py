"""The command line: `cellweave train`, `cellweave generate`, `cellweave doctor`."""

from cellweave.cli._main import main as main
