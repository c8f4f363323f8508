"""Text that a trained model writes."""

from __future__ import annotations

import math

import pytest
import torch

from cellweave import ArgumentError, RunError
from cellweave.training import generate
from cellweave.training._run_folder import RunFolder
from cellweave.training._sampling import _draw, build_model


def test_prompt_and_length(finished):
    text = generate(finished.run, "the ", length=20)
    assert text.startswith("the ")
    assert len(text) == 24
    assert len(generate(finished.run, length=7)) == 7


def test_words(finished_words):
    text = generate(finished_words.run, "the cell", length=12)
    assert text.startswith("the cell ")
    assert len(text.replace("\n", " <eos> ").split()) == 14


def test_the_seed_decides(finished):
    assert generate(finished.run, seed=1) == generate(finished.run, seed=1)
    assert generate(finished.run, seed=1) != generate(finished.run, seed=2)


def test_the_callers_generator_is_left_alone(finished):
    before = torch.get_rng_state()
    generate(finished.run, length=3)
    assert torch.equal(torch.get_rng_state(), before)


def test_temperature_zero_takes_the_likeliest(finished):
    text = generate(finished.run, "the c", length=5, temperature=0.0, seed=1)
    assert text == generate(finished.run, "the c", length=5, temperature=0.0, seed=2)
    folder = RunFolder(finished.run)
    description = folder.read_description()
    model = build_model(description, folder.read_weights(), "model").eval()
    read = description.vocabulary.encode("\nthe c").long().unsqueeze(1)
    logits, _ = model(read, model.initial_state(1))
    logits[..., 0] = -torch.inf
    assert description.vocabulary.tokens[int(logits[-1, 0].argmax())] == text[5]
    assert generate(finished.run, "the c", length=5, temperature=1e-300) == text


@pytest.mark.parametrize("temperature, share", [(0.5, 9 / 10), (1.0, 3 / 4), (2.0, 3**0.5 / (1 + 3**0.5))])
def test_temperature_divides_the_logits(temperature, share):
    generator = torch.Generator().manual_seed(0)
    logits = torch.tensor([50.0, 0.0, math.log(3.0)])  # number 0 is <unk>
    drawn = [_draw(logits, temperature, generator) for _ in range(2000)]
    assert set(drawn) == {1, 2}
    assert drawn.count(2) / 2000 == pytest.approx(share, abs=0.04)


def test_a_hot_model_never_writes_unk(finished_words):
    assert "<unk>" not in generate(finished_words.run, length=300, temperature=100.0)


def test_unknown_prompts_are_named(finished, finished_words):
    with pytest.raises(ArgumentError, match="prompt: expected characters that the model has learned, got 'é', 'Q'"):
        generate(finished.run, "théQé")
    with pytest.raises(ArgumentError, match=r"prompt: expected words .* got 'zebra'. Leave it out or write <unk>"):
        generate(finished_words.run, "the zebra")
    generate(finished_words.run, "the <unk>", length=1)


@pytest.mark.parametrize(
    "arguments, facts",
    [
        ({"length": 0}, "length: expected at least 1, got 0"),
        ({"temperature": -0.5}, "temperature: expected a finite number of at least 0, got -0.5"),
        ({"temperature": float("nan")}, "temperature: expected .* got nan"),
        ({"seed": -1}, "seed: expected a whole number from 0"),
    ],
)
def test_arguments_out_of_range(finished, arguments, facts):
    with pytest.raises(ArgumentError, match=facts):
        generate(finished.run, **arguments)


def test_weights_of_another_model_are_refused(finished):
    folder = RunFolder(finished.run)
    weights = folder.read_weights()
    weights["output_bias"] = torch.zeros(3)
    with pytest.raises(RunError, match=r"m.safetensors: expected the weights of the model in config.json.*output_bias"):
        build_model(folder.read_description(), weights, "m.safetensors")
