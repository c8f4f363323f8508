"""A text as numbers: cut by position into training, validation and test parts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch

from cellweave._errors import RunError
from cellweave.training._settings import TrainConfig
from cellweave.training._text import STANDARD_LIBRARY_CHARACTERS, Text, read_text, standard_library_text
from cellweave.training._vocabulary import Vocabulary, split_tokens

_VALIDATION_SHARE = 0.05
_TEST_SHARE = 0.05
#: Default of `min_count`: a character seen less often teaches nothing; a word seen once is mostly a name.
_MIN_COUNT = {"char": 5, "word": 2}


@dataclass(frozen=True)
class Corpus:
    """The data of a run.

    Attributes:
        vocabulary: Counted on the training part alone.
        train, valid, test: Token numbers, int32 `[N]`: the first 90 %, the next 5 % and the last 5 % of the text.
        source: Where the text came from.
        sha256: Of the text, to notice at a resume that it changed.
    """

    vocabulary: Vocabulary
    train: torch.Tensor
    valid: torch.Tensor
    test: torch.Tensor
    source: str
    sha256: str


def _read(config: TrainConfig) -> Text:
    if config.text is None:
        return standard_library_text(config.max_characters or STANDARD_LIBRARY_CHARACTERS)
    text = read_text(Path(config.text))
    return Text(text.content[: config.max_characters], text.source)


def load_corpus(config: TrainConfig, vocabulary: Vocabulary | None = None) -> Corpus:
    """Read the text that the config names, cut it and number its tokens.

    Args:
        config: Names text, level, vocabulary limits, and the batch and time that the text must suffice for.
        vocabulary: Of an earlier part of the same run; default: counted anew.
    Raises:
        RunError: the text cannot be read or is too short for one window of `batch` x `time`.
    """
    text = _read(config)
    tokens = split_tokens(text.content, config.level)
    held_out = max(2, int(len(tokens) * _VALIDATION_SHARE))
    tested = max(2, int(len(tokens) * _TEST_SHARE))
    cut = len(tokens) - held_out - tested
    needed = config.batch * config.time + 1
    if cut < needed:
        unit = "characters" if config.level == "char" else "words"
        raise RunError(
            f"text {text.source}: expected at least {needed} {unit} for training with batch {config.batch} and time "
            f"{config.time}, got {max(cut, 0)} ({len(tokens)} with the held-out parts). "
            "Use a longer text, or a smaller batch or time."
        )
    if vocabulary is None:
        min_count = _MIN_COUNT[config.level] if config.min_count is None else config.min_count
        vocabulary = Vocabulary.from_tokens(tokens[:cut], config.level, min_count, config.max_vocabulary)
    if len(vocabulary) < 2:
        raise RunError(
            f"text {text.source}: expected a token that occurs often enough to be kept, got none. Lower min_count."
        )
    numbers = vocabulary.encode(tokens)
    return Corpus(
        vocabulary,
        numbers[:cut],
        numbers[cut : cut + held_out],
        numbers[cut + held_out :],
        text.source,
        hashlib.sha256(text.content.encode("utf-8", "surrogatepass")).hexdigest(),
    )
