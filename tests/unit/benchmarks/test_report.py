"""What people read says what the result file holds: won and lost cases, targets, reasons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import compare
import pytest
import report
from registry import HALF, OURS, OWN_BARE, Case


def timing(milliseconds: float) -> dict[str, float]:
    return {"median_ms": milliseconds, "p10_ms": milliseconds * 0.9, "p90_ms": milliseconds * 2}


def result(case: Case, milliseconds: dict[str, float | str], **more: Any) -> dict[str, Any]:
    shown = {name: {"error": time} if isinstance(time, str) else timing(time) for name, time in milliseconds.items()}
    return {"case": case.name, **case.as_dict(), "flops": case.flops, "contestants": shown, **more}


@pytest.fixture
def whole() -> dict[str, Any]:
    memory = {"saved_floats": {OURS: 5.0}, "peak_mb": {OURS: 80.0}}
    return {
        "when": "2030-01-02T03:04:05+00:00",
        "class": "some-machine-2t",
        "machine": {"processor": "Some CPU", "vectors": "avx2", "cores": 2, "threads": 2, "dtype": "float32",
                    "system": "Linux", "load_before": 0.1},
        "cellweave": "1.2.3",
        "environments": {"project": {"python": "3.99", "turn_ns": 7.5, "versions": {"torch": "9.9"}},
                         "peers": {"python": "3.99", "turn_ns": 7.3}, "tf1": {"python": "3.98"},
                         "other": {"error": "none"}},
        "stand_ins": {"torch.nn for gru_before": "another form"},
        "results": [
            result(Case("lstm", "inference", "bare", 100, 1, 128, 128), {OURS: 1.0, "torch.nn": 3.0, "jax": 2.5}),
            result(Case("lstm", "inference", "bare", 100, 16, 256, 256),
                   {OURS: 4.0, "torch.nn": 3.0, "jax": "broke|down"}),
            result(Case("lstm", "training", "bare", 100, 64, 512, 512),
                   {OURS: 200.0, "torch.nn": 260.0, "sgemm": 40.0}, **memory),
            result(Case("lstm", "training", "resets", 100, 64, 512, 512), {OURS: 220.0, OWN_BARE: 200.0}, **memory),
            result(Case("lstm", "inference", "step", 1, 1, 128, 128),
                   {OURS: 0.004, "torch.nn": 0.1, "torch loop": 0.016}),
        ],
    }  # fmt: skip


def test_the_head_says_how_quick_python_is(whole: dict[str, Any]) -> None:
    head = report.table(whole)
    assert "cellweave 1.2.3; Python 3.99 (7.3 ns an addition in a loop), Python 3.98, torch 9.9." in head


def test_ratio_is_that_of_the_fastest_rival(whole: dict[str, Any]) -> None:
    assert report.ratio(whole["results"][0]) == (2.5, "jax")
    assert report.ratio(whole["results"][0], ["torch.nn"]) == (3.0, "torch.nn")
    assert report.ratio(whole["results"][3]) is None


def test_share_of_the_sgemm_rate(whole: dict[str, Any]) -> None:
    training = whole["results"][2]
    ours, yardstick = training["flops"] / 200.0, 2 * 4096 * 1024 * 1024 / 40.0
    assert report.sgemm_share(training) == pytest.approx(ours / yardstick)
    assert report.sgemm_share(whole["results"][0]) is None


def test_targets_are_judged(whole: dict[str, Any]) -> None:
    reached = {
        (target.quantity, target.versus): (value, None if value is None else target.met(value))
        for found in whole["results"]
        for target, value in report.verdicts(found)
        if found["variation"] != "bare"
    }
    assert reached["cost", (OWN_BARE,)] == (pytest.approx(1.1), False)
    assert reached["ratio", ("torch.nn",)] == (pytest.approx(25.0), True)
    assert reached["ratio", ("torch loop",)] == (pytest.approx(4.0), False)
    assert report.targets_line(whole).startswith("targets: ")


def test_what_was_not_measured_is_said(whole: dict[str, Any]) -> None:
    gru = result(Case("gru_after", "training", "bare", 100, 1, 128, 128), {OURS: 1.0, "torch.nn": 7.0},
                 saved_floats={}, peak_mb={})  # fmt: skip
    text = report.table({**whole, "results": [gru]})
    assert "≥ 6 of torch.nn: met (7.00)" in text
    assert "≥ 1 of jax: not measured" in text


def test_table_shows_lost_cases_and_reasons(whole: dict[str, Any]) -> None:
    text = report.table(whole)
    assert "2.50 (jax)" in text
    assert "**0.75** (torch.nn)" in text
    assert "| jax | broke/down | lstm-inference-bare-T100-B16-H256 |" in text
    assert "4.0 µs" in text
    assert "1.00 ms (0.90 ms to 2.00 ms)" in text or "1.00 ms (900.0 µs to 2.00 ms)" in text


def test_readme_part_is_replaced_and_nothing_else(whole: dict[str, Any], tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n", encoding="utf-8")
    report.write_readme(whole, readme)
    once = readme.read_text(encoding="utf-8")
    report.write_readme(whole, readme)
    assert readme.read_text(encoding="utf-8") == once
    assert once.startswith(f"before\n{report.BEGIN}\n")
    assert once.endswith(f"{report.END}\nafter\n")
    assert "\nold\n" not in once
    assert "**0.75** (torch.nn)" in once
    assert "1.10" in once


def test_readme_shows_half_precision_where_it_was_timed(whole: dict[str, Any]) -> None:
    assert HALF not in report.readme_part(whole)
    case = Case("gru_after", "inference", HALF, 100, 64, 512, 512)
    whole["results"].append(result(case, {OURS: 40.0, "torch.nn": 90.0}))
    assert "| 100, 64, 512 | – | 2.25 (torch.nn) |" in report.readme_part(whole)


def test_readme_without_marks_is_refused(whole: dict[str, Any], tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("nothing\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"README.md: expected the lines <!-- benchmarks"):
        report.write_readme(whole, readme)


def test_readme_of_the_project_holds_the_latest_result() -> None:
    text = report.README.read_text(encoding="utf-8")
    part = text[text.index(report.BEGIN) : text.index(report.END) + len(report.END)]
    files = sorted(report.RESULTS.glob("[0-9]*.json"))
    if files:
        assert report.latest() == files[-1]
        assert part == report.readme_part(json.loads(files[-1].read_text(encoding="utf-8")))
    else:
        assert part == f"{report.BEGIN}\n{report.END}"


def test_publishing_writes_table_and_plot(whole: dict[str, Any], tmp_path: Path) -> None:
    table, plot = report.publish(whole, tmp_path)
    assert table.read_text(encoding="utf-8").startswith("# Times\n")
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_latest_needs_a_result(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected a result file"):
        report.latest(tmp_path)
    (tmp_path / "calibration-x.json").write_text("{}")
    (tmp_path / "2029-01-01-x.json").write_text("{}")
    (tmp_path / "2030-01-01-a.json").write_text("{}")
    assert report.latest(tmp_path).name == "2030-01-01-a.json"


def test_compare_prints_ratios(whole: dict[str, Any], tmp_path: Path) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.jsonl"
    old.write_text(json.dumps(whole), encoding="utf-8")
    whole["results"][0]["contestants"][OURS]["median_ms"] = 0.5
    new.write_text("\n".join(json.dumps(row) for row in whole["results"][:2]), encoding="utf-8")
    lines = compare.lines(compare.medians(old), compare.medians(new), [OURS])
    assert len(lines) == 4
    assert lines[1].split() == ["lstm-inference-bare-T100-B1-H128", OURS, "1", "0.5", "2.00", "faster"]
    assert lines[2].split()[-1] == "1.00"
    assert lines[3].split()[-1] == "1.41"
