"""The learning curve."""

from __future__ import annotations

import re

import pytest

from cellweave import RunError
from cellweave.training import _curve
from cellweave.training._metrics import loss_fields

METRICS = [{"event": "valid", "step": 0, **loss_fields(4.0)}] + [
    {"event": event, "step": step, **loss_fields(4.0 - step / 50)}
    for step in range(10, 101, 10)
    for event in ("train", "valid")
]


@pytest.mark.parametrize("level, axis", [("char", "bits per character"), ("word", "perplexity")])
def test_both_pictures_show_two_named_series(level, axis):
    png, svg = _curve.draw_curve(METRICS, level, "words.txt, lstm")
    assert png.startswith(b"\x89PNG")
    text = svg.decode()
    for words in ("words.txt, lstm", "training step", axis, "validation", "training, mean"):
        assert words in text
    assert len(set(re.findall(r"stroke: (#7aa6c2|#c8553d)", text))) == 2


def test_the_same_metrics_give_the_same_bytes():
    assert _curve.draw_curve(METRICS, "char", "a") == _curve.draw_curve(METRICS, "char", "a")


def test_a_run_that_ended_before_its_first_line_still_has_a_picture():
    png, _ = _curve.draw_curve(METRICS[:1], "char", "a")
    assert png.startswith(b"\x89PNG")


def test_without_matplotlib_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(_curve, "find_spec", lambda name: None)
    with pytest.raises(
        RunError, match=r"the package matplotlib, got none. Install it: pip install 'cellweave\[train\]'"
    ):
        _curve.draw_curve(METRICS, "char", "a")
