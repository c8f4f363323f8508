"""A layer as a Scan, against the reference: what a run may have inside its time loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from cellweave.ops.common import BoundMask, LayerCall
from cellweave.specs import GRUSpec, LSTMSpec, MaskSpec, RunSpec
from cellweave.weave import backends_of
from helpers.tolerances import assert_close

ir = pytest.importorskip("onnx_ir", reason="the extra onnx is not installed")
pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytestmark = pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning")  # torch's own

T, B, D, N = 6, 4, 3, 5
ZONES = tuple(MaskSpec(place, True, True) for place in ("zone_h", "zone_c"))
RUNS = {
    "states": RunSpec(GRUSpec(N), all_states=True),
    "zoneout": RunSpec(LSTMSpec(N, projection=2, peepholes=True), ZONES, all_states=True, lengths=True, reverse=True),
    "all": RunSpec(GRUSpec(N), ZONES[:1], lengths=True, resets=True, all_states=True, reverse=True),
}


@pytest.mark.parametrize("name", RUNS)
def test_scan(name: str, tmp_path: Path) -> None:
    from cellweave.onnx._nodes import Nodes
    from cellweave.onnx._scan import ScanInputs, run_scan
    from cellweave.ops.common._native_frame import recurs_on_outputs

    run = RUNS[name]
    torch.manual_seed(4)
    sizes = [N, run.cell.output_size] if isinstance(run.cell, LSTMSpec) else [N]
    given: dict[str, torch.Tensor] = {"x": torch.randn(T, B, D)}
    given |= {f"state{k}": torch.randn(B, size) for k, size in enumerate(sizes)}
    given |= {f"fresh{k}": torch.randn(B, size) for k, size in enumerate(sizes) if run.resets}
    if run.lengths:
        given["lengths"] = torch.tensor([6, 0, 2, 4], dtype=torch.int32)
    if run.resets:
        given["resets"] = torch.rand(T, B) < 0.4
    keeps = [0.7, 0.4][: len(run.masks)]
    if keeps:
        given["keeps"] = torch.tensor(keeps, dtype=torch.float64)
    weights = {weight.name: torch.randn(*weight.shape).clamp(-0.6, 0.6) for weight in run.cell.weights(D)}
    given |= weights

    kinds = {torch.float32: 1, torch.int32: 6, torch.bool: 9, torch.float64: 11}
    values = {
        key: ir.Value(
            name=key, shape=ir.Shape([None if n in (T, B) and "kernel" not in key else n for n in tensor.shape]),
            type=ir.TensorType(ir.DataType(kinds[tensor.dtype])),
        )
        for key, tensor in given.items()
    }  # fmt: skip
    made: list[Any] = []
    parts = [[values[f"{part}{k}"] for k, _ in enumerate(sizes)] for part in ("state", "fresh") if f"{part}0" in values]
    inputs = ScanInputs(
        values["x"], parts[0], values.get("lengths"), values.get("resets"), parts[1] if run.resets else (),
        values.get("keeps"),
    )  # fmt: skip
    outputs, rest = run_scan(Nodes(made, 20), run, inputs, {key: values[key] for key in weights})
    for number, value in enumerate([outputs, *rest]):
        value.name, value.type = f"result{number}", ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph(list(values.values()), [outputs, *rest], nodes=made, name="layer", opset_imports={"": 20})
    ir.save(ir.Model(graph, ir_version=10), tmp_path / "layer.onnx")

    session = onnxruntime.InferenceSession(tmp_path / "layer.onnx")
    found = session.run(None, {key: tensor.numpy() for key, tensor in given.items()})
    reference = next(backend for backend in backends_of(run.cell) if backend.name == "reference")
    masks = tuple(BoundMask(spec, keep, False, expected=True) for spec, keep in zip(run.masks, keeps, strict=True))
    state, fresh = [tuple(given[f"{part}{k}"] for k, _ in enumerate(sizes) if f"{part}{k}" in given) for part in
                    ("state", "fresh")]  # fmt: skip
    call = LayerCall(run, given["x"], state, weights, masks, given.get("lengths"), given.get("resets"), fresh or None)
    expected = reference.run(call)
    plain = recurs_on_outputs(run, call.lengths, call.resets)
    states = expected.states[:-1] if plain else expected.states
    for number, (a, b) in enumerate(zip(found, [expected.outputs, *expected.state, *states], strict=True)):
        assert_close(f"result {number}", a, b, 1e-6)
