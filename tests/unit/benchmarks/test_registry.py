"""Cases, contestants and targets are complete and consistent."""

from __future__ import annotations

import pytest
from registry import (
    BY_NAME,
    CASES,
    COMMON_SHAPES,
    CONTESTANTS,
    HALF,
    KINDS,
    MODES,
    OURS,
    OWN_BARE,
    SHAPES,
    Case,
    Target,
    small,
    targets,
)


def bare(kind: str, mode: str, T: int, B: int, H: int) -> Case:
    return Case(kind, mode, "bare", T, B, H, H)


def bounds(case: Case, quantity: str = "ratio") -> dict[tuple[str, ...], float]:
    return {target.versus: target.bound for target in targets(case) if target.quantity == quantity}


def test_every_kind_mode_and_shape_is_a_case() -> None:
    assert {bare(kind, mode, *shape) for kind in KINDS for mode in MODES for shape in COMMON_SHAPES} <= set(CASES)
    with_targets = [kind for kind in KINDS if kind != "rnn"]
    assert {bare(kind, mode, *shape) for kind in with_targets for mode in MODES for shape in SHAPES} <= set(CASES)


def test_slow_contestants_take_the_common_shapes_and_steps() -> None:
    loop = BY_NAME["torch loop"]
    assert loop.takes(bare("lstm", "training", 100, 64, 512)) and not loop.takes(
        bare("lstm", "training", 100, 128, 1024)
    )
    assert loop.takes(Case("lstm", "inference", "step", 1, 1, 32, 32))


def test_half_precision_is_timed_beside_torchs_layers() -> None:
    cases = [case for case in CASES if case.variation == HALF]
    assert {(case.kind, case.mode) for case in cases} == {("lstm", "inference"), ("gru_after", "inference")}
    assert all([name for name in BY_NAME if BY_NAME[name].takes(case)] == [OURS, "torch.nn"] for case in cases)
    assert {case.kind: bounds(case) for case in cases} == {"lstm": {("torch.nn",): 1}, "gru_after": {("torch.nn",): 2}}


def test_names_are_unique() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    assert len(BY_NAME) == len(CONTESTANTS)


def test_ours_takes_every_case() -> None:
    assert [case.name for case in CASES if not BY_NAME[OURS].takes(case)] == []


def test_flops_of_an_lstm() -> None:
    assert bare("lstm", "inference", 2, 3, 5).flops == 2 * 3 * (2 * 5 * 20 + 2 * 5 * 20)
    assert bare("lstm", "training", 2, 3, 5).flops == 3 * bare("lstm", "inference", 2, 3, 5).flops


def test_small_case_keeps_what_is_computed() -> None:
    case = small(Case("lstm", "training", "resets", 100, 16, 256, 256))
    assert (case.kind, case.mode, case.variation) == ("lstm", "training", "resets")
    assert small(Case("lstm", "inference", "step", 1, 1, 32, 32)).T == 1


@pytest.mark.parametrize(
    "case, versus, bound",
    [
        (bare("lstm", "inference", 100, 16, 256), ("torch.nn",), 1.0),
        (bare("lstm", "inference", 100, 1, 128), ("torch.nn",), 2.0),
        (bare("lstm", "training", 100, 1, 256), ("torch.nn",), 1.8),
        (bare("lstm", "training", 100, 16, 256), ("torch.nn",), 1.05),
        (bare("lstm", "training", 100, 128, 1024), ("torch.nn",), 1.15),
        (bare("gru_before", "training", 100, 1, 128), ("torch.nn",), 6),
        (bare("gru_after", "training", 35, 20, 650), ("torch.nn",), 1.4),
        (bare("gru_after", "training", 100, 128, 1024), ("torch.nn",), 1.2),
        (bare("gru_before", "training", 100, 64, 512), ("jax",), 1.0),
        (bare("gru_after", "inference", 100, 1, 256), ("torch.nn",), 3),
        (bare("gru_after", "inference", 100, 64, 256), ("torch.nn",), 1.3),
        (bare("gru_before", "inference", 100, 128, 1024), ("torch.nn",), 1.05),
        (bare("gru_before", "inference", 100, 16, 256), ("openvino", "onnxruntime"), 0.95),
        (Case("lstm", "training", "variational", 100, 1, 128, 128), ("torch loop",), 12),
        (Case("gru_before", "training", "variational", 100, 64, 512, 512), ("tf1",), 2.2),
        (Case("lstm", "inference", "step", 1, 1, 128, 128), ("torch.nn",), 20),
        (Case("lstm", "inference", "step", 1, 1, 128, 128), ("torch loop",), 5),
    ],
    ids=lambda value: value.name if isinstance(value, Case) else None,
)
def test_bounds_on_speed(case: Case, versus: tuple[str, ...], bound: float) -> None:
    assert bounds(case)[versus] == bound


@pytest.mark.parametrize("variation, bound", [("variational", 1.05), ("per-step", 1.10), ("resets", 1.05)])
def test_bounds_on_costs(variation: str, bound: float) -> None:
    case = Case("gru_before", "training", variation, 35, 20, 650, 650)
    assert bounds(case, "cost") == {(OWN_BARE,): bound}


def test_bounds_on_rate_and_memory() -> None:
    assert bounds(bare("gru_after", "training", 100, 64, 512), "sgemm") == {(): 0.85}
    assert bounds(bare("gru_after", "training", 100, 64, 256), "sgemm") == {}
    assert bounds(bare("lstm", "training", 100, 1, 128), "saved") == {(): 6}
    assert bounds(bare("gru_after", "training", 100, 1, 128), "saved") == {}


def test_a_target_is_met_from_its_bound_on() -> None:
    assert Target("ratio", 2.0, ("torch.nn",)).met(2.0)
    assert not Target("ratio", 2.0, ("torch.nn",)).met(1.999)
    assert Target("cost", 1.05, (OWN_BARE,)).met(1.05)
    assert not Target("cost", 1.05, (OWN_BARE,)).met(1.051)
    assert not Target("ratio", 2.0).met(float("nan"))
