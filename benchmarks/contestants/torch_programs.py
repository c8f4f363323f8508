"""Programs of what runs on torch: forward alone, or forward and backward; and what they save in between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import problem
import torch
from program import Program
from registry import Case

Gradients = Callable[[list[torch.Tensor]], dict[str, torch.Tensor]]


@dataclass(frozen=True)
class TorchLayer:
    """A layer over a sequence: its weights, what it does with `[T, B, I]`, and its gradients in cellweave's layout."""

    case: Case
    weights: list[torch.Tensor]
    run: Callable[[torch.Tensor], torch.Tensor]
    as_ours: Gradients

    def inputs(self) -> torch.Tensor:
        return torch.from_numpy(problem.inputs(self.case)).requires_grad_(self.case.mode == "training")

    def program(self) -> Program:
        x = self.inputs()
        if self.case.mode == "inference":
            return self._inference(x)
        upstream = torch.from_numpy(problem.upstream(self.case))
        wanted = [x, *self.weights]

        def call() -> tuple[torch.Tensor, ...]:
            return torch.autograd.grad(self.run(x), wanted, upstream)

        def results() -> dict[str, Any]:
            outputs = self.run(x)
            d_inputs, *d_weights = torch.autograd.grad(outputs, wanted, upstream)
            tensors = {"outputs": outputs.detach(), "inputs": d_inputs, **self.as_ours(d_weights)}
            return {name: tensor.numpy() for name, tensor in tensors.items()}

        return Program(call, results)

    def _inference(self, x: torch.Tensor) -> Program:
        def call() -> torch.Tensor:
            with torch.no_grad():
                return self.run(x)

        return Program(call, lambda: {"outputs": call().float().numpy()})

    def saved_floats(self) -> float:
        """What one call keeps for its backward, in floats per step, row and unit; not inputs and weights themselves.

        What has less than a byte for each step, row and unit is left out: states, lengths, resets.
        """
        elements = self.case.T * self.case.B * self.case.H
        return saved_bytes(self.run, self.inputs(), self.weights, elements) / 4 / elements


def saved_bytes(
    run: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, weights: list[torch.Tensor], least: int
) -> int:
    """Bytes kept for backward beside inputs and weights; tensors of fewer than `least` do not count."""
    given = {tensor.untyped_storage().data_ptr() for tensor in (x, *weights)}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in given and storage.nbytes() >= least:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = run(x)
        del outputs
    return sum(kept.values())


def step_program(step: Callable[[], torch.Tensor]) -> Program:
    """One time step without gradients; `step` gives its output `[B, H]`, or `[1, B, H]`."""

    def call() -> torch.Tensor:
        with torch.no_grad():
            return step()

    return Program(call, lambda: {"outputs": call().detach().numpy()})
