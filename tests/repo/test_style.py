"""House rules that no linter knows."""

from __future__ import annotations

import ast
import re
import shutil
import tarfile
from pathlib import Path

import pytest
from scikit_build_core.build import build_sdist

from repo.source_files import DOCS, PACKAGE, ROOT, module_name, parse, source_files

MOST_LINES = 600
VAGUE_NAMES = {"utils", "util", "misc", "helpers", "helper", "common_utils"}
FILES = source_files()
OPEN_ENDS = re.compile("|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X"]))  # in halves, so that this file passes too


def test_files_are_not_too_long() -> None:
    lengths = {module_name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    too_long = {name: lines for name, lines in lengths.items() if lines > MOST_LINES}
    assert too_long == {}, f"expected at most {MOST_LINES} lines. Look for a seam."


def test_names_say_what_is_inside() -> None:
    parts = {path: path.relative_to(PACKAGE).with_suffix("").parts for path in FILES}
    assert [path for path, names in parts.items() if VAGUE_NAMES & {name.removeprefix("_") for name in names}] == []


def test_modules_are_private_unless_they_are_faces() -> None:
    public = {"cellweave", "cellweave.keras", "cellweave.contrib", "cellweave.initializers"}
    assert [path for path in FILES if not path.stem.startswith("_") and module_name(path) not in public] == []


def test_nothing_is_left_open() -> None:
    assert [path for path in FILES if OPEN_ENDS.search(path.read_text(encoding="utf-8"))] == []


def test_no_handler_swallows_everything() -> None:
    found = []
    for path in FILES:
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.ExceptHandler):
                caught = "" if node.type is None else ast.unparse(node.type)
                broad = re.search(r"^$|\bBaseException\b|\bException\b", caught)
                tidies_up = ast.unparse(node.body[-1]) == "raise"  # the same error goes on
                if broad and not tidies_up:
                    found.append(f"{path}:{node.lineno}")
    assert found == []


def test_no_assert_for_users_mistakes() -> None:
    nodes = ((path, node) for path in FILES for node in ast.walk(parse(path)))
    assert [f"{path}:{node.lineno}" for path, node in nodes if isinstance(node, ast.Assert)] == []


def test_what_new_makes_has_a_type() -> None:
    # a type checker that reads `Any` there looks at no constructor, and knows no attribute of what it made
    nodes = [(path, node) for path in FILES for node in ast.walk(parse(path)) if isinstance(node, ast.FunctionDef)]
    made = {f"{path}:{node.lineno}": node.returns for path, node in nodes if node.name == "__new__"}
    assert made
    assert [place for place, kind in made.items() if kind is None or ast.unparse(kind) == "Any"] == []


def test_version_is_written_once() -> None:
    version = re.search(
        r'^version = "(.+?)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    assert version is not None
    others = [*FILES, ROOT / "CITATION.cff", ROOT / "mkdocs.yml", *DOCS.rglob("*.md")]
    assert [str(path) for path in others if version[1] in path.read_text(encoding="utf-8")] == []


def test_a_source_distribution_holds_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pyproject.toml", "README.md", "LICENSE", "src/cellweave/__init__.py", "src/cellweave/py.typed"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    for name in ("libcellweave.so", "libcellweave.dylib", "cellweave.dll"):
        (tmp_path / "src" / "cellweave" / name).write_bytes(b"of another machine")
    monkeypatch.chdir(tmp_path)
    with tarfile.open(tmp_path / build_sdist(str(tmp_path))) as archive:
        held = {Path(name).name for name in archive.getnames()}
    assert held >= {"__init__.py", "py.typed", "LICENSE", "pyproject.toml"}
    assert [name for name in held if Path(name).suffix in (".so", ".dylib", ".dll")] == []


def test_direct_dependencies_are_pinned() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    project = pyproject[pyproject.index("[project]") : pyproject.index("[project.scripts]")]
    wanted = set(re.findall(r'"([a-z][a-z-]*)>=', project))
    pinned = set(
        re.findall(r"^([a-z-]+)==", (ROOT / "constraints.txt").read_text(encoding="utf-8"), flags=re.MULTILINE)
    )
    assert {"torch", "numpy", "pytest", "mkdocs"} <= wanted
    assert wanted == pinned
