"""Makes one test per case of the sets that `--goldens`, `--checkpoints` and `--wild` name."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers import checkpoint_set
from helpers.golden_set import DEFAULT, GoldenSetError, MissingFeatureError, read_errors, read_exemptions, read_manifest


def _directory(config: pytest.Config) -> Path:
    given = config.getoption("--goldens")
    return DEFAULT if given is None else Path(given)


def _checkpoint_cases(config: pytest.Config) -> list[Path]:
    given = config.getoption("--checkpoints")
    return checkpoint_set.read_cases(checkpoint_set.DEFAULT if given is None else Path(given))


def _wild_cases(config: pytest.Config) -> list[object]:
    given = config.getoption("--wild")
    if given is None:
        return [pytest.param(None, marks=pytest.mark.skip(reason="--wild DIR was not given"), id="none")]
    cases = sorted(path.parent for path in Path(given).glob("*/CASE.md"))
    if not cases:
        raise GoldenSetError(f"{given}: expected folders with a CASE.md, got none.")
    return [pytest.param(case, id=case.name) for case in cases]


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker of this folder."""
    config.addinivalue_line("markers", "drivers(*names): make this test for cases of these drivers only")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Fill in `case`, `probe_entry`, `checkpoint_case` and `wild_case`."""
    directory = _directory(metafunc.config)
    try:
        if "case" in metafunc.fixturenames:
            cases = read_manifest(directory)["cases"]
            marker = metafunc.definition.get_closest_marker("drivers")
            chosen = [case for case in cases if marker is None or case["driver"] in marker.args]
            metafunc.parametrize("case", [_case(case, metafunc) for case in chosen])
        if "probe_entry" in metafunc.fixturenames:
            metafunc.parametrize("probe_entry", read_errors(directory), ids=lambda entry: entry["id"])
        if "checkpoint_case" in metafunc.fixturenames:
            metafunc.parametrize("checkpoint_case", _checkpoint_cases(metafunc.config), ids=lambda path: path.name)
        if "wild_case" in metafunc.fixturenames:
            metafunc.parametrize("wild_case", _wild_cases(metafunc.config))
    except GoldenSetError as error:
        raise pytest.UsageError(str(error)) from error


def _case(case: dict, metafunc: pytest.Metafunc) -> object:
    reason = read_exemptions().get(case["driver"])
    if reason is None or metafunc.function.__name__ not in ("test_values", "test_variables"):
        return pytest.param(case, id=case["id"])
    return pytest.param(
        case, id=case["id"], marks=pytest.mark.xfail(strict=True, raises=MissingFeatureError, reason=reason)
    )


@pytest.fixture(scope="session")
def golden_directory(pytestconfig: pytest.Config) -> Path:
    """The directory under test."""
    return _directory(pytestconfig)
