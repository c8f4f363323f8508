"""The public surface: what `__init__.py` files hold, and where each name is documented."""

from __future__ import annotations

import ast
import importlib
import re
from collections import Counter
from pathlib import Path

import pytest

from repo.source_files import DOCS, PACKAGE, exported_names, module_name, parse, public_names, source_files

INITS = [path for path in source_files() if path.name == "__init__.py"]
FACES = [PACKAGE / "contrib.py", PACKAGE / "keras.py", PACKAGE / "initializers.py"]


def reference_directives() -> Counter[str]:
    """How often each dotted name stands after `:::` on the reference pages."""
    pages = (page.read_text(encoding="utf-8") for page in sorted((DOCS / "reference").glob("*.md")))
    return Counter(name for page in pages for name in re.findall(r"^::: (\S+)$", page, flags=re.MULTILINE))


@pytest.mark.parametrize("path", [*INITS, *FACES], ids=module_name)
def test_holds_only_reexports(path: Path) -> None:
    for number, node in enumerate(parse(path).body):
        docstring = number == 0 and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        names = isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]
        reexport = isinstance(node, ast.ImportFrom) and all(alias.name == alias.asname for alias in node.names)
        assert docstring or names or reexport, f"{path}:{node.lineno}: expected `from m import X as X`, got other code"


@pytest.mark.parametrize("path", [*INITS, *FACES], ids=module_name)
def test_every_exported_name_is_importable(path: Path) -> None:
    module = importlib.import_module(module_name(path))
    exported = exported_names(path)
    assert len(exported) == len(set(exported)), "a name is exported twice"
    missing = [name for name in exported if not hasattr(module, name)]
    assert missing == []
    if hasattr(module, "__all__"):
        assert sorted(module.__all__) == sorted(exported)


def test_the_package_exports_exactly_what_is_importable_from_it() -> None:
    package = importlib.import_module("cellweave")
    folders = {path.stem if path.suffix == ".py" else path.name for path in PACKAGE.iterdir()}
    visible = {name for name in vars(package) if not name.startswith("_") or name == "__version__"}
    assert visible - folders == set(exported_names(PACKAGE / "__init__.py")) - folders


def test_private_modules_do_not_leak_names() -> None:
    private = [
        name
        for path in [PACKAGE / "__init__.py", *FACES]
        for name in exported_names(path)
        if re.match("_(?!_version__)", name)
    ]
    assert private == []


def test_public_names_stand_on_exactly_one_reference_page() -> None:
    found = reference_directives()
    assert {name: found[name] for name in public_names() if found[name] != 1} == {}, "docs/reference: one `::: name`"


def test_reference_pages_name_nothing_that_is_gone() -> None:
    assert set(reference_directives()) - set(public_names()) == set()


def test_public_names_have_docstrings() -> None:
    bare = []
    for name in public_names():
        module, _, attribute = name.rpartition(".")
        value = getattr(importlib.import_module(module), attribute)
        if (isinstance(value, type) or callable(value)) and not (value.__doc__ or "").strip():
            bare.append(name)
    assert bare == []
