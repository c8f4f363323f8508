"""A run on a GPU, with processes that only pretend: what happens next, what is written, what an end leaves behind."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gpu import session
from gpu.plan import (
    BUDGET,
    CALIBRATION,
    COMPILED_LOOP,
    CUDNN,
    GRAPHED,
    PHASES,
    PLANS,
    TRITON,
    WRAPPED,
    GpuCase,
    checks,
)
from gpu.session import Session, finite
from gpu.table import read, table
from processes import ContestantError

TIMED = {
    "ms": 1.0, "p10_ms": 1.0, "p90_ms": 1.0, "halves": [1.0, 1.0], "cpu_ms": 1.0, "peak_mb": 1.0, "saved_bytes": 1.0,
    "launches": 1, "kernels": [],
}  # fmt: skip
Answer = Callable[[dict[str, Any]], dict[str, Any]]
ANSWERS: dict[str, Answer] = {
    "hello": lambda request: {"device": "Some GPU", "versions": {"torch": "9.9"}},
    "warm": lambda request: {},
    "calibrate": lambda request: (
        {"value": 1.0, "unit": "TB/s"}
        if request["what"] in ("M1", "M2")
        else {"values": {"16": 1.0}, "by": "programs", "unit": "us"}
    ),
    "check": lambda request: {"passes": True, "repeats": True, "worst": {}, "seed": request["seed"]},
    "time": lambda request: {"contestants": {name: TIMED | {"steps": 64} for name in request["names"]}},
}


class World:
    """Processes and a clock: every answer takes its seconds, and one that takes longer than asked for never comes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float = 0.0) -> None:
        self.now, self.seconds, self.started = 100.0, seconds, 0
        self.asked: list[dict[str, Any]] = []
        self.answers = dict(ANSWERS)
        self.hangs: Callable[[dict[str, Any]], bool] = lambda request: False
        monkeypatch.setattr(session.time, "monotonic", lambda: self.now)

    def start(self) -> FakeProcess:
        self.started += 1
        return FakeProcess(self)

    def names(self, do: str) -> list[str]:
        return [request["name"] for request in self.asked if request["do"] == do]


class FakeProcess:
    def __init__(self, world: World) -> None:
        self._world, self.running = world, True

    def ask(self, deadline: float, **request: Any) -> dict[str, Any]:
        assert self.running
        self._world.asked.append(request)
        needed = float("inf") if self._world.hangs(request) else self._world.seconds
        self._world.now += min(deadline, needed)
        if needed > deadline:
            self.running = False
            raise ContestantError(f"no answer in {deadline:g} s")
        return self._world.answers[request["do"]](request)

    def close(self) -> None:
        self.running = False


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(session, "clocks", lambda device: None)
    monkeypatch.setattr(session.os, "fsync", lambda file: None)
    return World(monkeypatch)


def run(world: World, folder: Path, device: str = "cuda", budget: float = BUDGET, compilers: int = 0) -> list[Any]:
    file = folder / "run.jsonl"
    made = Session(device, budget, file, world.start, compilers, say=lambda text: None)
    try:
        made.run()
    finally:
        made.close()
    return read(file)


def test_phases_come_in_order_and_every_result_has_its_line(world: World, tmp_path: Path) -> None:
    rows = run(world, tmp_path)
    assert list(dict.fromkeys(row["phase"] for row in rows)) == [*(phase.name for phase in PHASES), "end"]
    assert [row["what"] for row in rows if "what" in row] == list(CALIBRATION)
    plan = PLANS["cuda"]
    assert sum("passes" in row for row in rows) == len(checks(plan))
    for phase, cases in (("cuDNN", plan.cudnn), ("ours", plan.ours), ("loops", plan.loops)):
        assert [row["case"] for row in rows if row["phase"] == phase] == [case.name for case in cases]
    assert world.started == 1
    assert table(rows).count("The run did not reach its end") == 0


def test_a_run_ends_within_its_budget_and_says_what_it_left_out(world: World, tmp_path: Path) -> None:
    world.seconds = 7.0
    begin = world.now
    rows = run(world, tmp_path)
    assert world.now - begin <= BUDGET
    late = {row["phase"]: row["not_reached"] for row in rows if "not_reached" in row}
    assert set(late) >= {"correctness", "cuDNN", "ours"}
    assert {row["phase"] for row in rows if "contestants" in row} == {"cuDNN", "ours", "loops"}
    assert "No time in ours: " in table(rows)


def test_what_hangs_all_the_time_ends_within_the_budget_too(world: World, tmp_path: Path) -> None:
    world.hangs = lambda request: request["do"] not in ("hello", "warm")
    begin = world.now
    rows = run(world, tmp_path, budget=60)
    assert world.now - begin <= 60
    assert rows[-1]["phase"] == "end"


def test_after_a_hang_the_next_question_finds_a_new_process(world: World, tmp_path: Path) -> None:
    hung = PLANS["cuda"].cudnn[0].as_dict()
    world.hangs = lambda request: (
        request["names"] == [CUDNN] and request["case"] == hung if request["do"] == "time" else False
    )
    rows = [row for row in run(world, tmp_path) if row["phase"] == "cuDNN"]
    assert world.started == 2
    assert rows[0]["contestants"] == {CUDNN: {"error": "no answer in 45 s"}}
    assert rows[1]["contestants"] == {CUDNN: TIMED | {"steps": 64}}


def test_a_kernel_that_is_wrong_is_not_timed(world: World, tmp_path: Path) -> None:
    def check(request: dict[str, Any]) -> dict[str, Any]:
        wrong = request["name"] == WRAPPED
        worst = {"tensor": "d x", "error": 0.5, "bound": 0.01, "share": 50.0}
        return {"passes": not wrong, "repeats": True, "worst": worst, "seed": 1}

    world.answers["check"] = check
    rows = [row for row in run(world, tmp_path) if row["phase"] == "ours"]
    reasons = {row["contestants"][WRAPPED]["error"] for row in rows if WRAPPED in row["contestants"]}
    assert reasons == {"not timed: wrong: d x differs by 0.5, at most 0.01 is right"}
    assert all(row["contestants"][TRITON]["ms"] == 1.0 for row in rows)
    assert not any(WRAPPED in request["names"] for request in world.asked if request["do"] == "time")


def test_bits_that_differ_are_wrong(world: World, tmp_path: Path) -> None:
    world.answers["check"] = lambda request: {"passes": False, "repeats": False, "worst": {}, "seed": 1}
    rows = [row for row in run(world, tmp_path, device="cpu") if row["phase"] == "ours"]
    assert {row["contestants"][TRITON]["error"] for row in rows} == {
        "not timed: wrong: its bits differ from call to call"
    }


def test_a_recurrence_that_hung_twice_is_not_tried_at_other_sizes(world: World, tmp_path: Path) -> None:
    world.hangs = lambda request: request["do"] == "check" and request["case"]["kind"] == "gru_before"
    rows = run(world, tmp_path)
    asked = [request for request in world.asked if request["do"] == "check"]
    lost = Counter(r["name"] for r in asked if r["case"]["kind"] == "gru_before")
    assert lost.keys() == {TRITON, WRAPPED, GRAPHED}
    assert max(lost.values()) == 2
    refused = [row["error"] for row in rows if row.get("kind") == "gru_before" and "name" in row]
    assert "not tried: at other sizes its process ended" in refused
    assert any(row.get("passes") for row in rows if row.get("kind") == "lstm")


@pytest.mark.parametrize("name", [TRITON, WRAPPED])
def test_a_kernel_that_hangs_while_it_is_timed_takes_nobody_along(name: str, world: World, tmp_path: Path) -> None:
    """One that meets others once too rarely passes a short check, and hangs in a long sequence."""
    world.hangs = lambda request: (
        request["do"] == "time" and name in request["names"] and request["case"]["kind"] == "lstm"
    )
    rows = [row for row in run(world, tmp_path) if row["phase"] == "ours"]
    found = [row["contestants"] for row in rows if "contestants" in row]
    assert len(found) == len(PLANS["cuda"].ours)
    assert all(timed[CUDNN]["ms"] == 1.0 for timed in found)
    reasons = Counter(row["contestants"][name].get("error") for row in rows if name in row["contestants"])
    assert reasons["no answer in 45 s"] == 1 and reasons["not timed: at other sizes its process ended"] > 10
    assert sum(world.hangs(request) for request in world.asked) == (2 if name == TRITON else 1)
    if name == WRAPPED:
        assert all(timed[TRITON]["ms"] == 1.0 for timed in found)


def test_what_was_not_checked_in_time_is_checked_before_it_is_timed(world: World, tmp_path: Path) -> None:
    world.seconds = 3.0
    rows = run(world, tmp_path)
    phases = [row["phase"] for row in rows if "passes" in row]
    assert {"correctness", "ours"} <= set(phases)
    at = world.asked.index
    for request in (r for r in world.asked if r["do"] == "time" and TRITON in r["names"]):
        checked = {**request["case"], "mode": "training", "T": PLANS["cuda"].check_steps}
        assert any(r["do"] == "check" and r["case"] == checked for r in world.asked[: at(request)])


def test_compilers_share_out_all_variants(world: World, tmp_path: Path) -> None:
    def warm(request: dict[str, Any]) -> dict[str, Any]:
        if request["name"] == COMPILED_LOOP:
            raise ContestantError("no compiler")
        return {}

    world.answers["warm"] = warm
    rows = run(world, tmp_path, compilers=2)
    found = next(row for row in rows if "compiled" in row)
    loops = len(PLANS["cuda"].loops)
    assert found["compiled"] == found["wanted"] - loops == len(world.names("warm")) - loops
    assert found["errors"][0].startswith(COMPILED_LOOP) and found["errors"][0].endswith("no compiler")
    assert world.started == 3


def test_a_run_that_is_cut_off_leaves_what_it_found(world: World, tmp_path: Path) -> None:
    def cut(request: dict[str, Any]) -> dict[str, Any]:
        raise KeyboardInterrupt

    world.answers["time"] = cut
    with pytest.raises(KeyboardInterrupt):
        run(world, tmp_path)
    file = tmp_path / "run.jsonl"
    assert [json.loads(line)["phase"] for line in file.read_text().splitlines()][-1] == "correctness"
    with file.open("a") as lines:
        lines.write('{"phase": "cuDNN", "case": "lst')
    text = table(read(file))
    assert "The run did not reach its end." in text and "| M1 | 1 TB/s |" in text


def test_numbers_that_json_lacks_become_words() -> None:
    assert finite({"a": [float("nan"), 1.0], "b": (float("inf"), "x", None)}) == {
        "a": ["nan", 1.0],
        "b": ["inf", "x", None],
    }


def test_the_processor_is_never_taken_for_a_gpu(world: World, tmp_path: Path) -> None:
    rows = run(world, tmp_path, device="cpu")
    assert rows[0]["trial"] is True
    assert "no number here says anything about a GPU" in table(rows)
    assert {GpuCase(**r["case"]).H for r in world.asked if "case" in r} == {8}
