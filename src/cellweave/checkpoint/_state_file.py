"""The text file `checkpoint` beside checkpoints: which one is the latest."""

from __future__ import annotations

import re
from pathlib import Path

from cellweave.checkpoint._files import File
from cellweave.checkpoint._limits import MAX_STATE_FILE_BYTES
from cellweave.checkpoint._place import Place
from cellweave.checkpoint._wire import decode

STATE_FILE = "checkpoint"

_TEXT = r"""(?:"((?:[^"\\\n]|\\.)*)"|'((?:[^'\\\n]|\\.)*)')"""
_LATEST = re.compile(rf"^\s*model_checkpoint_path\s*:\s*{_TEXT}", re.MULTILINE)
_ESCAPE = re.compile(rb"\\(?:([0-7]{1,3})|x([0-9a-fA-F]{1,2})|(.))", re.DOTALL)
_LETTERS = {b"n": b"\n", b"r": b"\r", b"t": b"\t"}


def latest(path: Path) -> Path:
    """The path that a state file gives as the latest checkpoint.

    A relative path starts at the file's folder. So does the last part of an absolute one whose folder is gone:
    checkpoints are often moved together with this file.
    """
    file = File(path)
    try:
        if file.size > MAX_STATE_FILE_BYTES:
            raise file.place.error(f"a text of at most {MAX_STATE_FILE_BYTES} bytes", f"{file.size}")
        content = decode(bytes(file.read(0, file.size, file.place)), file.place)
    finally:
        file.close()
    found = _LATEST.search(content)
    if found is None:
        raise file.place.error("a line model_checkpoint_path", "none")
    name = _unescaped(found[1] if found[1] is not None else found[2], file.place)
    if not name or "\0" in name:
        raise file.place.error("a path in model_checkpoint_path", repr(name))
    given = Path(name)
    if given.is_absolute() and not given.parent.is_dir():
        return path.parent / given.name
    return path.parent / given


def state_text(prefix: Path) -> str:
    """The state file's content for a checkpoint in its folder."""
    name = _escaped(prefix.name)
    return f'model_checkpoint_path: "{name}"\nall_model_checkpoint_paths: "{name}"\n'


def _unescaped(text: str, place: Place) -> str:
    def plain(found: re.Match[bytes]) -> bytes:
        octal, hexadecimal, letter = found.groups()
        if letter is not None:
            return _LETTERS.get(letter, letter)
        return bytes([int(octal, 8) & 0xFF if octal is not None else int(hexadecimal, 16)])

    return decode(_ESCAPE.sub(plain, text.encode()), place)


def _escaped(text: str) -> str:
    """A text as protobuf's text format writes it: other bytes than ASCII's printable ones in octal."""
    special = {"\n": "\\n", "\r": "\\r", "\t": "\\t", '"': '\\"', "'": "\\'", "\\": "\\\\"}
    return "".join(special.get(chr(b), chr(b) if 32 <= b < 127 else f"\\{b:03o}") for b in text.encode())
