"""The command line: `cellweave train`, `generate`, `inspect`, `convert`, `doctor`."""

from cellweave.cli._main import main as main
