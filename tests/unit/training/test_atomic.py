"""Files that are whole or not there."""

from __future__ import annotations

import os

import pytest

from cellweave.training._atomic import write_atomically


def test_writes_and_replaces(tmp_path):
    path = tmp_path / "a"
    for data in (b"one", b"two"):
        write_atomically(path, lambda file, data=data: file.write(data))
        assert path.read_bytes() == data
    assert os.listdir(tmp_path) == ["a"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def half(file):
        file.write(b"ne")
        raise KeyError("stopped")

    with pytest.raises(KeyError):
        write_atomically(path, half)
    assert path.read_bytes() == b"old"


def test_content_reaches_the_disk_before_the_name(tmp_path, monkeypatch):
    order = []
    fsync, replace = os.fsync, os.replace

    def note_sync(handle):
        order.append("sync")
        fsync(handle)

    def note_rename(source, target):
        assert os.path.dirname(source) == os.path.dirname(target)
        order.append(("rename", os.path.getsize(source)))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note_rename)
    write_atomically(tmp_path / "a", lambda file: file.write(b"12345"))
    assert order[:2] == ["sync", ("rename", 5)]
    assert order[2:] == (["sync"] if os.name == "posix" else [])
