"""Programs that `inspect_tf1` prints, run as a user would who pasted them into a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

import cellweave as cw


def run_printed(path: Path, folder: Path, edit: dict[str, str] | None = None) -> dict[str, Any]:
    """The names that the program defines; the part or model it builds stands under `model`."""
    code = cw.inspect_tf1(path).code
    for before, after in (edit or {}).items():
        assert before in code, f"{before!r} is not in the program:\n{code}"
        code = code.replace(before, after)
    file = folder / "pasted.py"
    file.write_text(code, encoding="utf-8")
    names: dict[str, Any] = {"__name__": "pasted"}
    exec(compile(file.read_text(encoding="utf-8"), str(file), "exec"), names)
    if "report" in names:
        built = [value for name, value in names.items() if isinstance(value, nn.Module) and not name.startswith("_")]
        names.setdefault("model", built[0])
    return names


def part(names: dict[str, Any], name: str) -> Any:
    """A part of the built model by its name; the only part where there is one."""
    model = names["model"]
    return model[name] if isinstance(model, nn.ModuleDict) and name in model else names[name]
