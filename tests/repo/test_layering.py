"""Who may import whom. Imports inside functions and for the type checker only count like any other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

from repo.source_files import PACKAGE, ROOT, Import, imports, module_name, source_files

# The rows of CONTRIBUTING.md, top first. A folder that is not here fails: say where it belongs.
ROWS: tuple[frozenset[str], ...] = (
    frozenset({"__main__"}),
    frozenset({"cli"}),
    frozenset({"keras", "contrib"}),
    frozenset({"training", "transfer", "onnx"}),
    frozenset({"layers", "nn", "checkpoint"}),
    frozenset({"wrappers"}),
    frozenset({"cells", "weave"}),
    frozenset({"ops"}),
    frozenset({"initializers"}),
    frozenset({"specs", "scopes"}),
    frozenset({"_checks", "_env", "_errors", "_nest", "_shape", "_tensor_array", "_types", "_version"}),
)
GROUND = len(ROWS) - 1

# Pairs that the rows alone would allow.
FORBIDDEN = {
    "ops": {"scopes", "initializers"},
    "weave": {"scopes", "initializers"},
    "wrappers": {"weave"},
    "checkpoint": {"wrappers", "cells", "weave", "ops"},
    "training": {"keras"},
    "transfer": {"keras", "ops", "weave"},
}

# Packages and the only files that may import them (patterns on the path below src/cellweave).
PLACES = {
    "triton": r"ops/([a-z]+/_triton_(cell|kernels|step_kernels)|common/_triton_(step_|gate_)?device)\.py",
    "ctypes": r"ops/common/_library\.py",
    "typer": r"cli/.*",
    "rich": r"cli/.*",
    "matplotlib": r"training/.*",
    "onnx": r"onnx/.*",
    "onnx_ir": r"onnx/.*",
    "onnxscript": r"onnx/.*",
    "safetensors": r"(training|checkpoint|transfer)/.*",
    "tensorflow": r"(?!)",
}


def part(module: str) -> str:
    """The folder or module of the package that a dotted name belongs to."""
    return module.split(".")[1] if "." in module else ""


def row(name: str) -> int:
    found = [number for number, names in enumerate(ROWS) if name in names]
    assert found, (
        f"src/cellweave/{name}: expected a row in the layering table, got none. Add it here and in pyproject.toml."
    )
    return found[0]


def allowed(importer: str, imported: str) -> bool:
    if importer == imported:
        return True
    if imported == "" or imported in FORBIDDEN.get(importer, ()):
        return False
    above, below = row(importer), row(imported)
    return above < below or above == below == GROUND


FILES = source_files()


@pytest.mark.parametrize("name", sorted({part(module_name(path)) for path in FILES} - {""}))
def test_every_folder_has_a_row(name: str) -> None:
    assert row(name) >= 0


def line(path: Path, found: Import) -> str:
    """Where an import stands, and what it imports."""
    return f"{path.relative_to(PACKAGE).as_posix()}:{found.line} imports {found.target}"


def test_imports_point_down() -> None:
    wrong = []
    for path in FILES:
        importer = part(module_name(path))
        if importer == "":
            continue  # the package's own __init__.py gathers the public names of every row
        own = [found for found in imports(path) if found.module.split(".")[0] == "cellweave"]
        wrong += [line(path, found) for found in own if not allowed(importer, part(found.target))]
    assert wrong == []


def test_no_relative_imports() -> None:
    assert [line(path, found) for path in FILES for found in imports(path) if found.module.startswith(".")] == []


def test_packages_are_imported_in_their_place_only() -> None:
    wrong = []
    for path in FILES:
        for found in imports(path):
            place = PLACES.get(found.module.split(".")[0])
            if place is not None and not re.fullmatch(place, path.relative_to(PACKAGE).as_posix()):
                wrong.append(line(path, found))
    assert wrong == []


def test_only_env_reads_the_environment() -> None:
    reads = re.compile(r"\bos\.environ|\bos\.getenv|\bgetenv\(|from os import .*environ")
    assert [path.name for path in FILES if reads.search(path.read_text(encoding="utf-8"))] == ["_env.py"]


def test_wrappers_know_no_concrete_cell() -> None:
    wrong = []
    for path in (PACKAGE / "wrappers").glob("*.py"):
        for found in imports(path):
            face = found.module == "cellweave.cells" and (found.name == "RNNCell" or found.name[:1].islower())
            inside = re.match(r"cellweave\.cells\b", found.module) and found.module != "cellweave.cells._rnn_cell"
            if inside and not face:
                wrong.append(line(path, found))
    assert wrong == []


@pytest.mark.parametrize(
    "importer, imported, verdict",
    [
        ("cells", "ops", True),
        ("ops", "cells", False),
        ("cells", "weave", False),
        ("weave", "cells", False),
        ("weave", "scopes", False),
        ("weave", "ops", True),
        ("layers", "weave", True),
        ("wrappers", "weave", False),
        ("specs", "scopes", False),
        ("ops", "scopes", False),
        ("_types", "_errors", True),
        ("training", "layers", True),
        ("layers", "training", False),
        ("transfer", "checkpoint", True),
        ("transfer", "training", False),
        ("checkpoint", "transfer", False),
        ("cells", "", False),
    ],
)
def test_the_table_itself(importer: str, imported: str, verdict: bool) -> None:
    assert allowed(importer, imported) is verdict


def test_from_import_of_a_module_counts_as_that_module() -> None:
    assert Import("cellweave", "_errors", 1).target == "cellweave._errors"
    assert Import("cellweave._errors", "ShapeError", 1).target == "cellweave._errors"


def test_import_linter_contracts(capfd: pytest.CaptureFixture[str]) -> None:
    code = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True, no_logo=True)
    output = capfd.readouterr().out
    assert code == 0, output
    assert "broken" in output, "import-linter printed no summary"
