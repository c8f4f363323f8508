"""Environment variables and what they may hold."""

from __future__ import annotations

import pytest

from cellweave import BackendError
from cellweave._env import native_is_wanted, step_graphs_are_wanted, wanted_isa


@pytest.mark.parametrize("value, wanted", [(None, True), ("", True), ("1", True), ("0", False)])
def test_native(value: str | None, wanted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if value is not None:
        monkeypatch.setenv("CELLWEAVE_NATIVE", value)
    assert native_is_wanted() is wanted


@pytest.mark.parametrize("value", ["no", "2", " 0"])
def test_native_refuses_other_values(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLWEAVE_NATIVE", value)
    with pytest.raises(BackendError, match=f"CELLWEAVE_NATIVE: expected 0 or 1, got '{value}'"):
        native_is_wanted()


@pytest.mark.parametrize("value, wanted", [(None, False), ("", False), ("1", True), ("0", False)])
def test_step_graphs(value: str | None, wanted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if value is not None:
        monkeypatch.setenv("CELLWEAVE_STEP_GRAPHS", value)
    assert step_graphs_are_wanted() is wanted


@pytest.mark.parametrize("value, wanted", [(None, None), ("", None), ("avx2", "avx2")])
def test_isa(value: str | None, wanted: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if value is not None:
        monkeypatch.setenv("CELLWEAVE_ISA", value)
    assert wanted_isa() == wanted
