"""Text that a trained model writes."""

from __future__ import annotations

from pathlib import Path

import torch

from cellweave._errors import ArgumentError, RunError
from cellweave.training._language_model import LanguageModel
from cellweave.training._run_folder import RunDescription, RunFolder
from cellweave.training._vocabulary import UNKNOWN, Vocabulary, split_tokens

#: Unknown tokens that an error names.
_NAMED_UNKNOWN = 5


def _prompt_numbers(vocabulary: Vocabulary, prompt: str) -> list[int]:
    tokens = split_tokens(prompt, vocabulary.level)
    unknown = vocabulary.unknown(tokens)
    if unknown:
        kind = "characters" if vocabulary.level == "char" else "words"
        named = ", ".join(repr(token) for token in unknown[:_NAMED_UNKNOWN])
        more = ", ..." if len(unknown) > _NAMED_UNKNOWN else ""
        hint = f" or write {UNKNOWN} for it" if vocabulary.level == "word" else ""
        raise ArgumentError(
            f"prompt: expected {kind} that the model has learned, got {named}{more}. Leave it out{hint}."
        )
    return vocabulary.encode(tokens).tolist()


def _draw(logits: torch.Tensor, temperature: float, generator: torch.Generator) -> int:
    known = logits[1:].double()  # number 0 is <unk>, which is never written
    if temperature == 0.0:
        return int(known.argmax()) + 1
    chances = ((known - known.max()) / temperature).softmax(0)  # no overflow however small the temperature
    return int(torch.multinomial(chances, 1, generator=generator)) + 1


def continue_text(
    model: LanguageModel, vocabulary: Vocabulary, prompt: str, length: int, temperature: float, seed: int
) -> str:
    """The prompt and `length` tokens after it; see `generate`. The model is put in evaluation mode."""
    if length < 1:
        raise ArgumentError(f"length: expected at least 1, got {length}.")
    if not 0.0 <= temperature < float("inf"):
        raise ArgumentError(f"temperature: expected a finite number of at least 0, got {temperature:g}.")
    if not 0 <= seed < 2**63:
        raise ArgumentError(f"seed: expected a whole number from 0 to 2**63 - 1, got {seed}.")
    numbers = _prompt_numbers(vocabulary, prompt)
    generator = torch.Generator().manual_seed(seed)
    model.eval()
    with torch.inference_mode():
        read = torch.tensor([vocabulary.start(), *numbers]).unsqueeze(1)  # [T, 1]
        logits, state = model(read, model.initial_state(1))
        for _ in range(length):
            number = _draw(logits[-1, 0], temperature, generator)
            numbers.append(number)
            logits, state = model(torch.tensor([[number]]), state)
    return vocabulary.decode(numbers)


def build_model(description: RunDescription, weights: dict[str, torch.Tensor], where: str) -> LanguageModel:
    """A run's model with these weights.

    Raises:
        RunError: the weights are of another model.
    """
    with torch.random.fork_rng(devices=[]):  # first weights are drawn only to be replaced
        model = LanguageModel(description.config.model, len(description.vocabulary), description.config.seed)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise RunError(f"{where}: expected the weights of the model in config.json, got others: {reason}") from error
    return model


def generate(run: str | Path, prompt: str = "", length: int = 400, temperature: float = 0.8, seed: int = 0) -> str:
    """Let a run's best model write text.

    Args:
        run: The run's folder.
        prompt: Text to go on from. Default: none, the text begins as after a line's end.
        length: Tokens to write: characters or words. Default 400.
        temperature: Divides the logits; 0 takes the likeliest token each time. Default 0.8.
        seed: Of the draws; the same seed writes the same text. Default 0.
    Returns:
        The prompt and what the model wrote after it. `<unk>` is never written.
    Raises:
        RunError: the folder holds no model. ArgumentError: a value is outside what is allowed, or the prompt holds
            characters or words that the model has not learned.
    """
    folder = RunFolder(Path(run))
    description = folder.read_description()
    model = build_model(description, folder.read_weights(), str(folder.model))
    return continue_text(model, description.vocabulary, prompt, length, temperature, seed)
