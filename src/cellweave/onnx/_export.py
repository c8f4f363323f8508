"""export."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from cellweave._errors import ArgumentTypeError, ModeError
from cellweave.onnx._directions import join_directions
from cellweave.onnx._folding import fold_weights
from cellweave.onnx._quiet import without_torchs_own_warnings
from cellweave.onnx._translations import translations
from cellweave.weave import graphs_for_files

_WHERE = "cellweave.onnx.export"


def export(
    module: nn.Module,
    args: Sequence[Any] = (),
    path: str | os.PathLike[str] | None = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    opset_version: int | None = None,
    external_data: bool = False,
) -> torch.onnx.ONNXProgram:
    """Write a model with recurrences as an ONNX file.

    Each layer becomes one ONNX `LSTM`, `GRU` or `RNN`, both directions of a bidirectional layer together; what these
    do not compute (a bound on c, a projection, resets, zoneout, float64, some activations) becomes a
    `Scan` over the step, which computes the same, and so does a cell that only runs step by step. The rest of the
    model is torch's exporter's work.

    Args:
        module: A module in evaluation mode. Variables that do not exist yet are made by a first call.
        args: Example inputs; not changed.
        path: The file; default: none is written.
        kwargs: More example inputs, by name. Default: none.
        dynamic_shapes: Which axes may have other sizes later, as `torch.export.export` takes it. Default: none.
        input_names, output_names: Names in the file; default: torch's.
        opset_version: Of ONNX; default: torch's.
        external_data: Weights go into a file of their own beside `path`. Default: False.
    Returns:
        torch's program: `.model_proto` is the model, `.save(path)` writes it.
    Raises:
        ModeError: the module is in training mode. ArgumentTypeError: no module, or one tensor as `args`.
        torch.onnx.OnnxExporterError: the model cannot be exported, such as one with a cell of the caller's that counts
            its steps in Python, on a dynamic time axis.
    """
    if not isinstance(module, nn.Module):
        raise ArgumentTypeError(f"{_WHERE}: expected a module, got {type(module).__name__}.")
    if any(part.training for part in module.modules()):
        raise ModeError(
            f"{_WHERE}: expected a module in evaluation mode, got one in training mode. Call .eval() first."
        )
    examples: Any = args
    if isinstance(examples, torch.Tensor):
        raise ArgumentTypeError(f"{_WHERE}: expected args as a tuple of example inputs, got a tensor. Write (inputs,).")
    given = dict(kwargs or {})
    with torch.no_grad(), without_torchs_own_warnings(), graphs_for_files():
        module(*args, **given)
        program = torch.onnx.export(
            module, tuple(args), kwargs=given, dynamo=True, verbose=False, dynamic_shapes=dynamic_shapes,
            input_names=input_names, output_names=output_names, opset_version=opset_version,
            custom_translation_table=translations(),
        )  # fmt: skip
    if program is None:
        raise ModeError(f"{_WHERE}: expected torch.onnx.export to give a program, got none.")
    join_directions(program.model.graph)
    fold_weights(program.model)
    if path is not None:
        program.save(path, external_data=external_data)
    return program
