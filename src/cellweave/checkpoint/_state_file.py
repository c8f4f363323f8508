"""The text file `checkpoint` beside checkpoints: which one is the latest."""

from __future__ import annotations

import os
import re
from pathlib import Path

from cellweave.checkpoint._files import File
from cellweave.checkpoint._limits import MAX_STATE_FILE_BYTES
from cellweave.checkpoint._place import Place
from cellweave.checkpoint._wire import decode

STATE_FILE = "checkpoint"

_TEXT = r"""(?:"((?:[^"\\\n]|\\.)*)"|'((?:[^'\\\n]|\\.)*)')"""
_ESCAPE = re.compile(rb"\\(?:([0-7]{1,3})|x([0-9a-fA-F]{1,2})|(.))", re.DOTALL)
_LETTERS = {b"n": b"\n", b"r": b"\r", b"t": b"\t"}


def latest(path: Path) -> Path:
    """The path that a state file gives as the latest checkpoint.

    A relative path starts at the file's folder. Where nothing of the given name is there, its last part beside this
    file counts, after slashes of any system: checkpoints are often moved together with it.
    """
    names = _named(path, "model_checkpoint_path")
    if not names:
        raise Place(str(path)).error("a line model_checkpoint_path", "none")
    if not names[0] or "\0" in names[0]:
        raise Place(str(path)).error("a path in model_checkpoint_path", repr(names[0]))
    given, beside = path.parent / names[0], path.parent / re.split(r"[/\\]", names[0])[-1]
    return beside if beside.name and not _is_there(given) and _is_there(beside) else given


def _is_there(prefix: Path) -> bool:
    """Whether a path is a checkpoint's: a V1 file or one of its shards, or a bundle's prefix."""
    file = re.compile(re.escape(prefix.name) + r"(\.index|-\d{5}-of-\d{5})?")
    try:
        return any(file.fullmatch(name) for name in os.listdir(prefix.parent))
    except OSError:
        return False


def all_named(path: Path) -> list[str]:
    """All checkpoints that a state file names, oldest first, as it writes them."""
    return _named(path, "all_model_checkpoint_paths")


def state_text(latest: str, others: list[str]) -> str:
    """A state file's content; `others` are older than the latest."""
    names = "".join(f'all_model_checkpoint_paths: "{_escaped(name)}"\n' for name in [*others, latest])
    return f'model_checkpoint_path: "{_escaped(latest)}"\n{names}'


def _named(path: Path, key: str) -> list[str]:
    """The values of a key."""
    file = File(path)
    try:
        if file.size > MAX_STATE_FILE_BYTES:
            raise file.place.error(f"a text of at most {MAX_STATE_FILE_BYTES} bytes", f"{file.size}")
        content = decode(bytes(file.read(0, file.size, file.place)), file.place)
    finally:
        file.close()
    found = re.finditer(rf"^\s*{key}\s*:\s*{_TEXT}", content, re.MULTILINE)
    return [_unescaped(match[1] if match[1] is not None else match[2], file.place) for match in found]


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
