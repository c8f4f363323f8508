"""What the repository's tests look at: source files, their imports, the names they export."""

from __future__ import annotations

import ast
import functools
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "cellweave"
DOCS = ROOT / "docs"


def source_files() -> list[Path]:
    """Every Python file of the package."""
    return sorted(PACKAGE.rglob("*.py"))


@functools.cache
def parse(path: Path) -> ast.Module:
    """The file's syntax, which nobody may change."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def module_name(path: Path) -> str:
    """Dotted name of a source file, `cellweave.cells` for a folder's `__init__.py`."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@dataclass(frozen=True)
class Import:
    """`from module import name`, or `import module` where name is empty."""

    module: str
    name: str
    line: int

    @property
    def target(self) -> str:
        """The imported module: `from cellweave import _nest` is the module `cellweave._nest`."""
        path = PACKAGE.parent.joinpath(*self.module.split("."), self.name)
        is_module = self.name != "" and (path.with_suffix(".py").is_file() or (path / "__init__.py").is_file())
        return f"{self.module}.{self.name}" if is_module else self.module


@functools.cache
def imports(path: Path) -> tuple[Import, ...]:
    """Every import of a file, wherever it stands: at the top, in a function, for the type checker only."""
    found: list[Import] = []
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            found += [Import(alias.name, "", node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            found += [Import(module, alias.name, node.lineno) for alias in node.names]
    return tuple(found)


def exported_names(path: Path) -> list[str]:
    """The names that an `__init__.py` or a face re-exports as `X as X`."""
    return [
        alias.asname
        for node in parse(path).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname is not None
    ]


def public_names() -> list[str]:
    """Dotted names of the public surface: the package's own, its faces', and those of some folders.

    What `contrib` and `nn` share with the package counts as the package's.
    """
    faces = [PACKAGE / "contrib.py", PACKAGE / "keras.py", PACKAGE / "initializers.py"]
    own = exported_names(PACKAGE / "__init__.py")
    modules = {face.stem for face in faces} | {"nn"}
    names = [f"cellweave.{name}" for name in own if name not in modules and name != "__version__"]
    shared = {("contrib", name) for name in own}
    shared_by_nn = {("nn", "ConvertedModule"), ("nn", "ModelConversion"), ("nn", "convert"), ("nn", "convert_back")}
    named = [(face.stem, name) for face in faces for name in exported_names(face)]
    names += [f"cellweave.{face}.{name}" for face, name in named if (face, name) not in shared]
    for folder in ("checkpoint", "nn", "onnx", "training"):
        inner = exported_names(PACKAGE / folder / "__init__.py")
        names += [f"cellweave.{folder}.{name}" for name in inner if (folder, name) not in shared_by_nn]
    return [name for name in names if not name.rpartition(".")[2].startswith("_")]
