"""The documentation tells the truth: its programs run, and it names every setting that exists."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

import pytest

from cellweave import specs
from repo.source_files import DOCS, ROOT, source_files

BLOCK = re.compile(r"^```python[^\n]*\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
README = ROOT / "README.md"
PAGES = [README, *sorted((DOCS / "tutorials").glob("*.md")), *sorted((DOCS / "guides").glob("*.md"))]
GOLDENS = [ROOT / "tests/golden" / name for name in ("data/manifest.json", "contrib/manifest.json", "data/errors.json")]
ENVIRONMENT_PAGE = DOCS / "reference" / "environment.md"


def programs(page: Path) -> str:
    """All Python blocks of a page as one program whose line numbers are the page's."""
    text = page.read_text(encoding="utf-8")
    lines: list[str] = []
    for block in BLOCK.finditer(text):
        lines += [""] * (text.count("\n", 0, block.start(1)) - len(lines))
        lines += block[1].splitlines()
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_programs_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = programs(page)
    if page.parent.name != "guides":
        assert program.strip(), f"{page}: expected a Python block, got none"
    monkeypatch.chdir(tmp_path)
    exec(compile(program, str(page), "exec"), {"__name__": "__main__"})


def test_readme_example_is_short() -> None:
    first = BLOCK.search(README.read_text(encoding="utf-8"))
    assert first is not None
    assert len(first[1].splitlines()) <= 20


def test_readme_names_the_two_commands() -> None:
    text = README.read_text(encoding="utf-8")
    assert "make demo" in text
    assert "make test" in text


def test_every_environment_variable_is_documented() -> None:
    read = {
        name for path in source_files() for name in re.findall(r"CELLWEAVE_[A-Z_]+", path.read_text(encoding="utf-8"))
    }
    listed = set(re.findall(r"`(CELLWEAVE_[A-Z_]+)`", ENVIRONMENT_PAGE.read_text(encoding="utf-8")))
    assert read == listed


def test_makefile_targets_are_explained_by_help() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE)
    assert phony is not None
    explained = set(re.findall(r"^([a-z0-9-]+):.*## ", makefile, flags=re.MULTILINE))
    assert explained == set(phony[1].split())


def test_every_guide_and_explanation_is_reached_from_the_first_page() -> None:
    links = set(re.findall(r"\]\(([^)#\s]+)", (DOCS / "index.md").read_text(encoding="utf-8")))
    pages = [*(DOCS / "tutorials").glob("*.md"), *(DOCS / "guides").glob("*.md"), *(DOCS / "explanation").glob("*.md")]
    named = {page.relative_to(DOCS).as_posix() for page in pages}
    mathematics = {f"explanation/{name}.md" for name in ("lstm", "gru", "rnn", "contrib")}  # pages of the reference
    assert named - mathematics <= links


def test_the_numbers_of_goldens_are_right() -> None:
    counts = [len(json.loads(path.read_text(encoding="utf-8"))["cases"]) for path in GOLDENS]
    text = " ".join((DOCS / "index.md").read_text(encoding="utf-8").split())
    assert f"computed for {counts[0] + counts[1]} cases" in text
    assert f"did with {counts[2]} doubtful calls" in text


def test_specs_are_called_as_their_page_says() -> None:
    page = (DOCS / "reference" / "specs.md").read_text(encoding="utf-8")
    for name, listed in re.findall(r"`(\w+Spec)\(([a-z_, ]+)\)`", page):
        names = list(inspect.signature(getattr(specs, name)).parameters)
        assert listed.split(", ") == names[: listed.count(",") + 1], name


@pytest.mark.parametrize(
    "page", [README, ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))], ids=lambda page: page.name
)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?://|#)([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []
