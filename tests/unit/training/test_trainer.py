"""The trainer: windows, optimizers, schedules, early stopping."""

from __future__ import annotations

import math

import pytest
import torch

from cellweave import RunError
from cellweave.training import LanguageModel, make_config, train
from cellweave.training._metrics import read_metrics
from cellweave.training._trainer import evaluate
from helpers.tiny_runs import metrics_of, tiny_settings, train_tiny


def train_with(text_file, tmp_path, observe=None, **changes):
    seen = []
    result = train(make_config(tiny_settings(text_file, **changes)), tmp_path / "run", observe=observe or seen.append)
    return result, seen


def test_evaluation_reads_every_token_once_from_the_zero_state():
    config = make_config({"units": 6, "embedding": 4, "batch": 1, "time": 7, "input_keep": 0.5})
    torch.manual_seed(0)
    model = LanguageModel(config.model, 9)
    tokens = torch.randint(0, 9, (40,))
    loss = evaluate(model, tokens, config, lambda: None)
    whole, _ = model.loss(tokens[:-1, None].long(), tokens[1:, None].long(), model.initial_state(1))
    assert loss == pytest.approx(whole.item(), rel=1e-5)


def test_evaluation_takes_a_text_shorter_than_a_window():
    config = make_config({"units": 6, "embedding": 4, "batch": 8, "time": 50})
    assert math.isfinite(evaluate(LanguageModel(config.model, 9), torch.tensor([1, 2]), config, lambda: None))


def test_a_model_learns(text_file, tmp_path):
    result, _ = train_with(
        text_file, tmp_path, layers=1, units=24, batch=16, time=12, steps=150, lr=0.03, input_keep=1.0,
        state_keep=1.0, output_keep=1.0, validate_every=50, snapshot_every=1000,
    )  # fmt: skip
    assert result.loss_before == pytest.approx(math.log(24), abs=0.3)  # uniform over the characters
    assert result.bits_after < 2.6
    assert result.loss_after < result.loss_before - 1.0


@pytest.mark.parametrize("changes", [{"optimizer": "adamw"}, {"optimizer": "sgd", "lr": 1.0}, {"clip": 0.0}])
def test_every_optimizer_learns(text_file, tmp_path, changes):
    result, _ = train_with(text_file, tmp_path, **changes)
    assert result.loss_after < result.loss_before - 0.05


def test_clipping_bounds_what_a_step_of_sgd_moves(text_file, tmp_path):
    norms = []
    for clip in (0.0, 1e-6):
        result, _ = train_with(
            text_file, tmp_path / str(clip), optimizer="sgd", schedule="constant", lr=1.0, warmup=0, clip=clip, steps=3,
            validate_every=100, patience=None,
        )  # fmt: skip
        norms.append(result.loss_before - result.loss_after)
    assert norms[0] > 1e-3 > abs(norms[1])


def test_steps_follow_from_epochs_and_validation_from_the_epoch(text_file, tmp_path):
    result, seen = train_with(text_file, tmp_path, steps=None, epochs=2, validate_every=None, batch=20, time=30)
    windows = (3600 - 1) // 20 // 30
    assert result.step == 2 * windows
    assert [p.step for p in seen if p.kind == "valid"] == [0, windows, 2 * windows]


def test_the_state_is_carried_within_an_epoch_and_zero_at_its_start(text_file, tmp_path, monkeypatch):
    zero = []
    original = LanguageModel.loss

    def spy(self, inputs, targets, state):
        if self.training:
            zero.append(not any(leaf.any() for layer in state for leaf in layer))
        return original(self, inputs, targets, state)

    monkeypatch.setattr(LanguageModel, "loss", spy)
    train_with(text_file, tmp_path, steps=None, epochs=2, batch=30, time=30)
    windows = (3600 - 1) // 30 // 30
    assert zero == ([True] + [False] * (windows - 1)) * 2


def test_observed_progress(text_file, tmp_path):
    _, seen = train_with(text_file, tmp_path)
    kinds = [(p.kind, p.step) for p in seen]
    assert [step for kind, step in kinds if kind == "step"] == list(range(1, 25))
    assert [step for kind, step in kinds if kind == "train"] == list(range(3, 25, 3))
    assert [step for kind, step in kinds if kind == "valid"] == [0, 5, 10, 15, 20, 24]
    last = seen[-2]
    assert last.steps == 24
    assert last.tokens_per_second > 0
    assert last.seconds_left == 0
    assert seen[0].seconds_left is None
    assert last.bits == pytest.approx(math.log2(last.perplexity))


def test_a_train_line_is_the_mean_since_the_last(text_file, tmp_path):
    _, seen = train_with(text_file, tmp_path)
    steps = [p.loss for p in seen if p.kind == "step"]
    lines = [line for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if line["event"] == "train"]
    for number, line in enumerate(lines):
        assert line["loss"] == pytest.approx(sum(steps[3 * number : 3 * number + 3]) / 3)
        assert line["bits"] == pytest.approx(line["loss"] / math.log(2))
    assert {"learning_rate", "gradient_norm", "epoch", "perplexity", "seconds", "tokens_per_second"} <= set(lines[0])


def test_patience_ends_the_run_with_the_best_weights(text_file, tmp_path):
    result, _ = train_with(text_file, tmp_path, lr=3.0, warmup=0, schedule="constant", patience=2, steps=200)
    assert result.reason == "patience"
    valid = [line for line in metrics_of(result.run) if line["event"] == "valid"]
    assert result.step == valid[-1]["step"] < 200
    assert [line["best"] for line in valid[-2:]] == [False, False]
    best = min(valid, key=lambda line: line["loss"])
    assert (result.best_step, result.loss_after) == (best["step"], best["loss"])


def test_plateau_halves_the_learning_rate(text_file, tmp_path):
    result, _ = train_with(text_file, tmp_path, lr=3.0, warmup=0, schedule="plateau", steps=40)
    lines = metrics_of(result.run)
    failures = 0
    for line in lines:
        if line["event"] == "train":
            assert line["learning_rate"] in (3.0 * 0.5**failures, 3.0 * 0.5 ** max(0, failures - 1))
        elif line["event"] == "valid":
            failures += not line["best"]
    assert failures > 1


def test_a_time_limit_ends_the_run(text_file, tmp_path):
    result, _ = train_with(text_file, tmp_path, max_seconds=1e-6)
    assert (result.reason, result.step) == ("seconds", 0)


def test_a_loss_that_is_not_finite_stops_with_advice(text_file, tmp_path):
    with pytest.raises(RunError, match=r"train: expected a finite .* loss, got .* lower learning rate"):
        train_with(text_file, tmp_path, optimizer="sgd", lr=1e38, clip=0.0, warmup=0, schedule="constant")


def test_the_same_settings_give_the_same_bytes_and_another_seed_others(text_file, tmp_path, finished):
    torch.manual_seed(1)  # whatever the caller drew before
    again = train_tiny(text_file, tmp_path / "again")
    assert (again.run / "model.safetensors").read_bytes() == (finished.run / "model.safetensors").read_bytes()
    assert metrics_of(again.run) == metrics_of(finished.run)
    other = train_tiny(text_file, tmp_path / "other", seed=6)
    assert metrics_of(other.run) != metrics_of(finished.run)
