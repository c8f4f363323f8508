"""Streams are part of the training state: saved, restored, copied."""

from __future__ import annotations

import copy
import io
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import cellweave as cw
from helpers import nest

XS = torch.linspace(-1.0, 1.0, 2 * 5 * 4).reshape(2, 5, 4)


def visit_all(state: Any) -> bool:
    """Drops c as well."""
    return True


def _model(seed: int | None = 3) -> cw.MultiRNNCell:
    return cw.MultiRNNCell(
        [
            cw.DropoutWrapper(cw.LSTMCell(6), 0.5, 0.6, 0.7, seed=seed),
            cw.DropoutWrapper(cw.GRUCell(6), 0.5, 0.6, 0.7, True, 6, "float32", seed, visit_all),
            cw.ResidualWrapper(cw.DropoutWrapper(cw.BasicRNNCell(6), output_keep_prob=0.5, seed=seed)),
        ]
    )


def _run(model: Any) -> list[torch.Tensor]:
    outputs, state = cw.dynamic_rnn(model, XS, [5, 3], dtype="float32")
    return [outputs, *nest.flatten(state), *cw.static_rnn(model, list(XS.unbind(1)), dtype="float32")[0]]


def _same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


@pytest.mark.parametrize("seed", [3, None])
def test_a_resumed_run_draws_the_same_masks(seed: int | None) -> None:
    """In a fresh model that was never called, after two runs of the first."""
    model = _model(seed)
    first = _run(model)
    saved = copy.deepcopy(model.state_dict())
    expected = [_run(model), _run(model)]
    other = _model(seed)
    other.load_state_dict(saved)
    assert _same(_run(other), expected[0]) and _same(_run(other), expected[1]) and not _same(first, expected[0])


def test_through_safetensors(tmp_path: Path) -> None:
    model = _model()
    _run(model)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    expected = _run(model)
    other = _model()
    other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert _same(_run(other), expected)


def test_through_torch_save() -> None:
    model = _model()
    _run(model)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    expected = _run(model)
    other = _model()
    other.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    assert _same(_run(other), expected)


def test_before_anything_was_drawn(tmp_path: Path) -> None:
    model, other = _model(), _model()
    save_file(model.state_dict(), tmp_path / "empty.safetensors")
    _run(other)
    other.load_state_dict(load_file(tmp_path / "empty.safetensors"), strict=False)
    assert all(
        wrapper.get_extra_state().shape == (0, 8)
        for wrapper in other.modules()
        if isinstance(wrapper, cw.DropoutWrapper)
    )


def test_loading_into_a_model_that_has_run_replaces_its_streams() -> None:
    model, other = _model(), _model()
    _run(model)
    saved = copy.deepcopy(model.state_dict())
    expected = _run(model)
    for _ in range(3):
        _run(other)
    other.load_state_dict(saved)
    assert _same(_run(other), expected)


def test_keys() -> None:
    keys = _model().state_dict().keys()
    assert set(keys) == {"cells.0._extra_state", "cells.1._extra_state", "cells.2.cell._extra_state"}
    table = _model().state_dict()["cells.0._extra_state"]
    assert table.dtype == torch.int64


def test_a_saved_table_does_not_follow_the_model() -> None:
    model = _model()
    _run(model)
    saved = model.state_dict()["cells.0._extra_state"]
    before = saved.clone()
    _run(model)
    assert torch.equal(saved, before)


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["copy", "pickle"]
)
@pytest.mark.parametrize("seed", [3, None])
def test_copies_go_on_independently(copied: Any, seed: int | None) -> None:
    model = _model(seed)
    _run(model)
    other = copied(model)
    expected = _run(model)
    assert _same(_run(other), expected)
    _run(other)
    assert not torch.equal(model.state_dict()["cells.0._extra_state"], other.state_dict()["cells.0._extra_state"])
    again = copied(other)
    assert _same(_run(again), _run(other))


def test_a_table_of_another_kind_is_refused() -> None:
    wrapper = cw.DropoutWrapper(cw.GRUCell(3), 0.5)
    with pytest.raises(cw.ShapeError, match="DropoutWrapper: expected a stream table"):
        wrapper.load_state_dict({"_extra_state": torch.zeros(1, 3, dtype=torch.int64)})


def test_a_missing_table_is_told() -> None:
    model = _model()
    _run(model)
    state = {key: value for key, value in model.state_dict().items() if key != "cells.0._extra_state"}
    with pytest.raises(RuntimeError, match="cells.0._extra_state"):
        _model().load_state_dict(state)


def test_moving_a_model_keeps_its_streams() -> None:
    model = _model()
    _run(model)
    before = model.state_dict()["cells.0._extra_state"]
    model.double()
    after = model.state_dict()["cells.0._extra_state"]
    assert after.dtype == torch.int64 and torch.equal(before, after)
