"""The command: what it refuses, what it chooses, and that red tests stop it."""

from __future__ import annotations

import json
from pathlib import Path

import machine
import pytest
import run
from registry import CASES, OURS, PEERS


def test_red_tests_stop_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(run, "verified", lambda: False)
    monkeypatch.setattr(run, "Workers", lambda *_: pytest.fail("something was measured"))
    assert run.main([]) == 1
    assert "expected green tests, got failures" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--cases", "nothing-like-it"], "got nothing-like-it"),
        (["--threads", "0"], "expected at least 1, got 0"),
        (["--budget", "0"], "expected seconds above 0, got 0"),
        (["--peers", "theano"], "theano"),
        (["--no-verify"], "--no-verify"),
    ],
)
def test_wrong_arguments_are_refused(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run.main(arguments)
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err


def test_cases_are_chosen_by_parts_of_their_names() -> None:
    options = run._options(["--cases", "lstm-training-resets", "B20", "--kinds", "lstm", "rnn"])
    chosen = run.chosen_cases(options)
    assert {case.kind for case in chosen} == {"lstm", "rnn"}
    assert all("lstm-training-resets" in case.name or "B20" in case.name for case in chosen)
    assert run.chosen_cases(run._options([])) == list(CASES)


def test_peers_are_chosen_and_yardsticks_stay() -> None:
    assert set(PEERS) < set(run.chosen_names(["all"]))
    few = run.chosen_names(["jax"])
    assert OURS in few
    assert "sgemm" in few
    assert [name for name in few if name in PEERS] == ["jax"]


def test_finished_cases_are_read_back(tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    file.write_text(json.dumps({"case": "a", "flops": 1}) + "\n", encoding="utf-8")
    assert run._done(file) == {"a": {"case": "a", "flops": 1}}
    assert run._done(None) == {}


def test_machine_has_a_name_for_files() -> None:
    name = machine.machine_class(2)
    assert name.endswith("-2t")
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_")
    assert machine.physical_cores() >= 1
    assert machine.description(1)["threads"] == 1
