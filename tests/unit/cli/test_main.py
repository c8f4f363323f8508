"""The entry: version, help, doctor, missing packages, exit codes."""

from __future__ import annotations

import builtins
import errno
import subprocess
import sys

import pytest
import torch

import cellweave
from cellweave.cli import main


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"cellweave {cellweave.__version__}\n"


def test_no_command_and_help_list_the_commands(capsys):
    for words in ([], ["--help"], ["-h"]):
        assert main(words) == 0
        output = capsys.readouterr().out
        assert all(command in output for command in ("train", "generate", "doctor", "--version"))


def test_an_unknown_command(capsys):
    assert main(["trian"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    expected = "cellweave: command line: expected a command and options that it has, got: No such command 'trian'."
    assert captured.err.startswith(expected)
    assert len(captured.err.splitlines()) == 1


def test_doctor_names_versions_devices_and_backends(capsys):
    assert main(["doctor"]) == 0
    output = capsys.readouterr().out
    assert f"torch        {torch.__version__}" in output
    for word in ("versions", "platform", "devices", "backends", "reference", "native", "triton", "cpu"):
        assert word in output


@pytest.mark.parametrize("package", ["typer", "rich", "safetensors"])
def test_a_missing_package_is_named_with_what_to_install(monkeypatch, capsys, package):
    for name in list(sys.modules):
        inside = name.startswith(("cellweave.cli.", "cellweave.training"))
        if inside and name != "cellweave.cli._main":
            monkeypatch.delitem(sys.modules, name)
    original = builtins.__import__

    def without(name, *rest, **more):
        if name.split(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
        return original(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    assert main(["doctor"]) == 2
    expected = f"expected the package {package}, got none. Install it: pip install 'cellweave[train]'"
    assert capsys.readouterr().err == f"cellweave: command line: {expected}\n"


def test_python_m_cellweave(tmp_path):
    command = [sys.executable, "-m", "cellweave", "train", "nowhere.txt"]
    process = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path)
    assert process.returncode == 2
    assert process.stdout == ""
    expected = f"text file {tmp_path / 'nowhere.txt'}: expected a text file, got no such file. Check the path."
    assert process.stderr == f"cellweave: {expected}\n"


def test_output_that_cannot_be_written(monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("typer.echo", full)
    assert main(["doctor"]) == 2
    assert capsys.readouterr().err == "cellweave: output: expected to write to it, got: No space left on device.\n"


def test_a_wrong_option_leads_to_the_help_of_its_command(capsys):
    assert main(["inspect", "--cod", "x"]) == 2
    assert capsys.readouterr().err.endswith("See cellweave inspect --help.\n")
