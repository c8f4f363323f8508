"""Corpus: a text cut by position."""

from __future__ import annotations

import pytest

from cellweave import RunError
from cellweave.training import make_config
from cellweave.training._corpus import load_corpus
from helpers.tiny_runs import sample_text


def corpus_of(tmp_path, content, **settings):
    path = tmp_path / "text.txt"
    path.write_text(content, encoding="utf-8")
    return load_corpus(make_config({"text": str(path), "batch": 2, "time": 5, "min_count": 1, **settings}))


def test_parts_follow_each_other_and_lose_nothing(tmp_path):
    content = sample_text(4000)
    corpus = corpus_of(tmp_path, content)
    assert [len(corpus.train), len(corpus.valid), len(corpus.test)] == [3600, 200, 200]
    parts = (corpus.train, corpus.valid, corpus.test)
    assert "".join(corpus.vocabulary.decode(part.tolist()) for part in parts) == content


def test_only_the_training_part_makes_the_vocabulary(tmp_path):
    corpus = corpus_of(tmp_path, "ab" * 450 + "z" * 100)
    assert corpus.vocabulary.tokens == ("<unk>", "a", "b")
    assert corpus.valid.tolist() == [0] * 50


def test_rare_characters_become_unknown(tmp_path):
    corpus = corpus_of(tmp_path, "abab" * 50 + "q" * 3 + "abab" * 50, min_count=None)
    assert "q" not in corpus.vocabulary.tokens
    assert (corpus.train == 0).sum() == 3


def test_words(tmp_path):
    corpus = corpus_of(tmp_path, "to be or not\n" * 40, level="word")
    assert set(corpus.vocabulary.tokens) == {"<unk>", "<eos>", "to", "be", "or", "not"}
    assert len(corpus.train) == 180


def test_characters_are_limited(tmp_path):
    assert len(corpus_of(tmp_path, sample_text(1000), max_characters=500).train) == 450


def test_the_fingerprint_is_of_the_text(tmp_path):
    first = corpus_of(tmp_path, sample_text(1000))
    assert corpus_of(tmp_path, sample_text(1000)).sha256 == first.sha256
    assert corpus_of(tmp_path, sample_text(1000, seed=4)).sha256 != first.sha256


def test_a_text_too_short_says_how_long_it_must_be(tmp_path):
    with pytest.raises(
        RunError, match=r"at least 201 characters for training with batch 10 and time 20, got 180 \(200"
    ):
        corpus_of(tmp_path, "ab" * 100, batch=10, time=20)
    with pytest.raises(RunError, match=r"at least 11 words for training .* got 0 "):
        corpus_of(tmp_path, "three little words", level="word")


def test_a_text_just_long_enough_is_taken(tmp_path):
    assert len(corpus_of(tmp_path, "ab" * 8 + "a", batch=2, time=6).train) == 13
    with pytest.raises(RunError, match="at least 13"):
        corpus_of(tmp_path, "ab" * 8, batch=2, time=6)


def test_a_text_of_rare_tokens_only(tmp_path):
    with pytest.raises(RunError, match="expected a token that occurs often enough"):
        corpus_of(tmp_path, " ".join(map(str, range(100))), level="word", min_count=2)
