from __future__ import annotations

import pytest

from cellweave.checkpoint._place import Place
from cellweave.checkpoint._snappy import decompress

PLACE = Place("file")


@pytest.mark.parametrize(
    "data, out",
    [
        (b"\x00", b""),
        (b"\x03\x08abc", b"abc"),
        (b"\x0a\x04ab\x1d\x02", b"ababababab"),  # a copy of 11 bytes needs another size
        (b"\x0a\x04ab\x11\x02", b"ababababab"),  # 8 bytes from 2 back: the copy overlaps itself
        (b"\x08\x0cabcd\x0e\x04\x00", b"abcdabcd"),  # an offset of 2 bytes
        (b"\x08\x0cabcd\x0f\x04\x00\x00\x00", b"abcdabcd"),  # an offset of 4 bytes
        (b"\x46\x00a\xfe\x01\x00\x12\x01\x00", b"a" * 70),
        (b"\x46\xf0\x45" + b"x" * 70, b"x" * 70),  # a length in one more byte
        (b"\x46\xf4\x45\x00" + b"x" * 70, b"x" * 70),  # in two
    ],
)
def test_elements(data: bytes, out: bytes) -> None:
    if data[1:] == b"\x04ab\x1d\x02":
        with pytest.raises(ValueError, match="Snappy"):
            decompress(data, PLACE)
    else:
        assert decompress(data, PLACE) == out
