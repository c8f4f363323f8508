"""Runs: what a folder holds at the end, and going on after a stop."""

from __future__ import annotations

import json
import math
import signal
import threading

import pytest
import torch

from cellweave import ArgumentTypeError, RunError
from cellweave.training import generate, make_config, resume, train
from helpers.tiny_runs import metrics_of, sample_text, tiny_settings, train_tiny


def stop_at(step, kind="step", presses=1):
    """An observer that presses Ctrl-C."""

    def observe(progress):
        if (progress.kind, progress.step) == (kind, step):
            for _ in range(presses):
                signal.raise_signal(signal.SIGINT)

    return observe


def stop_then_resume(text_file, out, *stops, **changes):
    with pytest.raises(KeyboardInterrupt):
        train(make_config(tiny_settings(text_file, **changes)), out, observe=stops[0])
    for stop in stops[1:]:
        with pytest.raises(KeyboardInterrupt):
            resume(out, observe=stop)
    return resume(out)


def same_run(one, other):
    for name in ("model.safetensors", "sample.txt"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    assert metrics_of(one) == metrics_of(other)


def test_the_folder_at_the_end(finished, text_file):
    names = {path.name for path in finished.run.iterdir()}
    assert names == {
        "model.safetensors", "config.json", "metrics.jsonl", "snapshot.pt", "sample.txt", "curve.png", "curve.svg",
    }  # fmt: skip
    config = json.loads((finished.run / "config.json").read_text())
    assert config["text"]["source"] == str(text_file)
    assert config["settings"]["threads"] == 1
    assert (finished.run / "sample.txt").read_text() == finished.sample + "\n"
    assert finished.curve == finished.run / "curve.png"
    assert metrics_of(finished.run)[-1] == {
        "event": "test", "step": 24, "reason": "steps", "best_step": finished.best_step, "loss": finished.test_loss,
        "bits": finished.test_loss / math.log(2), "perplexity": math.exp(finished.test_loss),
    }  # fmt: skip


def test_the_sample_is_what_generate_writes(finished):
    assert generate(finished.run, length=400, temperature=0.8, seed=5) == finished.sample


def test_perplexity_before_and_after(finished):
    assert finished.perplexity_before > finished.perplexity_after > 1
    assert finished.bits_after == pytest.approx(finished.loss_after / math.log(2))


def test_the_callers_threads_and_generator_come_back(text_file, tmp_path):
    before, state = torch.get_num_threads(), torch.get_rng_state()
    train_tiny(text_file, tmp_path / "run", threads=before + 1, steps=2)
    assert torch.get_num_threads() == before
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "stops",
    [
        [("step", 1), ("step", 13), ("train", 18)],
        [("valid", 0), ("valid", 10), ("step", 24)],
        [("valid", 24)],
    ],
    ids=["between", "at-validation", "at-the-end"],
)
def test_stopped_and_resumed_is_never_stopped(text_file, tmp_path, finished, stops):
    result = stop_then_resume(text_file, tmp_path / "run", *[stop_at(step, kind) for kind, step in stops])
    same_run(result.run, finished.run)
    assert (result.loss_before, result.loss_after, result.test_loss) == (
        finished.loss_before, finished.loss_after, finished.test_loss,
    )  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"cell": "gru", "optimizer": "adamw", "schedule": "plateau", "lr": 0.5},
        {"cell": "rnn", "optimizer": "sgd", "variational": True, "patience": 3, "lr": 2.0},
        {"variational": True, "mask_per_row": True, "tied": True, "embedding": 7, "batch": 30, "time": 30},
        {"level": "word", "input_keep": 1.0, "state_keep": 1.0, "output_keep": 1.0},
    ],
    ids=["plateau", "sgd-patience", "epochs", "word"],
)
def test_resuming_any_kind_of_run(text_file, tmp_path, changes):
    undisturbed = train_tiny(text_file, tmp_path / "undisturbed", **changes)
    result = stop_then_resume(text_file, tmp_path / "run", stop_at(4), stop_at(11), **changes)
    same_run(result.run, undisturbed.run)


def test_resuming_between_two_validations_that_patience_counts(text_file, tmp_path):
    changes = {"lr": 3.0, "warmup": 0, "schedule": "constant", "patience": 2, "steps": 200}
    undisturbed = train_tiny(text_file, tmp_path / "undisturbed", **changes)
    worse = next(line["step"] for line in metrics_of(undisturbed.run) if line.get("best") is False)
    result = stop_then_resume(text_file, tmp_path / "run", stop_at(worse, "valid"), **changes)
    assert (result.reason, result.step) == ("patience", undisturbed.step)
    same_run(result.run, undisturbed.run)


def test_torchs_default_generator_goes_on_where_it_stood(text_file, tmp_path):
    def drawing(numbers, stop=0):
        def observe(progress):
            if progress.kind == "step":
                numbers.append(torch.rand(1).item())
                if progress.step == stop:
                    signal.raise_signal(signal.SIGINT)

        return observe

    whole, parts = [], []
    train(make_config(tiny_settings(text_file)), tmp_path / "whole", observe=drawing(whole))
    with pytest.raises(KeyboardInterrupt):
        train(make_config(tiny_settings(text_file)), tmp_path / "parts", observe=drawing(parts, stop=9))
    resume(tmp_path / "parts", observe=drawing(parts))
    assert parts == whole


def test_ctrl_c_says_where_it_stopped(text_file, tmp_path):
    with pytest.raises(KeyboardInterrupt, match=r"after step 7; .* cellweave train --resume --out .*run"):
        train(make_config(tiny_settings(text_file)), tmp_path / "run", observe=stop_at(7))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_does_not_wait(text_file, tmp_path):
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        train(make_config(tiny_settings(text_file)), tmp_path / "run", observe=stop_at(7, presses=2))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_training_in_another_thread_leaves_ctrl_c_alone(text_file, tmp_path):
    worker = threading.Thread(target=train_tiny, args=(text_file, tmp_path / "run"), kwargs={"steps": 2})
    worker.start()
    worker.join()
    assert (tmp_path / "run" / "curve.png").exists()


def test_a_finished_run_is_only_judged_again(text_file, tmp_path, finished):
    run = train_tiny(text_file, tmp_path / "run").run
    (run / "model.safetensors").unlink()
    (run / "curve.png").unlink()
    steps = []
    result = resume(run, observe=lambda progress: steps.append(progress.step))
    assert steps == []
    assert result.curve.exists()
    same_run(run, finished.run)


def test_a_stop_on_time_is_final(text_file, tmp_path):
    result = train_tiny(text_file, tmp_path / "run", max_seconds=1e-6)
    assert resume(result.run).reason == "seconds"


def test_the_text_must_be_the_same(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text(sample_text())
    run = train_tiny(text, tmp_path / "run", steps=2).run
    text.write_text(sample_text(seed=9))
    with pytest.raises(RunError, match="expected the text that the run began with, got a changed one"):
        resume(run)
    text.unlink()
    with pytest.raises(RunError, match="expected a text file, got no such file"):
        resume(run)


def test_the_text_is_found_from_another_folder(tmp_path, monkeypatch):
    (tmp_path / "text.txt").write_text(sample_text())
    monkeypatch.chdir(tmp_path)
    run = train(make_config(tiny_settings("text.txt", steps=2)), "run").run
    assert resume(run, settings={"text": "text.txt", "steps": 2}).step == 2
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert resume(tmp_path / "run").step == 2


def test_a_resumed_run_keeps_its_settings(finished):
    assert resume(finished.run, settings={"units": 7, "threads": 1}).step == 24
    with pytest.raises(RunError, match="expected the run's own settings, got units 9 where the run has 7"):
        resume(finished.run, settings={"units": 9})


def test_a_snapshot_of_another_model_is_refused(finished, text_file, tmp_path):
    run = train_tiny(text_file, tmp_path / "run", units=8, steps=2).run
    (run / "snapshot.pt").write_bytes((finished.run / "snapshot.pt").read_bytes())
    with pytest.raises(RunError, match=r"snapshot.pt: expected a snapshot of this run's model, got another"):
        resume(run)


def test_a_folder_that_cannot_be_made(text_file, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"run folder .*file/run: expected to read and write there"):
        train_tiny(text_file, tmp_path / "file" / "run")


def test_settings_are_no_config(tmp_path):
    with pytest.raises(ArgumentTypeError, match="train: expected a TrainConfig, got dict"):
        train({"units": 3}, tmp_path / "run")
    assert not (tmp_path / "run").exists()
