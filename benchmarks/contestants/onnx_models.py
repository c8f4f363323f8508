"""ONNX Runtime and OpenVINO on one ONNX model: the standard's LSTM, GRU and RNN operators."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import problem
from onnx import TensorProto, helper, numpy_helper
from program import Program
from registry import Case

#: cellweave's blocks of columns in ONNX's order: LSTM i j f o -> i o f c, GRU r u c and u r c -> z r h.
_ORDER = {"lstm": (0, 3, 2, 1), "gru_before": (1, 0, 2), "gru_after": (0, 1, 2), "rnn": (0,)}
_OPERATOR = {"lstm": "LSTM", "gru_before": "GRU", "gru_after": "GRU", "rnn": "RNN"}
_OPSET, _IR_VERSION = 14, 8  # what both runtimes have read for years


def make(name: str, case: Case) -> Program:
    return {"onnxruntime": _onnxruntime, "openvino": _openvino}[name](case, model_bytes(case))


def model_bytes(case: Case) -> bytes:
    """A model from `x` `[T, B, I]` to `y` `[T, 1, B, H]`; a streaming step also has `h` and `c` in and out."""
    kernel, recurrent, bias, recurrent_bias = problem.split(case, problem.weights(case))
    if case.kind == "lstm":
        bias = bias.copy()
        bias[2 * case.H : 3 * case.H] += problem.FORGET_BIAS
    order = _ORDER[case.kind]
    parts = [problem.reordered(part, order) for part in (kernel, recurrent, bias, recurrent_bias)]
    tensors = {"w": parts[0].T[None], "r": parts[1].T[None], "b": np.concatenate(parts[2:])[None]}
    stream = case.variation == "step"
    states = [part for part in ("h", "c") if part in problem.state(case)] if stream else []
    node = helper.make_node(
        _OPERATOR[case.kind],
        ["x", "w", "r", "b", *([""] if stream else []), *states],
        ["y", *(f"{part}_last" for part in states)],
        hidden_size=case.H,
        **({"linear_before_reset": int(case.kind == "gru_after")} if _OPERATOR[case.kind] == "GRU" else {}),
    )
    state_shape = [1, case.B, case.H]

    def value(name: str, shape: list[int]) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        [node],
        "layer",
        [value("x", [case.T, case.B, case.I]), *(value(part, state_shape) for part in states)],
        [value("y", [case.T, 1, case.B, case.H]), *(value(f"{part}_last", state_shape) for part in states)],
        [numpy_helper.from_array(np.ascontiguousarray(values), name) for name, values in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    return bytes(model.SerializeToString())


def _fed(case: Case) -> dict[str, Any]:
    fed = {"x": problem.inputs(case)}
    if case.variation == "step":
        fed.update({part: values[None] for part, values in problem.state(case).items()})
    return fed


def _onnxruntime(case: Case, model: bytes) -> Program:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = int(os.environ["BENCH_THREADS"])
    options.inter_op_num_threads = 1
    # its workers spin while it runs, and stop when it returns: others are timed next
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    fed = _fed(case)
    outputs = {output.name: np.zeros(output.shape, np.float32) for output in session.get_outputs()}
    for name, values in fed.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(values))
    for name, values in outputs.items():
        binding.bind_ortvalue_output(name, ort.OrtValue.ortvalue_from_numpy(values))
    borrowed = fed, outputs  # the binding only points to their memory

    def call() -> Any:
        session.run_with_iobinding(binding)
        return borrowed

    def results() -> dict[str, Any]:
        call()
        return {"outputs": outputs["y"][:, 0]}

    return Program(call, results)


def _openvino(case: Case, model: bytes) -> Program:
    import openvino

    core = openvino.Core()
    settings = {
        "INFERENCE_NUM_THREADS": int(os.environ["BENCH_THREADS"]),
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32",  # it would take bfloat16 by itself where the machine has it
    }
    request = core.compile_model(core.read_model(model), "CPU", settings).create_infer_request()
    fed = _fed(case)
    for name, values in fed.items():
        request.set_tensor(name, openvino.Tensor(values, shared_memory=True))

    def call() -> Any:
        request.infer()
        return fed  # the request only points to its memory

    def results() -> dict[str, Any]:
        call()
        return {"outputs": np.array(request.get_tensor("y").data)[:, 0]}

    return Program(call, results)
