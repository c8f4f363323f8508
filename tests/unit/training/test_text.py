"""Texts: strict UTF-8 files and the standard library's source."""

from __future__ import annotations

import sysconfig

import pytest

from cellweave import RunError
from cellweave.training._text import read_text, standard_library_text


def test_line_ends_and_byte_order_mark_are_normalised(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\rthree \xc3\xa9\n")
    text = read_text(path)
    assert text.content == "one\ntwo\nthree é\n"
    assert text.source == str(path)


@pytest.mark.parametrize(
    "data, facts",
    [
        (b"abc\x00def", "a binary file .zero byte at position 3."),
        (b"caf\xe9 au lait", "expected text in UTF-8, got byte 0xe9 at position 3"),
        (b"\xff\xfea\x00b\x00", "a binary file"),
        (b"", "expected text, got an empty file"),
        (b" \n\t\n", "expected text, got only white space"),
    ],
    ids=["zero-byte", "latin-1", "utf-16", "empty", "white-space"],
)
def test_what_is_no_text_is_refused(tmp_path, data, facts):
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    with pytest.raises(RunError, match=facts) as caught:
        read_text(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(RunError, match=r"gone.txt: expected a text file, got no such file"):
        read_text(tmp_path / "gone.txt")
    with pytest.raises(RunError, match="expected a text file, got a folder"):
        read_text(tmp_path)


def test_standard_library_text_is_python_and_always_the_same():
    text = standard_library_text(200_000)
    assert len(text.content) == 200_000
    assert "\ndef " in text.content
    assert "\nimport " in text.content
    assert standard_library_text(200_000) == text
    assert standard_library_text(150_000).content == text.content[:150_000]


def test_standard_library_skips_tests_packages_and_other_encodings(tmp_path, monkeypatch):
    for name, data in {
        "b.py": b"b = 1\n",
        "a/x.py": b"x = 1\r\n",
        "test/t.py": b"t = 1\n",
        "site-packages/p.py": b"p = 1\n",
        "latin.py": b"# \xe9\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    assert sorted(standard_library_text(1000).content.splitlines()) == ["b = 1", "x = 1"]


def test_the_standard_library_is_shuffled_the_same_way_everywhere(tmp_path, monkeypatch):
    for number in range(12):
        (tmp_path / f"m{number:02}.py").write_text(f"{number:02}\n")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    found = standard_library_text(1000).content.split()
    assert found == ["07", "01", "04", "05", "00", "09", "08", "02", "06", "03", "10", "11"]
    assert standard_library_text(9).content.split() == found[:3]


def test_a_python_without_sources_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(RunError, match=r"standard library: expected Python source files in .* got none"):
        standard_library_text(1000)
