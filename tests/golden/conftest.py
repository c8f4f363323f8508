"""Makes one test per case of the golden set that `--goldens` names."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.golden_set import DEFAULT, GoldenSetError, MissingFeatureError, read_errors, read_exemptions, read_manifest


def _directory(config: pytest.Config) -> Path:
    given = config.getoption("--goldens")
    return DEFAULT if given is None else Path(given)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker of this folder."""
    config.addinivalue_line("markers", "drivers(*names): make this test for cases of these drivers only")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Fill in `case` and `probe_entry`."""
    directory = _directory(metafunc.config)
    try:
        if "case" in metafunc.fixturenames:
            cases = read_manifest(directory)["cases"]
            marker = metafunc.definition.get_closest_marker("drivers")
            chosen = [case for case in cases if marker is None or case["driver"] in marker.args]
            metafunc.parametrize("case", [_case(case, metafunc) for case in chosen])
        if "probe_entry" in metafunc.fixturenames:
            metafunc.parametrize("probe_entry", read_errors(directory), ids=lambda entry: entry["id"])
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
