"""A layer is an ordinary `nn.Module`: moving, optimizing, hooks, torch.func, parametrizations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

import cellweave as cw

N = 3
X = torch.linspace(-1.0, 1.0, 8).reshape(2, 4)
H = torch.linspace(0.5, -0.5, 2 * N).reshape(2, N)
SEQUENCE = X[:, None].expand(2, 5, 4)


def _called(cell: Any = None) -> Any:
    cell = cw.GRUCell(N) if cell is None else cell
    cell(X, cell.zero_state(2, "float32"))
    return cell


def _stack() -> Any:
    return cw.MultiRNNCell([cw.DropoutWrapper(cw.LSTMCell(N), output_keep_prob=1.0), cw.GRUCell(N)])


class TestMoving:
    @pytest.mark.parametrize("convert", ["half", "bfloat16", "double"])
    def test_to_a_dtype(self, convert: str) -> None:
        cell = getattr(_called(), convert)()
        dtype = cell.gates_kernel.dtype
        assert cell(X.to(dtype), H.to(dtype))[0].dtype is dtype
        with pytest.raises(cw.DTypeError):
            cell(X, H)

    def test_before_the_first_call(self) -> None:
        """`.double()` on a cell without weights decides their dtype."""
        cell = cw.MultiRNNCell([cw.GRUCell(N)]).double()
        cell(X.double(), (H.double(),))
        assert cell.cells[0].gates_kernel.dtype == torch.float64
        built = cw.GRUCell(N).double()
        built.build([None, 4])
        assert built.gates_kernel.dtype == torch.float64

    def test_to_the_meta_device(self) -> None:
        stack = _called(_stack()).to(device="meta")
        out, _ = stack(X.to("meta"), stack.zero_state(2, "float32"))
        assert {tensor.device.type for tensor in [*stack.parameters(), out]} == {"meta"}
        stack = stack.to_empty(device="cpu")
        assert stack(X, stack.zero_state(2, "float32"))[0].device.type == "cpu"

    def test_zero_states_go_to_the_weights_device(self) -> None:
        cell = _called()
        assert cell.zero_state(2, "float32").device.type == "cpu"
        assert cell.to("meta").zero_state(2, "float32").device.type == "meta"


class TestTraining:
    def test_gradients_reach_every_weight(self) -> None:
        stack = _called(_stack())
        cw.dynamic_rnn(stack, SEQUENCE, dtype="float32")[0].square().sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in stack.parameters())
        stack.zero_grad()
        assert all(p.grad is None for p in stack.parameters())

    @pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam, torch.optim.RMSprop])
    def test_optimizers(self, optimizer: Any) -> None:
        stack = _called(_stack())
        steps = optimizer(stack.parameters(), lr=0.02)
        losses = []
        for _ in range(8):
            loss = (cw.dynamic_rnn(stack, SEQUENCE, dtype="float32")[0] - 0.2).square().mean()
            steps.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(stack.parameters(), 1.0)
            steps.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0]

    def test_requires_grad(self) -> None:
        stack = _called(_stack()).requires_grad_(False)
        assert not stack(X, stack.zero_state(2, "float32"))[0].requires_grad

    def test_modes(self) -> None:
        stack = _stack()
        assert stack.training
        assert not any(module.training for module in stack.eval().modules())
        assert all(module.training for module in stack.train().modules())

    def test_autocast(self) -> None:
        cell = _called()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out, _ = cell(X, H)
        assert torch.allclose(out.float(), cell(X, H)[0], atol=0.05)
        assert cell.gates_kernel.dtype == torch.float32


class TestFirstCallUnder:
    """Weights made at a first call under a mode of torch must be ordinary ones afterwards."""

    @pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
    def test_grad_modes(self, mode: Any) -> None:
        cell = cw.GRUCell(N)
        with mode():
            cell(X, H)
        cell(X, H)[0].sum().backward()
        assert cell.gates_kernel.grad is not None

    def test_build_in_inference_mode(self) -> None:
        cell = cw.LSTMCell(N)
        with torch.inference_mode():
            cell.build([None, 4])
        cell(X, (H, H))[0].sum().backward()
        assert cell.kernel.grad is not None

    def test_func_grad(self) -> None:
        cell = cw.GRUCell(N)
        gradient = torch.func.grad(lambda x: cell(x, H)[0].sum())(X)
        assert gradient.abs().sum() > 0
        cell(X, H)[0].sum().backward()
        assert cell.gates_kernel.grad is not None
        assert type(cell.gates_kernel) is nn.Parameter
        repr(cell.gates_kernel)

    def test_vmap(self) -> None:
        cell = cw.GRUCell(N)
        out = torch.func.vmap(lambda x, h: cell(x[None], h[None])[0][0])(X, H)
        assert torch.allclose(out, cell(X, H)[0])


class TestFunc:
    def test_functional_call(self) -> None:
        cell = _called()
        zeros = {name: torch.zeros_like(value) for name, value in cell.named_parameters()}
        out, _ = torch.func.functional_call(cell, zeros, (X, H))
        assert torch.allclose(out, H / 2)  # gates at one half, candidate zero
        assert cell.gates_kernel.abs().sum() > 0

    @pytest.mark.parametrize(
        "make", [lambda: cw.GRUCell(N), lambda: cw.LSTMCell(N, use_peepholes=True, num_proj=N), _stack]
    )
    def test_grad_equals_backward(self, make: Any) -> None:
        cell = _called(make())
        state = cell.zero_state(2, "float32")
        weights = {name: value.detach() for name, value in cell.named_parameters()}

        def loss(weights: Any) -> torch.Tensor:
            return torch.func.functional_call(cell, weights, (X, state))[0].square().sum()

        gradients = torch.func.grad(loss)(weights)
        cell(X, state)[0].square().sum().backward()
        for name, parameter in cell.named_parameters():
            assert torch.allclose(gradients[name], parameter.grad, atol=1e-6), name

    def test_gradients_per_row(self) -> None:
        cell = _called()
        weights = {name: value.detach() for name, value in cell.named_parameters()}

        def loss(weights: Any, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
            return torch.func.functional_call(cell, weights, (x[None], h[None]))[0].sum()

        rows = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(weights, X, H)
        cell(X, H)[0].sum().backward()
        assert torch.allclose(rows["gates_kernel"].sum(0), cell.gates_kernel.grad, atol=1e-6)

    def test_ensembles(self) -> None:
        cells = [_called() for _ in range(3)]
        weights, buffers = torch.func.stack_module_state(cells)

        def call(weights: Any, buffers: Any) -> torch.Tensor:
            return torch.func.functional_call(cells[0], (weights, buffers), (X, H))[0]

        out = torch.func.vmap(call)(weights, buffers)
        assert torch.allclose(out, torch.stack([cell(X, H)[0] for cell in cells]), atol=1e-6)

    def test_whole_unrolls(self) -> None:
        cell = _called()
        weights = {name: value.detach() for name, value in cell.named_parameters()}
        run = torch.func.functional_call(_Unroll(cell), {f"cell.{n}": w * 0 for n, w in weights.items()}, (SEQUENCE,))
        assert (run == 0).all()


class _Unroll(nn.Module):
    def __init__(self, cell: Any) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return cw.dynamic_rnn(self.cell, inputs, dtype="float32")[0]


class TestHooks:
    def test_forward_hooks(self) -> None:
        cell, seen = cw.GRUCell(N), []
        cell.register_forward_pre_hook(lambda module, args: seen.append(("pre", len(args), module.built)))
        cell.register_forward_hook(lambda module, args, result: seen.append(("post", len(result), module.built)))
        cell(X, H)
        cell(X, H)
        assert seen == [("pre", 2, True), ("post", 2, True)] * 2

    def test_a_hook_may_change_the_result(self) -> None:
        for cell in (cw.GRUCell(N), cw.DropoutWrapper(cw.GRUCell(N)), cw.MultiRNNCell([cw.GRUCell(N)])):
            handle = cell.register_forward_hook(lambda module, args, result: (result[0] * 2, result[1]))
            state = cell.zero_state(2, "float32")
            doubled = cell(X, state)[0]
            handle.remove()
            assert torch.equal(doubled, cell(X, state)[0] * 2)

    def test_hooks_run_at_every_step_of_an_unroll(self) -> None:
        cell, steps = cw.GRUCell(N), []
        cell.register_forward_hook(lambda *args: steps.append(1))
        cw.dynamic_rnn(cell, SEQUENCE, dtype="float32")
        assert len(steps) == 5

    def test_state_dict_and_backward_hooks(self) -> None:
        cell, seen = _called(), []
        cell.register_full_backward_hook(lambda *args: seen.append("backward"))
        cell.register_load_state_dict_post_hook(lambda *args: seen.append("loaded"))
        cell(X.clone().requires_grad_(), H)[0].sum().backward()
        cell.load_state_dict(cell.state_dict())
        assert seen == ["backward", "loaded"]


class _Double(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight * 2


class TestReplacedWeights:
    """Parametrized, pruned and assigned weights are used as they are."""

    @pytest.mark.parametrize("name", ["gates_kernel", "gates_bias", "candidate_kernel", "candidate_bias"])
    def test_parametrizations(self, name: str) -> None:
        cell = _called()
        expected = torch.func.functional_call(cell, {name: getattr(cell, name).detach() * 2}, (X, H))[0]
        parametrize.register_parametrization(cell, name, _Double())
        assert torch.equal(cell(X, H)[0], expected)
        assert len(cell.weights) == 4

    def test_weight_norm(self) -> None:
        cell = _called(cw.LSTMCell(N))
        expected = cell(X, (H, H))[0]
        parametrizations.weight_norm(cell, "kernel")
        assert torch.allclose(cell(X, (H, H))[0], expected, atol=1e-6)

    def test_pruning(self) -> None:
        cell = _called()
        prune.random_unstructured(cell, "gates_kernel", amount=0.5)
        cell(X, H)
        assert (cell.gates_kernel == 0).sum() == 21

    def test_assigning(self) -> None:
        cell = _called()
        cell.gates_kernel = nn.Parameter(torch.zeros(7, 6))
        cell(X, H)[0].sum().backward()
        assert cell.gates_kernel.grad is not None
        assert cw.variable_names(cell)["gru_cell/gates/kernel"] is cell.gates_kernel
        assert cell.weights[0] is cell.gates_kernel


def test_in_containers() -> None:
    model = nn.ModuleDict({"rnn": cw.GRUCell(N), "out": nn.Linear(N, 2)})
    model["out"](cw.dynamic_rnn(model["rnn"], SEQUENCE, dtype="float32")[0]).sum().backward()
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None} == {"rnn", "out"}
    assert "rnn.gates_kernel" in model.state_dict()
    assert "GRUCell" in repr(model)


def test_a_compiled_cell_computes_the_same() -> None:
    cell = _called()
    compiled = torch.compile(cell, backend="eager", fullgraph=True)
    assert torch.equal(compiled(X, H)[0], cell(X, H)[0])
