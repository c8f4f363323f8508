"""Every exported cell, wrapper and unroll is judged by numbers that TensorFlow computed, or says why not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from repo.source_files import PACKAGE, ROOT, exported_names

MANIFESTS = [ROOT / "tests" / "golden" / folder / "manifest.json" for folder in ("data", "contrib")]
_GONE = "TensorFlow 2.15 ships neither its class nor a kernel of it; judged by an oracle from the paper"

# Name -> why no golden case names it. The list may only shrink.
EXEMPT = {
    "explain": "it prints a plan and computes nothing",
    "Stepper": "single steps of cells, which have cases; its own tests compare it with unrolls",
    "RNNCell": "abstract: it computes nothing",
    "RNNCellResidualWrapper": "TF2 wraps Keras cells; its sum is the one of ResidualWrapper, which has cases",
    "RNNCellDeviceWrapper": "placement only: it computes nothing",
    "static_bidirectional_rnn": "two static_rnn, which has cases; compared with the dynamic form in tests",
    "stack_bidirectional_dynamic_rnn": "TensorFlow 2.15 no longer ships it; compared with its own loop in tests",
}
EXEMPT |= dict.fromkeys(
    [
        "contrib.CoupledInputForgetGateLSTMCell",
        "contrib.IndRNNCell",
        "contrib.IndyGRUCell",
        "contrib.IndyLSTMCell",
        "contrib.IntersectionRNNCell",
        "contrib.LayerNormBasicLSTMCell",
        "contrib.NASCell",
        "contrib.PhasedLSTMCell",
        "contrib.SRUCell",
        "contrib.UGRNNCell",
        "contrib.ConvLSTMCell",
        "contrib.Conv1DLSTMCell",
        "contrib.Conv2DLSTMCell",
        "contrib.Conv3DLSTMCell",
        "contrib.EmbeddingWrapper",
        "contrib.HighwayWrapper",
        "contrib.InputProjectionWrapper",
        "contrib.OutputProjectionWrapper",
    ],
    _GONE,
)
EXEMPT["contrib.FusedRNNCellAdaptor"] = "dynamic_rnn or static_rnn, which have cases; compared with both in tests"
# In the manifest, a driver stands for the class or function that it runs.
DRIVERS = {"v2_eager": "RNNCellDropoutWrapper"}
# A cudnn case runs the layer of its mode, and the cells that read the layer's checkpoints.
CUDNN = {
    "lstm": ("CudnnLSTM", "CudnnCompatibleLSTMCell"),
    "gru": ("CudnnGRU", "CudnnCompatibleGRUCell"),
    "rnn_tanh": ("CudnnRNNTanh", "BasicRNNCell"),
    "rnn_relu": ("CudnnRNNRelu", "BasicRNNCell"),
}


def walk(tree: Any) -> Iterator[str]:
    """Every class named in a case's tree of cells."""
    if isinstance(tree, dict):
        if "class" in tree:
            yield tree["class"]
        for child in tree.values():
            yield from walk(child)
    elif isinstance(tree, list):
        for child in tree:
            yield from walk(child)


def covered() -> set[str]:
    cases = [case for path in MANIFESTS for case in json.loads(path.read_text(encoding="utf-8"))["cases"]]
    classes = {
        name for case in cases for key in ("cell", "cells", "cell_fw", "cell_bw") for name in walk(case.get(key))
    }
    keras = {f"keras.{case['keras_cell']}" for case in cases if "keras_cell" in case}
    cudnn = {name for case in cases if "rnn_mode" in case for name in CUDNN[case["rnn_mode"]]}
    contrib = {f"contrib.{name}" for name in classes | cudnn}
    return classes | contrib | keras | cudnn | {DRIVERS.get(case["driver"], case["driver"]) for case in cases}


def recurrent_names() -> list[str]:
    """What the package exports from `cells`, `wrappers` and `layers`, and what its faces hold."""
    public = set(exported_names(PACKAGE / "__init__.py"))
    folders = [exported_names(PACKAGE / folder / "__init__.py") for folder in ("cells", "wrappers", "layers")]
    faces = {f"{face}.{name}" for face in ("keras", "contrib") for name in exported_names(PACKAGE / f"{face}.py")}
    return sorted(public & {name for folder in folders for name in folder}) + sorted(faces)


@pytest.mark.parametrize("name", recurrent_names())
def test_has_a_golden_case_or_a_reason(name: str) -> None:
    assert (name in covered()) != (name in EXEMPT), f"{name}: expected a golden case or one line in EXEMPT, not both"


def test_something_was_looked_at() -> None:
    assert {"LSTMCell", "GRUCell", "DropoutWrapper", "dynamic_rnn"} <= set(recurrent_names())


def test_exemptions_name_what_exists() -> None:
    assert set(EXEMPT) <= set(recurrent_names())
