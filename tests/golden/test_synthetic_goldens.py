"""The golden check itself: compositions that no golden holds, and sets that must fail.

The expected numbers come from the NumPy oracles, which tests/oracles proves by TensorFlow's own.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.golden_eager import check_eager
from helpers.golden_graph import NOT_RECORDED, check_in_graph
from helpers.golden_runs import check_values, check_variables
from helpers.golden_set import DEFAULT, Arrays, GoldenSetError, read_errors, read_manifest
from helpers.synthetic_goldens import make_case, make_eager_case, write_set

GOLDEN = Path(__file__).resolve().parent
CASES, GRAPH_CASES, EAGER_CASES, HALF_CASES = 120, 40, 30, 20


@pytest.mark.parametrize("number", range(CASES))
def test_random_compositions(number: int) -> None:
    case, arrays = make_case(number)
    check_variables(case, Arrays(arrays))
    check_values(case, Arrays(arrays))


@pytest.mark.parametrize("number", [n for n in range(GRAPH_CASES) if make_case(n)[0]["driver"] not in NOT_RECORDED])
def test_random_compositions_in_a_recorded_graph(number: int) -> None:
    case, arrays = make_case(number)
    check_in_graph(case, Arrays(arrays))


@pytest.mark.parametrize("number", range(HALF_CASES))
def test_random_compositions_in_half_precision(number: int) -> None:
    case, arrays = make_case(number, "float16")
    check_values(case, Arrays(arrays))


@pytest.mark.parametrize("number", range(EAGER_CASES))
def test_random_eager_wrappers(number: int) -> None:
    case, arrays = make_eager_case(number)
    check_eager(case, Arrays(arrays))


def _pytest(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-o", f"cache_dir={tmp_path / 'cache'}", *arguments]
    return subprocess.run(command, cwd=GOLDEN.parents[1], capture_output=True, text=True, check=False)


def _outcomes(directory: Path, tmp_path: Path) -> dict[str, str]:
    """Outcome of each test that `pytest tests/golden --goldens DIR` makes of a set."""
    files = [str(GOLDEN / f"test_golden_{name}.py") for name in ("cases", "errors", "files")]
    done = _pytest(tmp_path, "-rA", *files, "--goldens", str(directory))
    lines = [line.split(" ", 2) for line in done.stdout.splitlines() if line.startswith(("PASSED ", "FAILED "))]
    assert lines, done.stdout + done.stderr
    return {line[1].rsplit("::", 1)[1]: line[0] for line in lines}


def test_command_line(tmp_path: Path) -> None:
    """A good set passes; each bad case fails by itself."""
    good, other = make_case(5), make_case(6)
    number = next(n for n in range(1000) if _is_wrapped_dynamic(make_case(n)[0]))
    bad: dict[str, tuple[dict[str, Any], dict[str, np.ndarray]]] = {}
    for fault in (
        "value",
        "nan",
        "gradient",
        "name",
        "order",
        "kwarg",
        "visitor",
        "driver",
        "key",
        "array",
        "structure",
    ):
        case, arrays = make_case(number)
        case["id"], bad[fault] = fault, (case, arrays)
    bad["value"][1]["out"] = bad["value"][1]["out"] + 1e-3
    bad["nan"][1]["final0"][0, 0] = np.nan
    bad["gradient"][1]["gw0"][0, 0] += 1e-3
    bad["name"][0]["variables"][0]["name"] += "x"
    bad["order"][0]["variables"].reverse()
    _first(bad["kwarg"][0]["cell"], "num_units")["foo"] = 1
    _first(bad["visitor"][0]["cell"], "seed")["dropout_state_filter_visitor"] = "unheard_of"
    bad["driver"][0]["driver"] = "time_machine"
    bad["key"][0]["surprise"] = True
    bad["array"][1]["zz"] = np.zeros(1, np.float32)
    bad["structure"][0]["state_structure"] = "[*]"
    errors = [
        {**next(e for e in read_errors(DEFAULT) if e["id"] == "multi_empty")},
        {"id": "never_heard_of", "symbol": "GRUCell", "condition": "?", "raises": "ValueError"},
        {"id": "multi_not_list", "symbol": "MultiRNNCell", "condition": "?", "raises": "ValueError"},
        {"id": "static_empty", "symbol": "static_rnn", "condition": "?", "raises": None},
    ]
    write_set(tmp_path / "set", [good, other, *bad.values()], errors)
    with (tmp_path / "set" / f"{other[0]['file']}").open("ab") as file:
        file.write(b"x")
    found = _outcomes(tmp_path / "set", tmp_path)
    assert found[f"test_values[{good[0]['id']}]"] == found[f"test_variables[{good[0]['id']}]"] == "PASSED"
    for fault in bad.keys() - {"order"}:
        assert found[f"test_values[{fault}]"] == "FAILED", fault
    for fault in ("name", "order"):
        assert found[f"test_variables[{fault}]"] == "FAILED", fault
    damaged = f"test_file_is_the_one_that_was_written[{other[0]['id']}]"
    assert found[damaged] == "FAILED"
    assert found["test_probe[multi_empty]"] == "PASSED"
    for probe in ("never_heard_of", "multi_not_list", "static_empty"):
        assert found[f"test_probe[{probe}]"] == "FAILED", probe


def _is_wrapped_dynamic(case: dict[str, Any]) -> bool:
    tree = case.get("cell", {})
    return case["driver"] == "dynamic_rnn" and tree["class"] == "DropoutWrapper" and len(case["variables"]) > 1


def _first(tree: dict[str, Any], kwarg: str) -> dict[str, Any]:
    """The kwargs of the first cell of a tree that has this one."""
    if kwarg in tree["kwargs"]:
        return tree["kwargs"]
    for sub in tree.get("cells", [tree.get("cell")]):
        found = _first(sub, kwarg) if sub else {}
        if found:
            return found
    return {}


@pytest.mark.parametrize(
    "manifest", [None, "not json", '{"format": 2, "cases": []}'], ids=["none", "garbled", "format"]
)
def test_a_directory_that_is_no_set(manifest: str | None, tmp_path: Path) -> None:
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(GoldenSetError, match=r"manifest\.json"):
        read_manifest(tmp_path)


def test_command_line_without_a_set(tmp_path: Path) -> None:
    done = _pytest(tmp_path, "--goldens", str(tmp_path / "nowhere"), str(GOLDEN / "test_golden_files.py"))
    assert done.returncode == pytest.ExitCode.INTERRUPTED
    assert "expected a readable manifest.json" in done.stdout + done.stderr
