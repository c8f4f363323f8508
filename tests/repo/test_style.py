"""House rules that no linter knows."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from repo.source_files import DOCS, PACKAGE, ROOT, module_name, parse, source_files

MOST_LINES = 600
VAGUE_NAMES = {"utils", "util", "misc", "helpers", "helper", "common_utils"}
FILES = source_files()
OPEN_ENDS = re.compile("|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X"]))  # in halves, so that this file passes too


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_file_is_not_too_long(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MOST_LINES, f"{path}: expected at most {MOST_LINES} lines, got {lines}. Look for a seam."


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_names_say_what_is_inside(path: Path) -> None:
    parts = [part.removeprefix("_") for part in path.relative_to(PACKAGE).with_suffix("").parts]
    assert not VAGUE_NAMES & set(parts)


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_modules_are_private_unless_they_are_faces(path: Path) -> None:
    public = {"cellweave", "cellweave.keras", "cellweave.contrib", "cellweave.initializers"}
    assert path.stem.startswith("_") or module_name(path) in public


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_nothing_is_left_open(path: Path) -> None:
    assert OPEN_ENDS.findall(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_no_handler_swallows_everything(path: Path) -> None:
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.ExceptHandler):
            caught = "" if node.type is None else ast.unparse(node.type)
            broad = re.search(r"^$|\bBaseException\b|\bException\b", caught)
            tidies_up = ast.unparse(node.body[-1]) == "raise"  # the same error goes on
            assert tidies_up or not broad, f"{path}:{node.lineno}"


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_no_assert_for_users_mistakes(path: Path) -> None:
    assert [node.lineno for node in ast.walk(parse(path)) if isinstance(node, ast.Assert)] == []


def test_version_is_written_once() -> None:
    version = re.search(
        r'^version = "(.+?)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    assert version is not None
    others = [*FILES, ROOT / "CITATION.cff", ROOT / "mkdocs.yml", *DOCS.rglob("*.md")]
    assert [str(path) for path in others if version[1] in path.read_text(encoding="utf-8")] == []


def test_direct_dependencies_are_pinned() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    project = pyproject[pyproject.index("[project]") : pyproject.index("[project.scripts]")]
    wanted = set(re.findall(r'"([a-z][a-z-]*)>=', project))
    pinned = set(
        re.findall(r"^([a-z-]+)==", (ROOT / "constraints.txt").read_text(encoding="utf-8"), flags=re.MULTILINE)
    )
    assert {"torch", "numpy", "pytest", "mkdocs"} <= wanted
    assert wanted == pinned
