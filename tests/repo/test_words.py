"""Docstrings say what is: the sizes and names of what they list."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
import torch

import cellweave as cw
from cellweave import contrib, keras

B, I, H, P = 2, 4, 6, 3
#: Cells, and arguments with which all that their docstrings list is there.
CELLS: dict[type, list[dict[str, Any]]] = {
    cw.BasicRNNCell: [{}],
    cw.GRUCell: [{}],
    cw.BasicLSTMCell: [{}],
    cw.LSTMCell: [{}, {"num_proj": P, "use_peepholes": True}],
    cw.CudnnCompatibleGRUCell: [{}],
    cw.CudnnCompatibleLSTMCell: [{}],
    contrib.CoupledInputForgetGateLSTMCell: [{}, {"num_proj": P, "use_peepholes": True}],
    contrib.GRUBlockCell: [{}],
    contrib.GRUBlockCellV2: [{}],
    contrib.IndRNNCell: [{}],
    contrib.IndyGRUCell: [{}],
    contrib.IndyLSTMCell: [{}],
    contrib.IntersectionRNNCell: [{"num_in_proj": 1}],
    contrib.LayerNormBasicLSTMCell: [{}, {"layer_norm": False}],
    contrib.LSTMBlockCell: [{}, {"use_peephole": True}],
    contrib.NASCell: [{}, {"num_proj": P, "use_bias": True}],
    contrib.SRUCell: [{}],
    contrib.UGRNNCell: [{}],
    keras.GRUCell: [{}],
    keras.LSTMCell: [{}],
    keras.SimpleRNNCell: [{}],
}
CASES = [pytest.param(cls, kwargs, id=f"{cls.__name__}-{kwargs}") for cls, many in CELLS.items() for kwargs in many]
LISTED = re.compile(r"((?:`\w+`,?\s+)+)`\[([\w +*,]+)\]`")


def listed_shapes(cls: type, projected: int) -> dict[str, list[int]]:
    """Names of weights in a docstring, and their shapes for the sizes above."""
    text = (inspect.getdoc(cls) or "").split("Shapes:")[1].split("Raises:")[0].split("Source:")[0]
    sizes = {"B": B, "I": I, "H": H, "P": projected}
    found: dict[str, list[int]] = {}
    for names, shape in LISTED.findall(text):
        axes = [sum(_number(term, sizes) for term in axis.split("+")) for axis in shape.split(",")]
        found.update(dict.fromkeys(re.findall(r"\w+", names), axes))
    return found


def _number(term: str, sizes: dict[str, int]) -> int:
    """`4H` as a number."""
    match = re.fullmatch(r"\s*(\d*)([A-Z]?)\s*", term)
    assert match is not None, term
    return int(match[1] or 1) * sizes.get(match[2], 1)


def built(cls: type, kwargs: dict[str, Any]) -> Any:
    cell = cls(H, **kwargs)
    cell(torch.zeros(B, I), cell.get_initial_state(batch_size=B, dtype="float32"))
    return cell


@pytest.mark.parametrize("cls, kwargs", CASES)
def test_weights_have_the_shapes_that_are_listed(cls: type, kwargs: dict[str, Any]) -> None:
    shapes = {name: list(weight.shape) for name, weight in built(cls, kwargs).named_parameters()}
    listed = listed_shapes(cls, kwargs.get("num_proj", H))
    assert listed.keys() & shapes.keys(), listed
    assert {name: listed[name] for name in listed.keys() & shapes.keys()} == {
        name: shape for name, shape in shapes.items() if name in listed
    }
    assert {name for name in shapes if name not in (inspect.getdoc(cls) or "")} <= UNNAMED


#: Weights that a docstring lists by a pattern.
UNNAMED = {
    *("candidate_input_projection_bias", "candidate_hidden_projection_bias"),
    *(f"{part}_{value}" for part in ("transform", "forget", "output", "state") for value in ("gamma", "beta")),
}


@pytest.mark.parametrize("cls", [cls for cls in CELLS if "name: Name of" in (inspect.getdoc(cls) or "")])
def test_default_names_are_those_that_are_given(cls: type) -> None:
    words = re.search(r"scope; default(?:: scope)? `(\w+)`(?:,\s+name `(\w+)`)?", inspect.getdoc(cls) or "")
    assert words is not None
    with cw.Graph():
        assert cls(H).name == (words[2] or words[1])
    assert built(cls, CELLS[cls][0]).scope_name == words[1]
