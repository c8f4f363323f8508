"""Vocabulary: tokens, numbers, and what becomes `<unk>`."""

from __future__ import annotations

import json

import pytest
import torch

from cellweave import RunError
from cellweave.training._vocabulary import Vocabulary, split_tokens


def make(text, level="char", min_count=1, max_size=1000):
    return Vocabulary.from_tokens(split_tokens(text, level), level, min_count, max_size)


def test_commonest_first_ties_by_spelling():
    assert make("cabbac b").tokens == ("<unk>", "b", "a", "c", " ")


def test_rare_tokens_and_those_beyond_the_limit_are_unknown():
    assert make("aaabbc", min_count=2).tokens == ("<unk>", "a", "b")
    assert make("aaabbc", max_size=1).tokens == ("<unk>", "a")


def test_characters_round_trip():
    vocabulary = make("hello\nworld")
    numbers = vocabulary.encode("world\nhello")
    assert numbers.dtype == torch.int32
    assert vocabulary.decode(numbers.tolist()) == "world\nhello"


def test_unknown_characters_are_number_zero_and_shown_as_replaced():
    vocabulary = make("abc")
    numbers = vocabulary.encode("aéb")
    assert numbers.tolist()[1] == 0
    assert vocabulary.decode(numbers.tolist()) == "a\ufffdb"
    assert vocabulary.unknown("éaüé") == ["é", "ü"]


def test_words_keep_their_lines():
    assert split_tokens("one two\nthree", "word") == ["one", "two", "<eos>", "three"]
    vocabulary = make("one two\nthree four\n", "word")
    assert (
        vocabulary.decode(vocabulary.encode(split_tokens("four one\n\n\ntwo\n", "word")).tolist())
        == "four one\n\n\ntwo\n"
    )


def test_unk_written_in_a_text_of_words_is_the_unknown_word():
    vocabulary = make("a <unk> b <unk>", "word")
    assert vocabulary.tokens.count("<unk>") == 1
    assert vocabulary.encode(["<unk>", "a"]).tolist()[0] == 0
    assert vocabulary.unknown(["<unk>", "a"]) == []


def test_a_text_starts_after_a_line_end_or_the_commonest_token():
    assert make("a\nb").tokens[make("a\nb").start()] == "\n"
    assert make("a b\nc", "word").tokens[make("a b\nc", "word").start()] == "<eos>"
    assert make("aab").tokens[make("aab").start()] == "a"


def test_json_round_trip():
    vocabulary = make('é"\n\\ab')
    assert Vocabulary.from_json(json.loads(json.dumps(vocabulary.to_json()))) == vocabulary


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        {"level": "byte", "tokens": ["<unk>"]},
        {"level": ["char"], "tokens": ["<unk>"]},
        {"level": "char", "tokens": []},
        {"level": "char", "tokens": ["a", "<unk>"]},
        {"level": "char", "tokens": ["<unk>", "a", "a"]},
        {"level": "char", "tokens": ["<unk>", 3]},
        {"level": "char", "tokens": "<unk>"},
    ],
)
def test_what_is_no_vocabulary_is_refused(value):
    with pytest.raises(RunError, match="vocabulary: expected"):
        Vocabulary.from_json(value)
