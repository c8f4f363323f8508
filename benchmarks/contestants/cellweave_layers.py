"""cellweave as its user calls it, the same stepwise, and the float64 truth that all contestants are compared with."""

from __future__ import annotations

import contextlib
import inspect
from typing import Any

import numpy as np
import problem
import torch
from program import NotTaken, Program
from registry import KEEP, OWN_BARE, Case

import cellweave as cw
from contestants.torch_programs import TorchLayer, step_program

CELLS: dict[str, Any] = {
    "lstm": cw.LSTMCell,
    "gru_before": cw.GRUCell,
    "gru_after": cw.keras.GRUCell,
    "rnn": cw.BasicRNNCell,
}


def make(name: str, case: Case) -> Program:
    """By name: "cellweave" chooses by itself, the bare one has no masks and resets, "stepwise" goes cell by cell."""
    return _step(name, case) if case.variation == "step" else layer(name, case).program()


def layer(name: str, case: Case) -> TorchLayer:
    cell = built_cell(case, torch.float32)
    weights = dict(cell.named_parameters())
    varied = name != OWN_BARE
    whole = _wrapped(cell, case) if varied else cell
    extra: dict[str, Any] = {}
    if varied and case.variation == "resets":
        if "resets" not in inspect.signature(cw.dynamic_rnn).parameters:
            raise NotTaken("this version of dynamic_rnn has no resets")
        extra["resets"] = torch.from_numpy(problem.resets(case))

    def run(x: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = cw.dynamic_rnn(whole, x, time_major=True, dtype="float32", **extra)[0]
        return outputs

    def run_stepwise(x: torch.Tensor) -> torch.Tensor:
        with stepwise():
            return run(x)

    chosen = run_stepwise if name == "stepwise" else run
    return TorchLayer(case, list(weights.values()), chosen, lambda grads: dict(zip(weights, grads, strict=True)))


def stepwise() -> contextlib.AbstractContextManager[Any]:
    """The backend that calls the cell at every step: the only one in versions that cannot choose."""
    choose = getattr(cw, "use_backend", None)
    return contextlib.nullcontext() if choose is None else choose("reference")


def built_cell(case: Case, dtype: torch.dtype) -> Any:
    cell = CELLS[case.kind](case.H, dtype=dtype)
    cell.build([None, case.I])
    with torch.no_grad():
        for name, values in problem.weights(case).items():
            getattr(cell, name).copy_(torch.from_numpy(values))
    return cell


def _wrapped(cell: Any, case: Case) -> Any:
    if case.variation not in ("variational", "per-step"):
        return cell
    return cw.DropoutWrapper(
        cell, KEEP, KEEP, KEEP, variational_recurrent=case.variation == "variational", input_size=case.I,
        dtype=torch.float32, seed=1,
    )  # fmt: skip


def _first_state(case: Case, dtype: torch.dtype) -> Any:
    parts = {name: torch.from_numpy(part).to(dtype) for name, part in problem.state(case).items()}
    return cw.LSTMStateTuple(**parts) if case.kind == "lstm" else parts["h"]


def _step(name: str, case: Case) -> Program:
    cell, x, state = built_cell(case, torch.float32), torch.from_numpy(problem.inputs(case))[0], None
    state = _first_state(case, torch.float32)
    if name == "stepwise":
        return step_program(lambda: cell(x, state)[0])
    stepper = cw.Stepper(cell, state)
    stepper(x)  # the first step of a cell that was never called calls it

    def first_output() -> dict[str, Any]:
        stepper.reset(state)
        return {"outputs": stepper(x).numpy()}

    return Program(lambda: stepper(x), first_output)


def truth(case: Case) -> dict[str, Any]:
    """Outputs and gradients of a case without random masks, by the cells in float64, step by step."""
    cell = built_cell(case, torch.float64)
    x = torch.from_numpy(problem.inputs(case)).double().requires_grad_()
    state = _first_state(case, torch.float64) if case.variation == "step" else cell_zeros(cell, case)
    keep = torch.from_numpy(~problem.resets(case))[:, :, None]
    outputs = []
    for step, now in enumerate(x):
        if case.variation == "resets":
            state = type(state)(*(part * keep[step] for part in state)) if case.kind == "lstm" else state * keep[step]
        output, state = cell(now, state)
        outputs.append(output)
    whole = torch.stack(outputs)
    weights = dict(cell.named_parameters())
    gradients = torch.autograd.grad(
        whole, [x, *weights.values()], torch.from_numpy(problem.upstream(case)).double()
    )  # fmt: skip
    tensors = {"outputs": whole.detach(), **dict(zip(["inputs", *weights], gradients, strict=True))}
    return {name: np.asarray(tensor) for name, tensor in tensors.items()}


def cell_zeros(cell: Any, case: Case) -> Any:
    zeros = torch.zeros(case.B, case.H, dtype=torch.float64)
    return cw.LSTMStateTuple(zeros, zeros) if case.kind == "lstm" else zeros
