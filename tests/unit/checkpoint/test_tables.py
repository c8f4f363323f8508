from __future__ import annotations

from pathlib import Path

import pytest

from cellweave.checkpoint._files import File
from cellweave.checkpoint._tables import Table, is_table
from helpers.checkpoint_bytes import block, entries, table, table_of_blocks

MANY = {b"scope_%d/layer_%05d/kernel" % (number % 7, number): b"%d" % number * 9 for number in range(9000)}


def opened(folder: Path, content: bytes) -> File:
    (folder / "t").write_bytes(content)
    return File(folder / "t")


def test_entries_of_many_blocks_in_order(tmp_path: Path) -> None:
    file = opened(tmp_path, table(MANY))
    found = Table(file)
    assert len(found) > 1
    assert [(key, bytes(value)) for key, value in found.entries()] == sorted(MANY.items())
    file.close()


def test_find(tmp_path: Path) -> None:
    file = opened(tmp_path, table(MANY))
    found = Table(file)
    for key in sorted(MANY)[::997]:
        value = found.find(key)
        assert value is not None and bytes(value) == MANY[key]
    for key in (b"", b"a", b"scope_3/", b"scope_3/layer_00003/kernel_", b"zzz"):
        assert found.find(key) is None
    file.close()


def test_entry_larger_than_a_block(tmp_path: Path) -> None:
    large = {b"a": b"1", b"b": bytes(700_000), b"c": b"3"}
    file = opened(tmp_path, table(large))
    assert {key: bytes(value) for key, value in Table(file).entries()} == large
    file.close()


def test_snappy_block(tmp_path: Path) -> None:
    plain = entries((0, b"", b"h"), (0, b"k", b"aaaaaaaa"))
    literal = bytes([len(plain), (len(plain) - 1) << 2]) + plain
    file = opened(tmp_path, table_of_blocks([block(literal, kind=1)]))
    assert [(key, bytes(value)) for key, value in Table(file).entries()] == [(b"", b"h"), (b"k", b"aaaaaaaa")]
    file.close()


@pytest.mark.parametrize("content, verdict", [(b"", False), (b"x" * 100, False), (table({b"": b""}), True)])
def test_is_table(tmp_path: Path, content: bytes, verdict: bool) -> None:
    file = opened(tmp_path, content)
    assert is_table(file) is verdict
    file.close()
