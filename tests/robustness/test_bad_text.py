"""Files that nobody can learn from: one line says why, the run folder is not begun."""

from __future__ import annotations

import os

import pytest

from cellweave.cli import main

BAD = {
    "empty": (b"", "expected text, got an empty file."),
    "white-space": (b"\n\n \t\n", "expected text, got only white space."),
    "binary": (bytes(range(256)), "expected text in UTF-8, got a binary file (zero byte at position 0)."),
    "elf": (b"\x7fELF\x02\x01\x01\x00\x00", "got a binary file (zero byte at position 7)."),
    "png": (b"\x89PNG\r\n\x1a\n", "expected text in UTF-8, got byte 0x89 at position 0."),
    "latin-1": ("über den Wolken ".encode("latin-1") * 300, "expected text in UTF-8, got byte 0xfc at position 0."),
    "utf-16": ("hello ".encode("utf-16") * 300, "got a binary file"),
    "cut-utf-8": (("é" * 3000).encode()[:-1], "got byte 0xc3 at position 5998."),
    "surrogate": (b"a" * 3000 + b"\xed\xa0\x80", "got byte 0xed at position 3000."),
    "too-short": (b"to be or not to be", "expected at least 2561 characters for training with batch 64 and time 40"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_text(tmp_path, capsys, name):
    data, facts = BAD[name]
    path = tmp_path / f"{name}.txt"
    path.write_bytes(data)
    assert main(["train", str(path), "--out", str(tmp_path / "run")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("cellweave: text ")
    assert len(captured.err.splitlines()) == 1
    assert str(path) in captured.err
    assert facts in captured.err
    assert not (tmp_path / "run").exists()


def test_missing_text_and_folder(tmp_path, capsys):
    for path, facts in ((tmp_path / "gone.txt", "got no such file. Check the path."), (tmp_path, "got a folder.")):
        assert main(["train", str(path), "--out", str(tmp_path / "run")]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"cellweave: text file {path}: expected a text file, {facts}")
        assert len(error.splitlines()) == 1


@pytest.mark.skipif(os.name != "posix", reason="needs a path whose parent is a file, worded by POSIX")
def test_a_run_folder_that_cannot_be_made(tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("abcdefgh\n" * 1000)
    assert main(["train", str(text), "--out", str(text / "run")]) == 2
    error = capsys.readouterr().err
    assert "expected to read and write there, got: Not a directory" in error
    assert main(["train", str(text), "--out", str(text)]) == 2
    assert "expected a folder or nothing, got a file. Name another folder." in capsys.readouterr().err


def test_a_text_of_one_repeated_character_is_learned(tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("a" * 4000)
    words = ["--steps", "3", "--units", "4", "--embedding", "3", "--threads", "1"]
    assert main(["train", str(text), "--out", str(tmp_path / "run"), *words]) == 0
    assert main(["generate", str(tmp_path / "run"), "--length", "5"]) == 0
    assert capsys.readouterr().out.endswith("aaaaa\n")
