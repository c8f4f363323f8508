"""Models in files: safetensors, and the hub's `save_pretrained` and `from_pretrained` on local folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import cellweave as cw

hub = pytest.importorskip("huggingface_hub", reason="the extra hub is not installed")
safetensors = pytest.importorskip("safetensors.torch", reason="the extra hub is not installed")

F32: dict[str, Any] = {"dtype": "float32"}


class Tagger(nn.Module, hub.PyTorchModelHubMixin):  # type: ignore[misc, name-defined]
    """A model whose cells make their variables when they are first called."""

    def __init__(self, units: int, tags: int = 3, keep: float = 0.5) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.forwards = cw.DropoutWrapper(cw.LSTMCell(units), output_keep_prob=keep, seed=1)
        self.backwards = cw.MultiRNNCell([cw.GRUCell(units), cw.ResidualWrapper(cw.GRUCell(units))])
        self.top = cw.CudnnLSTM(1, units)
        self.head = nn.Linear(units, tags)

    def forward(self, words: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        x = self.embedding(words)
        both, _ = cw.bidirectional_dynamic_rnn(self.forwards, self.backwards, x, lengths, **F32)
        top, _ = self.top(torch.cat(both, 2).transpose(0, 1), training=self.training)
        return self.head(top)


WORDS, LENGTHS = torch.arange(15).reshape(3, 5) % 10, torch.tensor([5, 2, 3])


@pytest.fixture
def model() -> Tagger:
    model = Tagger(6, keep=0.4)
    model(WORDS, LENGTHS)
    return model


def assert_same_model(other: Tagger, model: Tagger) -> None:
    """The same values, and the same masks from where the streams stood."""
    for mode in (False, True, True):
        assert torch.equal(other.train(mode)(WORDS, LENGTHS), model.train(mode)(WORDS, LENGTHS))


def test_save_pretrained(model: Tagger, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} >= {"config.json", "model.safetensors"}
    other = Tagger.from_pretrained(tmp_path, local_files_only=True)
    assert not other.training and other.forwards.cell.output_size == 6
    assert_same_model(other, model)


def test_safetensors(model: Tagger, tmp_path: Path) -> None:
    safetensors.save_model(model, tmp_path / "tagger.safetensors")
    other = Tagger(6, keep=0.4)
    assert safetensors.load_model(other, tmp_path / "tagger.safetensors") == (set(), [])
    assert_same_model(other, model)


def test_strict_loading_names_what_is_missing(model: Tagger, tmp_path: Path) -> None:
    state = {name: value for name, value in model.state_dict().items() if name != "forwards.cell.kernel"}
    safetensors.save_file(state, tmp_path / "part.safetensors")
    with pytest.raises(RuntimeError, match="forwards.cell.kernel"):
        safetensors.load_model(model, tmp_path / "part.safetensors")
