"""Runs tests on copies of the package with one fault each. Started by tests/repo/test_mutations.py as a script.

torch is imported once; every copy is tested in a fork of this process. Prints one JSON object: name to exit status, for
every fault and, as "unharmed FILE", for each file of tests on a copy without one.
"""

from __future__ import annotations

import compileall
import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
SOURCE = TESTS.parent / "src" / "cellweave"
AT_ONCE = 2
#: Plain asserts and no plugins: importing Hypothesis and collecting garbage would take longer than the tests.
OPTIONS = ["-x", "-q", "--tb=line", "--assert=plain"]
OPTIONS += [word for name in ("xdist", "hypothesispytest", "unraisableexception") for word in ("-p", f"no:{name}")]


def _use_copy(parent: Path) -> None:
    """Make `import cellweave` find the copy, whatever an editable installation says."""
    sys.path.insert(0, str(parent))
    sys.meta_path[:] = [f for f in sys.meta_path if not f.__class__.__module__.startswith("_editable")]
    for name in [name for name in sys.modules if name.partition(".")[0] == "helpers"]:
        del sys.modules[name]  # pytest imports them anew


def _run_here(parent: Path, arguments: list[str]) -> int:
    """Run pytest on the copy; 99 when something else was tested."""
    import pytest

    _use_copy(parent)
    with (parent / "log.txt").open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        os.chdir(TESTS.parent)
        status = int(pytest.main([*OPTIONS, "-o", f"cache_dir={parent / 'cache'}", *arguments]))
        sys.stdout.flush()
    import cellweave

    return status if Path(cellweave.__file__).is_relative_to(parent) else 99


def native_files() -> list[Path]:
    """The native core, which an installation keeps beside the sources."""
    found = importlib.util.find_spec("cellweave")
    places = [] if found is None else list(found.submodule_search_locations or [])
    return [path for place in places for path in sorted(Path(place).glob("*cellweave.*")) if path.suffix != ".py"]


def _compiled_package(directory: Path) -> Path:
    """The package with its byte code, which the sources may lie without: made once, not by every copy."""
    package = directory / "compiled" / "cellweave"
    shutil.copytree(SOURCE, package)
    compileall.compile_dir(package, quiet=1)
    return package


def _copy_with_fault(package: Path, parent: Path, file: str, old: str, new: str) -> str:
    """Make the copy; returns what is wrong with the table's entry, if anything."""
    shutil.copytree(package, parent / "cellweave", copy_function=os.link)  # links are made quicker than copies
    for path in native_files():
        if not (parent / "cellweave" / path.name).exists():  # it may lie among the sources
            (parent / "cellweave" / path.name).symlink_to(path)
    if not file:
        return ""
    path = parent / "cellweave" / file
    text = path.read_text(encoding="utf-8")
    if text.count(old) != 1:
        return f"the old text occurs {text.count(old)} times in {file}"
    path.unlink()  # the other copies keep it
    path.write_text(text.replace(old, new), encoding="utf-8")
    for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*"):
        compiled.unlink()
    return ""


def main(directory: Path) -> None:
    """Test every fault, a few at once, and unharmed copies with all their tests."""
    import numpy  # noqa: F401 (imported before the forks)
    import pytest  # noqa: F401
    import torch._inductor.config  # noqa: F401 (deterministic algorithms, which the golden tests ask for, need it)

    from helpers.mutant_table import MUTANTS

    # Each file with its own words: joined, they would choose hundreds of tests in the others' files.
    words: dict[str, list[str]] = {}
    for mutant in MUTANTS:
        file, _, chosen = mutant.tests
        words.setdefault(file, []).append(f"({chosen})")
    jobs = [(f"unharmed {file}", "", "", "", [file, "-k", " or ".join(these)]) for file, these in words.items()]
    jobs += [(m.name, m.file, m.old, m.new, list(m.tests)) for m in MUTANTS]
    package = _compiled_package(directory)
    results: dict[str, int | str] = {}
    running: dict[int, str] = {}
    for number, (name, file, old, new, tests) in enumerate(jobs):
        parent = directory / str(number)
        problem = _copy_with_fault(package, parent, file, old, new)
        if problem:
            results[name] = problem
            continue
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            os._exit(_run_here(parent, tests))
        running[child] = name
        if len(running) == AT_ONCE:
            _collect(running, results)
    while running:
        _collect(running, results)
    sys.stdout.write(json.dumps(results) + "\n")


def _collect(running: dict[int, str], results: dict[str, int | str]) -> None:
    child, status = os.wait()
    results[running.pop(child)] = os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.path[0] = str(TESTS)  # in place of this script's own folder
    main(Path(sys.argv[1]))
