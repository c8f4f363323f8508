"""Tokens and their numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from cellweave._errors import RunError
from cellweave.training._settings import LEVELS

#: Stands for every token that the vocabulary lacks; always number 0.
UNKNOWN = "<unk>"
#: A line's end among words.
END_OF_LINE = "<eos>"
#: What an unknown character is shown as.
_REPLACEMENT = "\ufffd"


def split_tokens(text: str, level: str) -> Sequence[str]:
    """The tokens of a text: its characters, or its words with `<eos>` for each line's end."""
    return text if level == "char" else text.replace("\n", f" {END_OF_LINE} ").split()


@dataclass(frozen=True)
class Vocabulary:
    """The tokens that a model knows.

    Attributes:
        level: "char" or "word".
        tokens: Every token; its index is its number. The first is `<unk>`.
    """

    level: str
    tokens: tuple[str, ...]

    @classmethod
    def from_tokens(cls, tokens: Sequence[str], level: str, min_count: int, max_size: int) -> Vocabulary:
        """Count tokens and keep those seen `min_count` times or more, the commonest `max_size`, ties by spelling."""
        counts = Counter(tokens)
        counts.pop(UNKNOWN, None)
        frequent = (token for token, count in counts.items() if count >= min_count)
        common = sorted(frequent, key=lambda token: (-counts[token], token))
        return cls(level, (UNKNOWN, *common[:max_size]))

    @classmethod
    def from_json(cls, value: Any) -> Vocabulary:
        """Read what `to_json` made.

        Raises:
            RunError: it is something else.
        """
        level, tokens = (value.get(key) if isinstance(value, dict) else None for key in ("level", "tokens"))
        if (
            not isinstance(level, str)
            or level not in LEVELS
            or not isinstance(tokens, list)
            or not all(isinstance(token, str) for token in tokens)
            or tokens[:1] != [UNKNOWN]
            or len(set(tokens)) != len(tokens)
        ):
            raise RunError(f"vocabulary: expected a level and tokens that begin with {UNKNOWN}, got something else.")
        return cls(level, tuple(tokens))

    def to_json(self) -> dict[str, Any]:
        """A JSON value with the level and all tokens."""
        return {"level": self.level, "tokens": list(self.tokens)}

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {token: number for number, token in enumerate(self.tokens)}

    def encode(self, tokens: Sequence[str]) -> torch.Tensor:
        """The tokens' numbers, int32 `[N]`; 0 for a token that the vocabulary lacks."""
        get = self._numbers.get
        return torch.from_numpy(np.fromiter((get(token, 0) for token in tokens), np.int32, len(tokens)))

    def unknown(self, tokens: Sequence[str]) -> list[str]:
        """The tokens that the vocabulary lacks, each once, in order."""
        return [token for token in dict.fromkeys(tokens) if token not in self._numbers]

    def start(self) -> int:
        """The number that a text begins after: a line's end where there is one, else the commonest token."""
        line_end = "\n" if self.level == "char" else END_OF_LINE
        return self._numbers.get(line_end, min(1, len(self.tokens) - 1))

    def decode(self, numbers: Iterable[int]) -> str:
        """The text of these numbers: characters joined, words with spaces and line breaks between them."""
        if self.level == "char":
            return "".join(self.tokens[number] if number else _REPLACEMENT for number in numbers)
        lines: list[list[str]] = [[]]
        for number in numbers:
            if self.tokens[number] == END_OF_LINE:
                lines.append([])
            else:
                lines[-1].append(self.tokens[number])
        return "\n".join(map(" ".join, lines))
