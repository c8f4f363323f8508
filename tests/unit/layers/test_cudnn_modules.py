"""cuDNN layers as torch modules and as TF1 layers: copies, state_dict, graphs, compiled and exported code, plans."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch

import cellweave as cw
from helpers.cudnn_cases import CLASSES, MODES

T, B, I, H = 6, 3, 4, 4
kinds = pytest.mark.parametrize(
    "mode, kwargs",
    [
        ("lstm", {"direction": "bidirectional", "dropout": 0.5, "seed": 3}),
        ("gru", {"input_mode": "skip_input"}),
        ("rnn_relu", {}),
    ],
    ids=["lstm-bi-dropout", "gru-skip", "relu"],
)


def _layer(mode: str = "lstm", **kwargs: Any) -> Any:
    layer = CLASSES[mode](2, H, **kwargs)
    layer(torch.zeros(T, B, I))
    return layer


def _grads(layer: Any, x: torch.Tensor, *args: Any, call: Any = None) -> list[torch.Tensor]:
    out, states = (layer if call is None else call)(x, *args)
    loss = out.square().sum() + sum((state**3).sum() for state in states)
    return [out, *states, *torch.autograd.grad(loss, [x, *layer.parameters()])]


def _assert_equal(got: Any, wanted: Any) -> None:
    for number, (a, b) in enumerate(zip(got, wanted, strict=True)):
        assert torch.equal(a, b), f"tensor {number}"


@kinds
@pytest.mark.parametrize(
    "how", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))], ids=["copy", "pickle"]
)
def test_copies_share_nothing(mode: str, kwargs: dict[str, Any], how: Any) -> None:
    layer, x = _layer(mode, **kwargs), torch.randn(T, B, I, requires_grad=True)
    twin = how(layer)
    _assert_equal(_grads(twin, x), _grads(layer, x))
    with torch.no_grad():
        layer.weight_hh_l0.zero_()
    assert twin.weight_hh_l0.any()
    assert twin.canonical_weights()[-1].any(), "a copy's cells read the copy's weights"
    before = twin(x, training=False)[0]
    with torch.no_grad():
        twin.bias_hh_l0.add_(1.0)
    assert not torch.equal(twin(x, training=False)[0], before)
    assert twin.saveable.name == layer.saveable.name
    assert twin.saveable.tensors().keys() == layer.saveable.tensors().keys()


@kinds
def test_state_dict_before_and_after_the_first_call(mode: str, kwargs: dict[str, Any]) -> None:
    layer, x = _layer(mode, **kwargs), torch.randn(T, B, I)
    for fresh in (CLASSES[mode](2, H, **kwargs), _layer(mode, **kwargs)):
        fresh.load_state_dict(layer.state_dict())
        assert torch.equal(fresh(x, training=False)[0], layer(x, training=False)[0])
    names = set(dict(layer.named_parameters()))
    assert {key for key in layer.state_dict() if not key.endswith("_extra_state")} == names


def test_state_dict_of_auto_select() -> None:
    for depth in (I, H + 1):
        layer = cw.CudnnLSTM(1, H, "auto_select")
        layer.build([None, None, depth])
        fresh = cw.CudnnLSTM(1, H, "auto_select")
        fresh.load_state_dict(layer.state_dict())
        x = torch.randn(T, B, depth)
        assert torch.equal(fresh(x)[0], layer(x)[0])
    with pytest.raises(RuntimeError, match="weight_xx"):
        cw.CudnnLSTM(1, H).load_state_dict({**layer.state_dict(), "weight_xx": torch.zeros(1)})


def test_moves_and_optimizers() -> None:
    layer = _layer("gru").double()
    assert layer.dtype == "float64" and layer(torch.zeros(T, B, I).double())[0].dtype == torch.float64
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.01)
    x, losses = torch.randn(T, B, I).double(), []
    for _ in range(20):
        loss = (layer(x)[0] - 0.5).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_hooks_and_modules_inside() -> None:
    layer, seen = _layer(), []
    handle = layer.register_forward_hook(lambda module, args, output: seen.append(output[0].shape))
    layer(torch.zeros(T, B, I))
    handle.remove()
    assert seen == [(T, B, H)]
    assert len(list(layer.parameters())) == len(set(layer.parameters())) == 8


@pytest.mark.parametrize("mode", MODES)
def test_recorded_graph(mode: str) -> None:
    with cw.Graph() as graph:
        layer = CLASSES[mode](2, H, direction="bidirectional")
        x, lengths = cw.Input((None, None, I)), cw.Input((None,), dtype="int32")
        out, states = layer(x, sequence_lengths=lengths)
        assert layer.input is x and layer.graph is graph
        assert layer.input_shape == (None, None, I)
        assert layer.get_output_at(0)[0] is out
        model = cw.Model([x, lengths], [out, *states])
    assert next(iter(graph.store.variables)) == f"{layer.scope_name}/weight_ih_l0"
    values, n = torch.randn(T, B, I), torch.tensor([T, 0, 2], dtype=torch.int32)
    wanted, last = layer(values, sequence_lengths=n)
    _assert_equal(model([values, n]), [wanted, *last])


def test_node_members_outside_a_graph() -> None:
    layer = _layer()
    with pytest.raises(RuntimeError):
        _ = layer.graph
    with pytest.raises(RuntimeError):
        layer.get_input_at(0)
    assert layer.losses == [] and layer.updates == []
    with pytest.raises(NotImplementedError):
        layer.compute_output_shape((T, B, I))


@kinds
def test_compiled_code(mode: str, kwargs: dict[str, Any]) -> None:
    """One graph, the same numbers, gradients and masks as outside of one."""
    torch._dynamo.reset()
    layer, x = _layer(mode, **kwargs), torch.randn(T, B, I, requires_grad=True)
    twin = copy.deepcopy(layer)
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    lengths = torch.tensor([T, 0, 2])
    states = tuple(torch.randn(shape) for shape in layer.state_shape(B))
    for _ in range(2):
        _assert_equal(_grads(twin, x, states, lengths, call=compiled), _grads(layer, x, states, lengths))
    untrained = torch.compile(lambda x: twin(x, training=False)[0], fullgraph=True, backend="aot_eager")(x)
    assert torch.equal(untrained, layer(x, training=False)[0]) and not untrained.requires_grad


def test_compiled_code_leaves_the_graph_for_the_reference() -> None:
    torch._dynamo.reset()
    layer, x = _layer("gru"), torch.randn(T, B, I)
    compiled = torch.compile(layer, backend="eager")
    with cw.use_backend("reference"):
        assert torch.equal(compiled(x)[0], layer(x)[0])


@kinds
def test_exported_code(mode: str, kwargs: dict[str, Any]) -> None:
    layer, x = _layer(mode, **kwargs), torch.randn(T, B, I)
    if "dropout" in kwargs:
        with pytest.raises(cw.ModeError, match="expected a cell in evaluation mode to export"):
            torch.export.export(layer, (x,))
    layer.eval()
    steps, rows = torch.export.Dim("steps", min=2, max=64), torch.export.Dim("rows", min=2, max=64)
    program = torch.export.export(layer, (x,), dynamic_shapes=({0: steps, 1: rows},))
    longer = torch.randn(T + 3, B + 1, I)
    out, states = program.module()(longer)
    wanted, last = layer(longer)
    _assert_equal([out, *states], [wanted, *last])


def test_plans() -> None:
    layer = cw.CudnnLSTM(2, H, direction="bidirectional", dropout=0.5)
    x = torch.zeros(T, B, I)
    plan = cw.explain(layer, x, [T, 1, 0], show=False)
    assert not layer.built, "nothing is made"
    assert [row.layer for row in plan.rows] == ["1", "2", "3", "4"]
    assert {row.cell for row in plan.rows} == {f"CudnnLSTM {H}"}
    below = "masks per step on outputs, lengths"
    assert [row.inside for row in plan.rows] == [below, f"{below}, reverse", "lengths", "lengths, reverse"]
    layer(x)
    assert cw.explain(layer, x, [T, 1, 0], show=False) == plan
    layer.eval()
    assert cw.explain(layer, x.transpose(0, 1), time_major=False, show=False).rows[0].inside == ""
    with cw.use_backend("reference"):
        assert set(cw.explain(layer, x, show=False).backends) == {"reference"}
    with pytest.raises(ValueError, match="expected no resets because a CudnnLSTM has none"):
        cw.explain(layer, x, resets=torch.zeros(T, B, dtype=torch.bool), show=False)


def test_a_backend_that_cannot_run_it_says_so() -> None:
    layer = cw.CudnnLSTM(1, H, dtype="float16", name="half")
    x = torch.zeros(T, B, I, dtype=torch.float16)
    layer(x)
    with (
        cw.use_backend("triton"),
        pytest.raises(cw.BackendError, match="CudnnLSTM 'half': expected layers that triton"),
    ):
        layer(x)
