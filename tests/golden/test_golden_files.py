"""The golden set itself: nothing missing, nothing changed, nothing besides."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from helpers.golden_drivers import DRIVERS
from helpers.golden_set import DEFAULT, EXEMPT, read_arrays, read_exemptions, read_manifest

KNOWN_TOLERANCES = {"float32": "1e-5", "float64": "1e-9"}


def test_file_is_the_one_that_was_written(case: dict[str, Any], golden_directory: Path) -> None:
    content = (golden_directory / case["file"]).read_bytes()
    assert len(content) == case["bytes"]
    assert hashlib.sha256(content).hexdigest() == case["sha256"]
    assert read_arrays(golden_directory, case)


def test_variables_are_arrays(case: dict[str, Any]) -> None:
    for variable in case.get("variables", []):
        array = case["arrays"][variable["key"]]
        assert (array["shape"], array["dtype"]) == (variable["shape"], variable["dtype"])


def test_directory_holds_the_manifest_and_its_cases(golden_directory: Path) -> None:
    manifest = read_manifest(golden_directory)
    ids = [case["id"] for case in manifest["cases"]]
    files = {case["file"] for case in manifest["cases"]}
    assert len(set(ids)) == len(ids) and len(files) == len(ids)
    assert {path.name for path in golden_directory.glob("*.npz")} == files


def test_tolerances_are_those_of_the_manifest(golden_directory: Path) -> None:
    stated = read_manifest(golden_directory).get("conventions", {}).get("tolerance", {})
    for dtype, number in KNOWN_TOLERANCES.items():
        assert stated.get(dtype, number).startswith(number)


def test_copied_data_is_unchanged() -> None:
    """The project's own copy, manifest and errors.json included."""
    lines = (DEFAULT.parent / "SHA256SUMS").read_text().splitlines()
    listed = dict(reversed(line.split("  ", 1)) for line in lines)
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in DEFAULT.iterdir()}
    assert found == listed


def test_exemptions_name_known_drivers_and_give_reasons() -> None:
    """Whether a listed driver passes already is seen by its cases themselves: they must fail (strict xfail)."""
    exemptions = read_exemptions(EXEMPT)
    drivers = {case["driver"] for case in read_manifest(DEFAULT)["cases"]}
    assert exemptions.keys() <= drivers - DRIVERS.keys()
    assert all(len(reason) > 20 for reason in exemptions.values())


def test_every_convention_is_known(golden_directory: Path) -> None:
    """Visitors and residual functions that the manifest defines."""
    from helpers.golden_cells import RESIDUAL_FNS, VISITORS

    conventions = read_manifest(golden_directory).get("conventions", {})
    assert conventions.get("visitors", {}).keys() <= VISITORS.keys()
    assert conventions.get("residual_fns", {}).keys() <= RESIDUAL_FNS.keys()
