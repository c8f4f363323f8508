"""Cell classes by name, so that a wrapper's config can name the cell inside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from cellweave._errors import ArgumentError

_Class = TypeVar("_Class", bound=type[Any])
_classes: dict[str, list[type[Any]]] = {}


def register(cls: _Class) -> _Class:
    """Make a cell or wrapper class known under its name."""
    _classes.setdefault(cls.__name__, []).append(cls)
    return cls


def cell_config(cell: Any) -> dict[str, Any]:
    """A cell as plain data: its class's name and its config."""
    return {"class_name": type(cell).__name__, "config": cell.get_config()}


def cell_from_config(data: Any, custom_objects: Mapping[str, Any] | None, where: str, *, safe_mode: bool = True) -> Any:
    """The cell that `cell_config` described.

    Args:
        data: `{"class_name", "config"}`.
        custom_objects: The caller's own classes by name; they come first.
        safe_mode: Handed to the `from_config` of a wrapper.
    Raises:
        ArgumentError: malformed, or no such class.
    """
    if not isinstance(data, Mapping) or "class_name" not in data or not isinstance(data.get("config"), Mapping):
        raise ArgumentError(f"{where}: expected a cell's config {{'class_name', 'config'}}, got {data!r}.")
    name, config = data["class_name"], dict(data["config"])
    cls = (custom_objects or {}).get(name)
    if cls is None:
        known = _classes.get(name, [])
        keras_like = "units" in config  # TF1's and Keras's cells share names, not arguments
        cls = next((c for c in known if getattr(c, "is_keras_cell", False) is keras_like), None)
    if cls is None:
        raise ArgumentError(f"{where}: expected a known cell class, got {name!r}. Pass it in custom_objects.")
    if "cell" not in config:
        return cls.from_config(config)
    if getattr(cls, "config_needs_cell_object", False):
        config["cell"] = cell_from_config(config["cell"], custom_objects, where, safe_mode=safe_mode)
    return cls.from_config(config, custom_objects=custom_objects, safe_mode=safe_mode)
