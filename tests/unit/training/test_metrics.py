"""Metrics: JSON lines that a resumed run continues without doubles."""

from __future__ import annotations

import math

import pytest

from cellweave.training._metrics import MetricsFile, loss_fields, read_metrics


def test_a_loss_under_its_three_names():
    assert loss_fields(math.log(8)) == pytest.approx({"loss": math.log(8), "bits": 3.0, "perplexity": 8.0})
    assert math.isfinite(loss_fields(1e6)["perplexity"])


def test_lines_beyond_the_offset_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsFile(path)
    metrics.write("train", 1, {"loss": 0.1})
    offset = metrics.sync()
    metrics.write("train", 2, {"loss": 0.2})
    metrics.close()
    resumed = MetricsFile(path, offset)
    resumed.write("train", 2, {"loss": 0.3})
    resumed.close()
    assert read_metrics(path) == [
        {"event": "train", "step": 1, "loss": 0.1},
        {"event": "train", "step": 2, "loss": 0.3},
    ]


def test_a_half_written_line_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"event": "train", "step": 1}\n{"event": "tr')
    assert read_metrics(path) == [{"event": "train", "step": 1}]


def test_a_new_file_holds_nothing_of_an_old_one(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"old\n")
    MetricsFile(path).close()
    assert path.read_bytes() == b""


def test_numbers_that_json_lacks_are_refused(tmp_path):
    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    with pytest.raises(ValueError):
        metrics.write("train", 1, {"loss": math.nan})
    metrics.close()


def test_a_file_shorter_than_its_offset_is_not_filled_up(tmp_path):
    metrics = MetricsFile(tmp_path / "metrics.jsonl", offset=100)
    metrics.write("train", 1, {})
    metrics.close()
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"event": "train", "step": 1}]
