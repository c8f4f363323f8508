"""The language model."""

from __future__ import annotations

import pytest
import torch

from cellweave import BasicRNNCell, GRUCell, LSTMCell
from cellweave._nest import flatten
from cellweave.training import LanguageModel, ModelConfig

T, B, V = 6, 3, 11


def make(seed=0, **settings):
    torch.manual_seed(1)
    return LanguageModel(ModelConfig(**{"units": 7, "embedding": 5, "layers": 2, **settings}), V, seed)


def tokens(steps=T):
    return torch.randint(0, V, (steps, B), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("cell, kind, leaves", [("lstm", LSTMCell, 4), ("gru", GRUCell, 2), ("rnn", BasicRNNCell, 2)])
def test_shapes_for_each_cell(cell, kind, leaves):
    model = make(cell=cell)
    assert [type(layer.cell) for layer in model.cell.cells] == [kind, kind]
    logits, state = model(tokens(), model.initial_state(B))
    assert logits.shape == (T, B, V)
    assert [leaf.shape for leaf in flatten(state)] == [(B, 7)] * leaves


def test_weights_are_named_after_the_wrapped_cells():
    names = set(make().state_dict())
    assert {"embedding.weight", "cell.cells.0.cell.kernel", "cell.cells.1.cell.bias", "output_bias"} <= names


def test_first_layer_takes_the_embedding_and_the_others_the_units():
    state = make().state_dict()
    assert state["cell.cells.0.cell.kernel"].shape == (5 + 7, 4 * 7)
    assert state["cell.cells.1.cell.kernel"].shape == (7 + 7, 4 * 7)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_two_windows_with_carried_state_are_one(cell):
    model = make(cell=cell).eval()
    whole, end = model(tokens(), model.initial_state(B))
    first, state = model(tokens()[:2], model.initial_state(B))
    second, state = model(tokens()[2:], state)
    torch.testing.assert_close(torch.cat([first, second]), whole)
    for carried, expected in zip(flatten(state), flatten(end), strict=True):
        torch.testing.assert_close(carried, expected)


def test_loss_is_the_mean_cross_entropy_and_cuts_the_history():
    model = make().eval()
    inputs, targets = tokens(T + 1)[:-1], tokens(T + 1)[1:]
    loss, state = model.loss(inputs, targets, model.initial_state(B))
    logits, _ = model(inputs, model.initial_state(B))
    chosen = torch.log_softmax(logits, -1).gather(-1, targets.unsqueeze(-1))
    torch.testing.assert_close(loss, -chosen.mean())
    assert loss.requires_grad
    assert not any(leaf.requires_grad for leaf in flatten(state))


def test_the_past_reaches_the_prediction_and_the_future_does_not():
    model = make().eval()
    changed = tokens().clone()
    changed[3] = (changed[3] + 1) % V
    before, _ = model(tokens(), model.initial_state(B))
    after, _ = model(changed, model.initial_state(B))
    assert torch.equal(before[:3], after[:3])
    assert not torch.isclose(before[3:], after[3:]).all(-1).any()


def test_tied_output_shares_the_embedding():
    model = make(tied=True, units=5)
    assert model.output_kernel is None
    logits, _ = model(tokens(), model.initial_state(B))
    logits[..., 4].sum().backward()
    assert model.embedding.weight.grad[4].abs().sum() > 0
    assert sum(p.numel() for p in model.parameters()) < sum(p.numel() for p in make(units=5).parameters())


@pytest.mark.parametrize("kind", ["input_keep", "state_keep", "output_keep"])
@pytest.mark.parametrize("variational", [False, True])
def test_dropout_acts_in_training_only(kind, variational):
    model = make(**{kind: 0.5}, variational=variational)
    model.eval()
    calm, _ = model(tokens(), model.initial_state(B))
    again, _ = model(tokens(), model.initial_state(B))
    assert torch.equal(calm, again)
    model.train()
    dropped, _ = model(tokens(), model.initial_state(B))
    assert not torch.equal(dropped, calm)


def test_layers_draw_different_masks_and_seeds_count():
    def output(seed, number):
        model = make(seed, output_keep=0.5, embedding=7).train()
        cell = model.cell.cells[number]
        cell.cell = model.cell.cells[0].cell  # the same weights, so that only the masks differ
        result, _ = cell(torch.ones(B, 7), cell.zero_state(B, torch.float32))
        return result == 0

    assert torch.equal(output(0, 0), output(0, 0))
    assert not torch.equal(output(0, 0), output(0, 1))
    assert not torch.equal(output(0, 0), output(5, 0))


@pytest.mark.parametrize("mask_per_row", [False, True])
def test_variational_masks_stay_for_a_window(mask_per_row):
    model = make(layers=1, output_keep=0.5, variational=True, mask_per_row=mask_per_row).train()
    seen = []
    model.cell.register_forward_hook(lambda module, args, result: seen.append(result[0] == 0))
    model(tokens(), model.initial_state(B))
    assert len(seen) == T
    assert all(torch.equal(mask, seen[0]) for mask in seen)
    rows_agree = all(torch.equal(row, seen[0][0]) for row in seen[0])
    assert rows_agree is not mask_per_row


def test_state_dict_brings_back_the_masks_to_come():
    inputs = tokens()
    model = make(input_keep=0.7, output_keep=0.6).train()
    model(inputs, model.initial_state(B))
    saved = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    expected = [model(inputs, model.initial_state(B))[0] for _ in range(2)]
    other = make(input_keep=0.7, output_keep=0.6).train()
    other.load_state_dict(saved)
    for outputs in expected:
        assert torch.equal(other(inputs, other.initial_state(B))[0], outputs)
