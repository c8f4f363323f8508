"""The installed version; pyproject.toml holds it."""

from importlib.metadata import version

__version__ = version("cellweave")
