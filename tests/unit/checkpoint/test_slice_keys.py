from __future__ import annotations

from cellweave.checkpoint._slice_keys import slice_key


def test_the_contracts_layout() -> None:
    key = slice_key("ab", ((0, 4), (3, -1)))
    assert key == b"\x00ab\x00\x01" + b"\x01\x02" + b"\x80\x84" + b"\x83\x7f"


def test_a_vector_without_axes() -> None:
    assert slice_key("s", ()) == b"\x00s\x00\x01\x00"


def test_names_with_special_bytes_are_escaped() -> None:
    assert slice_key("a\0b", ())[1:-1] == b"a\x00\xffb\x00\x01"


def test_keys_sort_as_their_numbers_do() -> None:
    numbers = [
        -(2**62),
        -(2**40),
        -8193,
        -8192,
        -65,
        -64,
        -1,
        0,
        1,
        63,
        64,
        8191,
        8192,
        2**20,
        2**27,
        2**40,
        2**55,
        2**62,
    ]
    keys = [slice_key("v", ((number, 1),)) for number in numbers]
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys)


def test_sizes_of_numbers() -> None:
    """n bytes hold numbers of 7n - 1 bits."""
    base = len(slice_key("v", ((0, 0),)))
    for bits, extra in ((6, 0), (7, 1), (13, 1), (14, 2), (62, 8), (63, 9)):
        assert len(slice_key("v", (((1 << bits) - 1, 0),))) == base + extra
