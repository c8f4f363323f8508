"""Give words their capitals and punctuation back, with a bidirectional LSTM over sentences of any length.

    python examples/tagger.py            # some minutes on two cores
    python examples/tagger.py --smoke    # seconds; learns little

The text is the English of Python's standard library: the docstrings of its modules. Each word comes in small letters
and without what follows it; two tags say how it was written. Sentences of a batch are padded to the longest: `lengths=`
tells the LSTM where each ends, so that its reverse direction starts at the last word and no step is spent on padding.
Nothing is sorted or packed. The last table times that beside torch.nn with `pack_padded_sequence`.
"""

from __future__ import annotations

import argparse
import ast
import re
import statistics
import sysconfig
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

import cellweave as cw

CASES = ("small", "Capitalized", "OTHER")
MARKS = ("", ",", ".", ":")
MOST_WORDS = 60  # of a sentence; longer ones are cut
_WORD = re.compile(r"([A-Za-z][A-Za-z'-]*)([,.:]?)$")
_SKIPPED = {"test", "tests", "idlelib", "lib2to3", "turtledemo", "encodings", "pydoc_data", "site-packages"}


@dataclass(frozen=True)
class Settings:
    """Of a run."""

    files: int = 10_000  # most modules that are read
    epochs: int = 6
    rows: int = 64
    units: int = 128
    words: int = 8000  # of the vocabulary
    rate: float = 3e-3
    timings: int = 15
    seed: int = 1


SMOKE = replace(Settings(), files=60, epochs=1, rows=16, units=16, words=500, timings=3)


@dataclass
class Sentence:
    """Words in small letters, and for each how it was written: indices into CASES and MARKS."""

    words: list[str]
    cases: list[int]
    marks: list[int]


def docstrings(most: int) -> Iterator[str]:
    """Of the modules, classes and functions in Python's standard library, in the order of their paths."""
    root = Path(sysconfig.get_path("stdlib"))
    paths = [p for p in sorted(root.rglob("*.py")) if not _SKIPPED & set(p.relative_to(root).parts)]
    for path in paths[:most]:
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue  # templates, and files in an encoding of their own
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                yield ast.get_docstring(node) or ""


def sentences_of(text: str) -> Iterator[Sentence]:
    """Runs of plain words, from three on; anything else (code, numbers, brackets) ends one."""
    for paragraph in re.split(r"\n\s*\n", text):
        found = Sentence([], [], [])
        for token in [*paragraph.split(), "|"]:
            match = _WORD.match(token)
            if match is not None:
                word, mark = match.groups()
                case = 0 if word.islower() else 1 if word[0].isupper() and (len(word) == 1 or word[1:].islower()) else 2
                found.words.append(word.lower())
                found.cases.append(case)
                found.marks.append(MARKS.index(mark))
            if match is None or match[2] == "." or len(found.words) == MOST_WORDS:
                if len(found.words) >= 3:
                    yield found
                found = Sentence([], [], [])


@dataclass
class Batch:
    """Sentences side by side: `[T, B]`, -100 for tags of padding, and the number of words of each `[B]`."""

    words: torch.Tensor
    ends: torch.Tensor
    cases: torch.Tensor
    marks: torch.Tensor
    lengths: torch.Tensor


class Vocabulary:
    """Numbers of words and of their last three letters; 0 is padding, 1 unknown."""

    def __init__(self, sentences: list[Sentence], most: int) -> None:
        counted = Counter(word for sentence in sentences for word in sentence.words)
        self.words = {word: number for number, (word, _) in enumerate(counted.most_common(most), 2)}
        endings = Counter(word[-3:] for word in counted)
        self.endings = {ending: number for number, (ending, _) in enumerate(endings.most_common(1000), 2)}

    def batch(self, sentences: list[Sentence]) -> Batch:
        """Sentences as numbers."""
        def padded(rows: list[list[int]], fill: int) -> torch.Tensor:
            return pad_sequence([torch.tensor(row) for row in rows], padding_value=fill)

        return Batch(
            padded([[self.words.get(w, 1) for w in s.words] for s in sentences], 0),
            padded([[self.endings.get(w[-3:], 1) for w in s.words] for s in sentences], 0),
            padded([s.cases for s in sentences], -100),
            padded([s.marks for s in sentences], -100),
            torch.tensor([len(s.words) for s in sentences]),
        )


class Tagger(nn.Module):
    """Embeddings, a bidirectional LSTM, two tags for each word."""

    def __init__(self, vocabulary: Vocabulary, units: int) -> None:
        super().__init__()
        self.words = nn.Embedding(len(vocabulary.words) + 2, units, padding_idx=0)
        self.endings = nn.Embedding(len(vocabulary.endings) + 2, units // 4, padding_idx=0)
        self.memory = cw.nn.LSTM(units + units // 4, units, bidirectional=True, input_dropout=0.2, output_dropout=0.2)
        self.head = nn.Linear(2 * units, len(CASES) + len(MARKS))

    def forward(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits of the case and of the mark, `[T, B, ...]`."""
        x = torch.cat([self.words(batch.words), self.endings(batch.ends)], dim=2)
        outputs, _ = self.memory(x, lengths=batch.lengths)
        return self.head(outputs).split([len(CASES), len(MARKS)], dim=2)


def loss_of(model: Tagger, batch: Batch) -> torch.Tensor:
    """Of both tags; padding does not count."""
    case, mark = model(batch)
    return F.cross_entropy(case.flatten(0, 1), batch.cases.flatten()) + F.cross_entropy(
        mark.flatten(0, 1), batch.marks.flatten()
    )


def train(model: Tagger, vocabulary: Vocabulary, sentences: list[Sentence], settings: Settings) -> None:
    """Some epochs of shuffled batches."""
    optimizer = torch.optim.Adam(model.parameters(), settings.rate)
    count = -(-len(sentences) // settings.rows)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, total_iters=count * settings.epochs)
    for epoch in range(1, settings.epochs + 1):
        began, total = time.perf_counter(), 0.0
        for rows in torch.randperm(len(sentences)).split(settings.rows):
            loss = loss_of(model, vocabulary.batch([sentences[row] for row in rows.tolist()]))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch}  loss {total / count:.3f}  {time.perf_counter() - began:.1f} s")


@torch.no_grad()
def tagged(model: Tagger, vocabulary: Vocabulary, sentences: list[Sentence], rows: int) -> list[list[tuple[int, int]]]:
    """The likeliest case and mark of each word."""
    model.eval()
    found = []
    for first in range(0, len(sentences), rows):
        part = sentences[first : first + rows]
        case, mark = (logits.argmax(2).t().tolist() for logits in model(vocabulary.batch(part)))
        found += [list(zip(c, m, strict=True))[: len(s.words)] for c, m, s in zip(case, mark, part, strict=True)]
    return found


def by_word(sentences: list[Sentence]) -> Callable[[str], tuple[int, int]]:
    """A judge without context: each word's most frequent tags."""
    seen: dict[str, Counter[tuple[int, int]]] = {}
    for sentence in sentences:
        for word, case, mark in zip(sentence.words, sentence.cases, sentence.marks, strict=True):
            seen.setdefault(word, Counter())[case, mark] += 1
    best = {word: tags.most_common(1)[0][0] for word, tags in seen.items()}
    return lambda word: best.get(word, (0, 0))


def scores(found: list[list[tuple[int, int]]], sentences: list[Sentence]) -> list[float]:
    """Share of words right in both tags; F1 of capitals (either kind), of commas, and of full stops."""
    guessed = [tags for row in found for tags in row]
    true = [tags for s in sentences for tags in zip(s.cases, s.marks, strict=True)]

    def f1(which: Callable[[tuple[int, int]], bool]) -> float:
        both = sum(which(g) and which(t) for g, t in zip(guessed, true, strict=True))
        return 2 * both / max(1, sum(map(which, guessed)) + sum(map(which, true)))

    right = sum(g == t for g, t in zip(guessed, true, strict=True)) / len(true)
    return [right, f1(lambda t: t[0] > 0), f1(lambda t: t[1] == 1), f1(lambda t: t[1] == 2)]


def written(sentence: Sentence, tags: list[tuple[int, int]]) -> str:
    """A sentence as its tags say; what is neither small nor capitalized is shown in capitals."""
    forms = (str.lower, str.capitalize, str.upper)
    return " ".join(forms[c](word) + MARKS[m] for word, (c, m) in zip(sentence.words, tags, strict=True))


def time_layers(batch: Batch, depth: int, settings: Settings) -> tuple[float, float]:
    """Milliseconds, forward and backward, of the LSTM with `lengths=` and of torch.nn's over packed inputs."""
    ours = cw.nn.LSTM(depth, settings.units, bidirectional=True)
    theirs = nn.LSTM(depth, settings.units, bidirectional=True)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(*batch.words.shape, depth)

    def by_lengths() -> torch.Tensor:
        return ours(x, lengths=batch.lengths)[0]

    def packed() -> torch.Tensor:
        outputs, _ = theirs(pack_padded_sequence(x, batch.lengths, enforce_sorted=False))
        return pad_packed_sequence(outputs)[0]

    torch.testing.assert_close(by_lengths(), packed(), rtol=1e-4, atol=1e-5)
    times: list[list[float]] = [[], []]
    for _ in range(settings.timings):
        for way, kept in zip((by_lengths, packed), times, strict=True):
            began = time.perf_counter()
            way().sum().backward()
            kept.append(time.perf_counter() - began)
    return statistics.median(times[0]) * 1e3, statistics.median(times[1]) * 1e3


def main() -> None:
    """Read, train, judge, time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="a few seconds on one thread")
    for field in fields(Settings):
        parser.add_argument(f"--{field.name}", type=type(field.default), help=f"default {field.default}")
    options = parser.parse_args()
    given = {f.name: getattr(options, f.name) for f in fields(Settings) if getattr(options, f.name) is not None}
    settings = replace(SMOKE if options.smoke else Settings(), **given)
    torch.manual_seed(settings.seed)
    sentences = list({tuple(s.words): s for text in docstrings(settings.files) for s in sentences_of(text)}.values())
    order = torch.randperm(len(sentences)).tolist()
    held = len(sentences) // 10
    test, known = [sentences[i] for i in order[:held]], [sentences[i] for i in order[held:]]
    print(f"{len(known):,} sentences to learn from, {len(test):,} others to be judged by")
    vocabulary = Vocabulary(known, settings.words)
    model = Tagger(vocabulary, settings.units)
    train(model, vocabulary, known, settings)
    found = tagged(model, vocabulary, test, settings.rows)
    judge = by_word(known)
    rows = (
        ("all small, no marks (majority)", [[(0, 0)] * len(s.words) for s in test]),
        ("each word's most frequent tags", [[judge(w) for w in s.words] for s in test]),
        ("bidirectional LSTM", found),
    )
    print(f"\n{'':32}{'words right':>13}{'F1 capitals':>13}{'F1 commas':>11}{'F1 full stops':>15}")
    for name, tags in rows:
        right, capitals, commas, stops = scores(tags, test)
        print(f"{name:32}{right:>13.1%}{capitals:>13.2f}{commas:>11.2f}{stops:>15.2f}")
    print()
    for sentence, tags in [pair for pair in zip(test, found, strict=True) if len(pair[0].words) > 8][:3]:
        print(f"  {written(sentence, tags)}")
    batch = vocabulary.batch(known[: settings.rows])
    share = 1 - batch.lengths.sum().item() / batch.words.numel()
    ours, theirs = time_layers(batch, model.memory.input_size, settings)
    print(
        f"\none batch ({batch.words.shape[1]} sentences, {batch.words.shape[0]} steps, {share:.0%} padding), LSTM forward "
        f"and backward, {torch.get_num_threads()} threads:\n  lengths= {ours:.1f} ms, torch.nn packed {theirs:.1f} ms"
    )


if __name__ == "__main__":
    main()
