"""`cellweave train` as a user runs it."""

from __future__ import annotations

import re
import signal

import pytest
from rich.console import Console

from cellweave.cli import _train as train_command
from cellweave.cli import main
from cellweave.training import TrainConfig, resume, train
from helpers.tiny_runs import metrics_of, tiny_settings


def options(text_file, *more, **changes):
    """The command line of a tiny run."""
    settings = tiny_settings(text_file, **changes)
    words = [str(settings.pop("text"))]
    for name, value in settings.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return ["train", *words, *map(str, more)]


def complaint(capsys, *arguments):
    """What a refused command line says: one line on stderr, exit code 2, nothing else."""
    assert main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.endswith("\n")
    assert len(captured.err.splitlines()) == 1
    assert captured.err.startswith("cellweave: ")
    return captured.err


def test_trains_as_the_library_does_and_reports(text_file, tmp_path, finished, capsys):
    run = tmp_path / "run"
    assert main(options(text_file, "--out", run)) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert metrics_of(run) == metrics_of(finished.run)
    lines = captured.out.splitlines()
    assert lines[0].startswith("step  0/24  validation ")
    assert "bits per character, perplexity" in lines[0]
    assert finished.sample in captured.out
    ends = "\n".join(lines[-4:])
    assert re.search(r"Ended after 24 steps and \d+ s: all steps done\.", ends)
    assert (
        f"Validation perplexity: {finished.perplexity_before:.2f} before training, {finished.perplexity_after:.2f}"
        in ends
    )
    assert f"Learning curve: {run}/curve.png (and curve.svg)" in ends
    assert f"cellweave generate {run}" in ends


def test_compare_ends_with_plan_and_speed_up(text_file, tmp_path, capsys):
    assert main(options(text_file, "--out", tmp_path / "run", "--compare", steps=2)) == 0
    ends = capsys.readouterr().out.splitlines()[-6:]
    assert "Plan of the recurrent layers in a training step (T=6, B=4):" in ends
    assert sum(line.split()[0] in "12" and "native" in line for line in ends) == 2
    assert re.search(r"takes [\d.]+ ms woven and [\d.]+ ms step by step: [\d.]+ times as fast", ends[-1])


def test_words_have_perplexity_alone(text_file, tmp_path, capsys):
    assert main(options(text_file, "--out", tmp_path / "run", level="word", steps=2)) == 0
    output = capsys.readouterr().out
    assert re.search(r"step 0/2  validation perplexity \d+\.\d\n", output)
    assert "bits per word" in output


def test_every_setting_has_an_option_and_every_option_arrives(monkeypatch, tmp_path):
    changed = {
        "level": "word", "min_count": 3, "max_vocabulary": 77, "max_characters": 999, "cell": "gru", "layers": 3,
        "units": 11, "embedding": 11, "input_keep": 0.5, "state_keep": 0.6, "output_keep": 0.7, "steps": 9,
        "batch": 2, "time": 3,
        "optimizer": "sgd", "lr": 0.5, "weight_decay": 0.25, "schedule": "plateau", "warmup": 2, "clip": 0.125,
        "validate_every": 4, "snapshot_every": 5, "log_every": 6, "patience": 7, "max_seconds": 8.0, "seed": 9,
        "threads": 1,
    }  # fmt: skip
    seen = {}
    monkeypatch.setattr(train_command.training, "train", lambda config, out, **rest: seen.update(config.to_settings()))
    monkeypatch.setattr(train_command, "_report", lambda result: None)
    words = [word for name, value in changed.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    flags = ["--tied", "--variational", "--mask-per-row"]
    assert main(["train", "a.txt", *words, *flags]) == 0
    expected = {**changed, "text": "a.txt", "epochs": None, "tied": True, "variational": True, "mask_per_row": True}
    assert seen == expected
    assert set(seen) == set(TrainConfig().to_settings())
    defaults = TrainConfig().to_settings()
    assert [name for name, value in expected.items() if name != "epochs" and value == defaults[name]] == []
    assert main(["train", "--epochs", "3", "--per-step", "--mask-shared", "--untied"]) == 0
    assert seen == {**defaults, "epochs": 3}


def test_options_override_a_preset(monkeypatch):
    seen = {}
    monkeypatch.setattr(train_command.training, "train", lambda config, out, **rest: seen.update(config.to_settings()))
    monkeypatch.setattr(train_command, "_report", lambda result: None)
    assert main(["train", "--preset", "demo", "--units", "5", "--epochs", "2"]) == 0
    assert (seen["units"], seen["epochs"], seen["steps"]) == (5, 2, None)
    assert seen["variational"] is True


def test_help_names_every_setting_and_its_default(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["train", "--help"]) == 0
    output = capsys.readouterr().out
    for name, value in TrainConfig().to_settings().items():
        if name != "text":
            assert f"--{name.replace('_', '-')}" in output
            assert value is None or isinstance(value, bool) or f"Default: {value}." in output
    assert "[FILE]" in output


@pytest.mark.parametrize(
    "words, facts",
    [
        (["--cell", "lstmm"], "cell: expected one of lstm, gru, rnn, got 'lstmm'. Choose one of these."),
        (
            ["--input-keep", "1.5"],
            "input_keep: expected a probability of keeping a value, above 0 and at most 1, got 1.5.",
        ),
        (["--state-keep", "0"], "state_keep: expected a probability .* got 0.0."),
        (["--preset", "fast"], "preset: expected one of demo, got 'fast'."),
        (["--units", "many"], "got: Invalid value for '--units'"),
        (["--unit", "3"], "got: No such option: --unit"),
        (["--units"], "got: Option '--units' requires an argument"),
        (["--resume", "--overwrite"], "--resume continues a run and --overwrite replaces it"),
        (["--steps", "3", "--epochs", "1"], "steps: expected steps or epochs, got both"),
    ],
)
def test_wrong_settings(text_file, tmp_path, capsys, words, facts):
    assert re.search(facts, complaint(capsys, "train", text_file, "--out", tmp_path / "run", *words))
    assert not (tmp_path / "run").exists()


def test_a_run_in_the_folder_is_safe_unless_overwritten(text_file, tmp_path, capsys):
    run = tmp_path / "run"
    command = options(text_file, "--out", run, steps=2)
    assert main(command) == 0
    first = (run / "metrics.jsonl").read_bytes()
    capsys.readouterr()
    assert "expected no earlier run there, got one. Continue it with --resume" in complaint(capsys, *command)
    assert (run / "metrics.jsonl").read_bytes() == first
    assert main([*command, "--overwrite"]) == 0


def test_resume_without_a_snapshot(tmp_path, capsys):
    error = complaint(capsys, "train", "--resume", "--out", tmp_path / "none")
    assert "none: expected a snapshot to resume from (snapshot.pt), got none." in error


def test_resume_takes_no_other_settings(finished, capsys):
    error = complaint(capsys, "train", "--resume", "--out", finished.run, "--units", "9")
    assert "expected the run's own settings, got units 9 where the run has 7." in error


def test_ctrl_c_ends_with_a_line_and_130(text_file, tmp_path, capsys, monkeypatch, finished):
    def pressing(config, out, *, overwrite, observe):
        def observe_and_press(progress):
            if progress.kind == "step" and progress.step == 6:
                signal.raise_signal(signal.SIGINT)

        return train(config, out, overwrite=overwrite, observe=observe_and_press)

    monkeypatch.setattr(train_command.training, "train", pressing)
    run = tmp_path / "run"
    assert main(options(text_file, "--out", run)) == 130
    errors = capsys.readouterr().err
    assert errors == (
        f"cellweave: Interrupted after step 6; the snapshot is saved. Continue: cellweave train --resume --out {run}\n"
    )
    assert main(["train", "--resume", "--out", str(run)]) == 0
    assert metrics_of(run) == metrics_of(finished.run)


def test_a_terminal_gets_a_live_bar(text_file, tmp_path, monkeypatch, capsys):
    screen = Console(force_terminal=True, width=80, color_system=None)
    monkeypatch.setattr(train_command, "Console", lambda: screen)
    assert main(options(text_file, "--out", tmp_path / "run")) == 0
    output = capsys.readouterr().out
    assert re.search(
        r"step 24/24 .*loss \d\.\d\d, \d\.\d\d bits/char, [\d,]+ tokens/s, 0:00 left",
        output,
    )
    assert "step 24/24  validation" in output
    assert resume(tmp_path / "run").step == 24
