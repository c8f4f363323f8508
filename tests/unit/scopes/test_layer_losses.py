"""Losses, updates and activity regularizers of layers, in graph mode and in eager mode."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import cellweave as cw

X = torch.linspace(-1.0, 1.0, 8).reshape(2, 4)
COLLECTION = "regularization_losses"


class Dense(cw.Layer):
    """A layer with a regularized and an unregularized weight."""

    def build(self, input_shape: Any) -> None:
        self.kernel = self.add_weight("kernel", [input_shape[-1], 2], regularizer=lambda w: 3 * w.square().sum())
        self.bias = self.add_weight("bias", [2])
        super().build(input_shape)

    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs @ self.kernel + self.bias


@pytest.fixture
def graph() -> Any:
    with cw.Graph() as opened:
        yield opened


class TestEager:
    def test_regularizers_are_evaluated_anew(self) -> None:
        layer = Dense()
        assert layer.losses == []
        layer(X)
        (first,) = layer.losses
        assert first.item() == pytest.approx(3 * layer.kernel.square().sum().item())
        first.backward()
        assert torch.allclose(layer.kernel.grad, 6 * layer.kernel)
        with torch.no_grad():
            layer.kernel.fill_(1.0)
        assert layer.losses[0].item() == 24.0

    def test_cells_without_regularizers_have_none(self) -> None:
        cell = cw.GRUCell(3)
        cell(X, torch.zeros(2, 3))
        assert cell.losses == []

    def test_keras_cells_regularize(self) -> None:
        cell = cw.keras.GRUCell(3, kernel_regularizer=lambda w: w.sum(), bias_regularizer=lambda w: w.sum() + 1)
        cell(X, torch.zeros(2, 3))
        assert [loss.item() for loss in cell.losses] == pytest.approx([cell.kernel.sum().item(), 1.0])

    @pytest.mark.parametrize(
        "member, argument", [("add_loss", X.sum()), ("get_losses_for", None), ("get_updates_for", None)]
    )
    def test_members_of_graphs(self, member: str, argument: Any) -> None:
        layer = Dense()
        layer(X)
        with pytest.raises(cw.ModeError, match=rf"^Dense\.{member}: expected a layer of a recorded graph"):
            getattr(layer, member)(argument)

    def test_updates_are_ignored(self) -> None:
        layer = Dense()
        layer.add_update(X.sum())
        assert layer.updates == []

    def test_activity_regularizer(self) -> None:
        assert Dense().activity_regularizer is None
        with pytest.raises(cw.ArgumentError, match=r"^Dense: expected no activity_regularizer in eager mode, got one"):
            Dense(activity_regularizer=torch.sum)


class TestRegularizersOfGraphs:
    def test_losses_are_symbolic_and_run(self, graph: Any) -> None:
        x = cw.Input((None, 4))
        layer = Dense()
        layer(x)
        (loss,) = layer.losses
        assert layer.losses[0] is loss
        assert loss.shape == ()
        value = cw.Model(x, loss)(X)
        assert value.item() == pytest.approx(3 * layer.kernel.square().sum().item())
        value.backward()
        assert torch.allclose(layer.kernel.grad, 6 * layer.kernel)

    def test_they_join_the_collection_when_the_weight_is_made(self, graph: Any) -> None:
        """TF1: `tf.losses.get_regularization_losses()` knows them although nobody asked the layer."""
        layer = Dense()
        layer(cw.Input((None, 4)))
        collected = graph.get_collection(COLLECTION)
        assert len(collected) == 1
        assert collected[0] is layer.losses[0]
        layer(cw.Input((None, 4)))
        assert len(graph.get_collection(COLLECTION)) == len(layer.losses) == 1

    def test_a_weight_made_by_get_variable_alone(self, graph: Any) -> None:
        weight = cw.get_variable("w", [3], initializer="ones", regularizer=lambda w: 2 * w.sum())
        (loss,) = graph.get_collection(COLLECTION)
        x = cw.Input((1,))
        assert cw.Model(x, loss + x.sum())(torch.ones(1)).item() == 2 * weight.sum().item() + 1

    def test_a_shared_weight_is_regularized_once(self, graph: Any) -> None:
        x = cw.Input((None, 4))
        first, second = Dense(name="d"), Dense(name="d", _reuse=True)
        first(x)
        second(x)
        assert second.kernel is first.kernel
        assert (len(first.losses), second.losses) == (1, [])  # as in TF1: their sum counts it once
        assert len(graph.get_collection(COLLECTION)) == 1

    def test_collections_are_the_graphs_own(self, graph: Any) -> None:
        Dense()(cw.Input((None, 4)))
        with cw.Graph() as other:
            assert other.get_collection(COLLECTION) == []
        graph.get_collection(COLLECTION).clear()
        assert len(graph.get_collection(COLLECTION)) == 1
        assert graph.get_collection("no such") == []

    def test_own_collections(self, graph: Any) -> None:
        graph.add_to_collection("mine", 1)
        graph.add_to_collection("mine", 2)
        assert graph.get_collection("mine") == [1, 2]


class TestAddLoss:
    def test_conditional_and_unconditional(self, graph: Any) -> None:
        x, y = cw.Input((None, 4)), cw.Input(())
        layer = Dense()
        out = layer(x)
        on_x, on_y, free = out.sum(), y * 2, torch.tensor(1.5)
        layer.add_loss(on_x, inputs=x)
        layer.add_loss([on_y], inputs=[y])
        layer.add_loss(free)
        regularization = [loss for loss in layer.losses if not any(loss is one for one in (on_x, on_y, free))]
        assert len(layer.losses) == 4
        assert len(regularization) == 1
        assert _same(layer.get_losses_for(x), [on_x])
        assert _same(layer.get_losses_for(y), [on_y])
        assert _same(layer.get_losses_for([x, y]), [on_x, on_y])
        assert _same(layer.get_losses_for(None), [free, *regularization])

    def test_dependence_is_found_through_the_graph(self, graph: Any) -> None:
        """A loss counts for every tensor on its way, not just for the one it was declared with."""
        x, other = cw.Input((None, 4)), cw.Input((None, 4))
        layer = Dense()
        out = layer(x)
        loss = (out * 2).sum() + 1
        layer.add_loss(loss, inputs=out)
        assert _same(layer.get_losses_for(out), [loss])
        assert _same(layer.get_losses_for(x), [loss])
        assert layer.get_losses_for(other) == []

    def test_what_was_declared_unconditional_stays_so(self, graph: Any) -> None:
        x = cw.Input((None, 4))
        layer = Dense()
        loss = layer(x).sum()
        layer.add_loss(loss)
        assert any(one is loss for one in layer.get_losses_for(None))
        assert layer.get_losses_for(x) == []

    def test_several_at_once_join_the_collection(self, graph: Any) -> None:
        x = cw.Input((None, 4))
        layer = cw.Layer()
        layer(x)
        losses = [x.sum(), x.mean()]
        layer.add_loss(losses, inputs=x)
        assert _same(graph.get_collection(COLLECTION), losses)
        assert _same(layer.losses, losses)

    def test_they_run(self, graph: Any) -> None:
        x = cw.Input((None, 4))
        layer = Dense()
        out = layer(x)
        layer.add_loss(out.square().mean(), inputs=x)
        loss, run = cw.Model(x, [layer.get_losses_for(x)[0], out])(X)
        assert loss.item() == pytest.approx(run.square().mean().item())

    def test_in_call_of_a_recorded_layer(self, graph: Any) -> None:
        cell = cw.GRUCell(3)
        x = cw.Input((None, 4))
        out, _ = cell(x, cw.Input((None, 3)))
        cell.add_loss(out.abs().sum(), inputs=x)
        assert len(cell.get_losses_for(x)) == 1


@pytest.mark.parametrize("member", ["add_loss", "add_update"])
def test_what_a_recorded_call_computes_is_no_loss(graph: Any, member: str) -> None:
    """Its tensors have no values while shapes are learnt, and each run of a model would add them again."""

    class Inside(cw.Layer):
        def call(self, inputs: torch.Tensor) -> torch.Tensor:
            getattr(self, member)(inputs.sum())
            return inputs

    layer = Inside()
    with pytest.raises(cw.ModeError, match=rf"^Inside\.{member}: expected tensors of the recorded graph, got some of"):
        layer(cw.Input((None, 4)))
    assert layer.losses == layer.updates == graph.get_collection(COLLECTION) == []


class TestUpdates:
    def test_conditional_and_unconditional(self, graph: Any) -> None:
        x, y = cw.Input((None, 4)), cw.Input(())
        layer = Dense()
        out = layer(x)
        on_x, on_y = out.mean(), y + 1
        layer.add_update([on_x], inputs=x)
        layer.add_update(on_y)
        assert _same(layer.updates, [on_x, on_y])
        assert _same(layer.get_updates_for(x), [on_x])
        assert _same(layer.get_updates_for(None), [on_y])
        assert layer.get_updates_for(y) == []
        assert graph.get_collection(COLLECTION) == [layer.losses[0]]  # updates are no losses

    @pytest.mark.parametrize("stateful", [False, True])
    def test_of_a_layer_that_is_not_trainable(self, graph: Any, stateful: bool) -> None:
        x = cw.Input((None, 4))
        layer = Dense(trainable=False)
        layer.stateful = stateful
        layer(x)
        layer.add_update(x.sum(), inputs=x)
        assert len(layer.updates) == len(layer.get_updates_for(x)) == int(stateful)
        layer.trainable = True
        assert len(layer.updates) == len(layer.get_updates_for(x)) == 1


class TestActivityRegularizer:
    def test_it_adds_a_loss_per_call_and_output(self, graph: Any) -> None:
        def regularizer(value: torch.Tensor) -> torch.Tensor:
            return 0.5 * value.abs().sum()

        x, y = cw.Input((None, 4)), cw.Input((None, 4))
        layer = cw.Layer(activity_regularizer=regularizer)
        assert layer.activity_regularizer is regularizer
        layer(x)
        layer(y)
        assert len(layer.losses) == 2
        (on_x,), (on_y,) = layer.get_losses_for(x), layer.get_losses_for(y)
        assert layer.get_losses_for(None) == []
        found = cw.Model([x, y], [on_x, on_y])(X, 2 * X)
        assert [loss.item() for loss in found] == pytest.approx([0.5 * X.abs().sum().item(), X.abs().sum().item()])
        assert _same(graph.get_collection(COLLECTION), [on_x, on_y])

    def test_of_a_built_layer(self, graph: Any) -> None:
        x = cw.Input((None, 4))
        layer = Dense(activity_regularizer=torch.mean)
        out = layer(x)
        assert len(layer.losses) == 2
        loss, run = cw.Model(x, [layer.get_losses_for(x)[0], out])(X)
        assert loss.item() == pytest.approx(run.mean().item())


def _same(found: list[Any], expected: list[Any]) -> bool:
    """Symbols are compared by identity: `==` records a node."""
    return len(found) == len(expected) and {id(one) for one in found} == {id(one) for one in expected}
