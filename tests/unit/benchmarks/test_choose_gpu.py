"""From the lines of a run to the table by which cellweave chooses on CUDA devices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import choose_gpu
import pytest
from gpu.plan import CUDNN, OURS_ON_CUDNN, TRITON, GpuCase

from cellweave.weave._cuda_choice import Key, checked_in, table_of

ABOUT = {"phase": "set-up", "trial": False, "device": "Some GPU", "when": "2030-01-02", "versions": {"torch": "9.9"}}


def row(case: GpuCase, phase: str = "ours", **milliseconds: float | None) -> dict[str, Any]:
    names = {"cudnn": CUDNN, "torch": OURS_ON_CUDNN, "triton": TRITON}
    shown = {names[n]: {"error": "no"} if ms is None else {"ms": ms} for n, ms in milliseconds.items()}
    return {"phase": phase, "case": case.name, **case.as_dict(), "contestants": shown}


def case(kind: str, dtype: str, B: int, H: int, mode: str = "training") -> GpuCase:
    return GpuCase(kind, mode, dtype, 512, B, H)


def chosen(*rows: dict[str, Any]) -> dict[Key, str]:
    return {key: found.backend for key, found in table_of(choose_gpu.choices([ABOUT, *rows])).items()}


def test_the_faster_by_all_cases_of_a_class() -> None:
    found = chosen(
        row(case("lstm", "bfloat16", 16, 768), cudnn=20.0, torch=20.0, triton=5.0),
        row(case("lstm", "bfloat16", 32, 896), torch=5.0, triton=9.0),
        row(case("rnn", "tf32", 16, 128, "inference"), torch=1.0, triton=2.0),
        row(case("gru_after", "float16", 256, 2000), torch=3.0, triton=1.0),
    )
    assert found == {
        Key("lstm", "bfloat16", True, 896, 32): "triton",
        Key("rnn", "float32", False, 192, 32): "torch",
        Key("gru_after", "float16", True, None, None): "triton",
    }


def test_noise_other_phases_and_what_lacks_a_time_give_no_entry() -> None:
    at = case("lstm", "bfloat16", 16, 768)
    assert chosen(row(at, torch=1.0, triton=0.98)) == {}
    assert chosen(row(at, torch=1.0, triton=0.96)) != {}
    assert chosen(row(at, torch=1.0, triton=None)) == {}
    assert chosen(row(case("gru_before", "bfloat16", 16, 768), cudnn=1.0, torch=None, triton=2.0)) == {}
    assert chosen(row(at, phase="loops", torch=2.0, triton=1.0)) == {}
    assert chosen(row(case("lstm", "float32", 16, 768), torch=2.0, triton=1.0)) == {}
    assert chosen({"phase": "ours", "not_reached": [at.name]}) == {}


def test_command_writes_what_the_library_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines, out = tmp_path / "gpu.jsonl", tmp_path / "table.json"
    whole = [ABOUT, row(case("lstm", "bfloat16", 64, 512), torch=6.0, triton=3.0)]
    lines.write_text("\n".join(map(json.dumps, whole)) + '\n{"phase": "ours", "cut o', encoding="utf-8")
    assert choose_gpu.main([str(lines), "--out", str(out)]) == 0
    assert "1 choices written" in capsys.readouterr().out
    found = table_of(json.loads(out.read_text(encoding="utf-8")))
    assert found[Key("lstm", "bfloat16", True, 640, 96)].why == "measured faster on Some GPU: 3 ms, torch 6 ms"


@pytest.mark.parametrize("about", [{**ABOUT, "trial": True}, {"phase": "ours", "not_reached": []}])
def test_a_trial_chooses_nothing(about: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines, out = tmp_path / "trial.jsonl", tmp_path / "table.json"
    lines.write_text(json.dumps(about) + "\n", encoding="utf-8")
    assert choose_gpu.main([str(lines), "--out", str(out)]) == 1
    assert "expected a run on a CUDA device" in capsys.readouterr().err
    assert not out.exists()


def test_the_packages_table_is_where_the_command_writes() -> None:
    assert table_of(json.loads(choose_gpu.FILE.read_text(encoding="utf-8"))) == checked_in()
