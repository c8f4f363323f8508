"""What people read of a run on a GPU: ratios, targets, what is noise, what is missing."""

from __future__ import annotations

from typing import Any

import pytest
from gpu.plan import ANCHOR, CUDNN, EAGER_LOOP, PEEPHOLES, TRITON, WRAPPED, GpuCase, Target, anchor_ms, target
from gpu.table import floor_us, milliseconds, short, table, verdicts

ABOUT = {"phase": "set-up", "trial": False, "device": "Some GPU", "when": "2030-01-02", "versions": {"torch": "9.9"}}
AT_ANCHOR = GpuCase("lstm", "training", "bfloat16", *ANCHOR)
MEASURED = {"M1": 4.0, "M2": 800.0, "M3": {"32": 1.5, "128": 2.0}, "M4": {"128": 0.8}, "M5": {"16": 0.3, "64": 0.8}}


def timing(ms: float, **more: Any) -> dict[str, Any]:
    return {
        "ms": ms, "p10_ms": 0.9 * ms, "p90_ms": 2 * ms, "halves": [ms, ms], "cpu_ms": 0.5, "peak_mb": 7.0,
        "saved_bytes": 22.0, "launches": 3, "kernels": [["gemm", 2, 5.0], ["lstm|persist", 1, 3.0]], **more,
    }  # fmt: skip


def row(case: GpuCase, phase: str = "ours", **contestants: Any) -> dict[str, Any]:
    return {"phase": phase, "case": case.name, **case.as_dict(), "contestants": contestants}


def lstm(dtype: str, B: int, H: int, T: int = 512) -> GpuCase:
    return GpuCase("lstm", "training", dtype, T, B, H)


@pytest.mark.parametrize(
    "case, name, expected",
    [
        (lstm("float16", 64, 1024), TRITON, (CUDNN, 2.0, 1.3)),
        (lstm("bfloat16", 64, 512), TRITON, (CUDNN, 1.0, 0.6)),
        (lstm("tf32", 16, 256), TRITON, (CUDNN, 1.0, 0.6)),
        (lstm("bfloat16", 32, 128), TRITON, (CUDNN, 2.0, 1.3)),
        (lstm("bfloat16", 128, 1024), TRITON, (CUDNN, 1.5, 1.2)),
        (lstm("bfloat16", 16, 1536), TRITON, (CUDNN, 1.5, 1.2)),
        (lstm("tf32", 16, 1088), TRITON, (CUDNN, 1.5, 1.2)),
        (GpuCase("gru_before", "inference", "bfloat16", 512, 16, 768), TRITON, (CUDNN, 1.4, 1.0)),
        (GpuCase("gru_after", "training", "float16", 512, 16, 768), TRITON, (CUDNN, 1.0, 0.6)),
        (GpuCase("rnn", "training", "float16", 512, 16, 768), TRITON, (CUDNN, 2.0, 1.3)),
        (lstm("bfloat16", 64, 512), WRAPPED, (TRITON, 1.2, 1.1)),
        (lstm("bfloat16", 64, 512), PEEPHOLES, (TRITON, 1.3, 1.2)),
    ],
)
def test_targets(case: GpuCase, name: str, expected: tuple[str, float, float]) -> None:
    assert target(case, name) == Target(*expected)


def test_nothing_is_promised_of_others() -> None:
    assert target(AT_ANCHOR, CUDNN) is None
    assert target(lstm("float32", 16, 768), TRITON) is None
    assert target(lstm("bfloat16", 128, 512), TRITON) is None
    assert anchor_ms(AT_ANCHOR, TRITON) == (9.0, 6.5)
    assert anchor_ms(AT_ANCHOR, WRAPPED) is anchor_ms(lstm("tf32", 16, 768, 1024), TRITON) is None


def test_targets_are_judged() -> None:
    others = {CUDNN: timing(10.0), TRITON: timing(8.0), WRAPPED: timing(9.6)}
    bare = verdicts(AT_ANCHOR, TRITON, others[TRITON], others)
    assert bare == [
        "≤ 1 (1.0: ≤ 0.6) of torch.nn: met (0.8)",
        "≤ 9 ms (1.0: ≤ 6.5): met (8)",
        "≤ 14 bytes kept: **missed** (22)",
    ]
    assert verdicts(AT_ANCHOR, WRAPPED, others[WRAPPED], others) == ["≤ 1.2 (1.0: ≤ 1.1) of triton: met (1.2)"]
    assert verdicts(AT_ANCHOR, TRITON, timing(5.0, saved_bytes=6.0), {CUDNN: {"error": "no"}}) == [
        "≤ 1 (1.0: ≤ 0.6) of torch.nn: not measured",
        "≤ 9 ms (1.0: ≤ 6.5): met for 1.0 (5)",
        "≤ 14 bytes kept: met for 1.0 (6)",
    ]
    assert "**missed** (1.2)" in verdicts(AT_ANCHOR, TRITON, timing(12.0), others)[0]


def test_floor_is_the_largest_of_what_a_step_needs() -> None:
    small, large = (
        GpuCase("lstm", "inference", "bfloat16", 512, 1, 64),
        GpuCase("lstm", "inference", "bfloat16", 512, 256, 4096),
    )
    assert floor_us(small, MEASURED) == pytest.approx(0.8)
    assert floor_us(large, MEASURED) == pytest.approx(2 * 4 * 4096**2 * 256 / 800e6)
    half = GpuCase("lstm", "inference", "bfloat16", 512, 16, 768)
    assert floor_us(half, MEASURED) == pytest.approx(0.8)
    near = {**MEASURED, "M4": {"128": 0.01}}
    assert floor_us(half, near) == pytest.approx(16 * 768 * 2 / 1024 * 0.8 / 64)
    assert floor_us(AT_ANCHOR, near) == pytest.approx(16 * 768 * 2 / 1024 * 0.8 / 64 * (1 + 4))
    moved = {**near, "M1": 0.001}
    assert floor_us(half, moved) == pytest.approx(24 * 16 * 768 / 1e3)
    assert floor_us(lstm("tf32", 16, 768), MEASURED) is None
    assert floor_us(half, {"M1": 4.0}) is None


def test_few_steps_of_a_loop_are_scaled() -> None:
    case = lstm("bfloat16", 16, 256)
    assert milliseconds(case, EAGER_LOOP, timing(2.0, steps=64)) == 16.0
    assert milliseconds(case, TRITON, timing(2.0)) == 2.0
    text = table([ABOUT, row(case, "loops", **{EAGER_LOOP: timing(2.0, steps=64)})])
    assert "| 16 (14.4 to 32), scaled from 64 steps | 31.2 |" in text


def test_table_shows_ratios_noise_and_reasons() -> None:
    case = lstm("bfloat16", 64, 512)
    contestants = {CUDNN: timing(4.0), TRITON: timing(6.0, halves=[5.0, 7.0]), WRAPPED: {"error": "broke|down"}}
    checked = {"phase": "correctness", "case": case.name, **case.as_dict(), "name": TRITON, "passes": True}
    wrong = {**checked, "name": WRAPPED, "passes": False, "repeats": False}
    wrong["worst"] = {"tensor": "h", "error": 0.25, "bound": 0.01}
    text = table([
        ABOUT, {"phase": "calibration", "what": "M1", "value": 4.321, "unit": "TB/s"},
        {"phase": "calibration", "what": "M5", "values": {"16": 0.3}, "by": "KiB", "unit": "us"},
        {"phase": "calibration", "what": "M8", "error": "the driver refuses"}, checked, wrong,
        row(case, **contestants), row(case, "cuDNN", **{CUDNN: timing(4.0)}), {"phase": "end"},
    ])  # fmt: skip
    assert "Some GPU. torch 9.9." in text and "trial" not in text
    assert "| M1 | 4.32 TB/s |" in text and "| M5 | 16 KiB: 0.3 (us) |" in text
    assert "| M8 | not measured: the driver refuses |" in text
    assert "1 of 2 kernels are right" in text and "| h | 0.25 | 0.01 | **no** |" in text
    assert "| triton | 6 (5.4 to 12, noisy) | 11.7 | 1.5 |" in text
    assert "**missed** (1.5)" in text
    assert "| triton, wrapped | broke/down |" in text
    assert "2 × gemm; 1 × lstm/persist" in text


def test_the_terminal_shows_little() -> None:
    case = lstm("bfloat16", 64, 512)
    contestants = {CUDNN: timing(4.0), TRITON: timing(3.0), WRAPPED: timing(6.0), PEEPHOLES: {"error": "broke"}}
    lines = short([
        ABOUT, {"phase": "calibration", "what": "M1", "value": 4.321, "unit": "TB/s"}, row(case, **contestants),
        row(case, "loops", **{EAGER_LOOP: timing(2.0, steps=64)}), row(case, "cuDNN", **{CUDNN: timing(4.0)}),
    ])  # fmt: skip
    assert lines == [
        "M1 4.32 TB/s",
        "0 of 0 kernels are right: within the bound of float64, the same bits each time.",
        f"{case.name}: torch.nn 4 ms, triton 3 ms, triton, wrapped 6 ms",
        f"{case.name}: {EAGER_LOOP} 16 ms",
        "targets: 0 met for 1.0, 1 met, 2 missed, 0 not measured",
    ]
    assert short([]) == short([{"phase": "end"}])


def test_a_table_of_nothing_says_so() -> None:
    assert "The run did not reach its end." in table([])
