"""The cudnn driver of the goldens: the layer itself, and the cells that read its checkpoints without it."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

import cellweave as cw
from helpers.golden_cells import Placeholders, arguments, find_class
from helpers.golden_drivers import REMARKS, check_keys
from helpers.golden_set import Arrays, Case
from helpers.tolerances import GOLDEN, assert_close, assert_same_bits

Tensors = dict[str, torch.Tensor]

CUDNN_CLASSES = {"lstm": "CudnnLSTM", "gru": "CudnnGRU", "rnn_tanh": "CudnnRNNTanh", "rnn_relu": "CudnnRNNRelu"}
#: The cell that a checkpoint's names speak of.
COMPATIBLE_CELLS: dict[str, Any] = {
    "lstm": cw.CudnnCompatibleLSTMCell,
    "gru": cw.CudnnCompatibleGRUCell,
    "rnn_tanh": cw.BasicRNNCell,
    "rnn_relu": partial(cw.BasicRNNCell, activation="relu"),
}
CUDNN_KEYS = REMARKS | frozenset(
    [
        "B",
        "T",
        "D",
        "dtype",
        "runs",
        "graph_seed",
        "rnn_mode",
        "layer_kwargs",
        "seq_len",
        "canonical_weight_shapes",
        "canonical_bias_shapes",
    ]
)


class _Problem:
    """A case's inputs, and what it expects."""

    def __init__(self, case: Case, arrays: Arrays) -> None:
        check_keys(case, CUDNN_KEYS)
        self.case, self.arrays = case, arrays
        self.tolerance = GOLDEN[case["dtype"]]
        self.x = torch.tensor(arrays["x"]).requires_grad_()
        self.init = [torch.tensor(arrays[key]).requires_grad_() for key in arrays.numbered("init")]
        self.lengths = torch.tensor(arrays["seq_len"]) if "seq_len" in arrays else None
        self.saved = {v["name"]: torch.tensor(arrays[v["key"]]) for v in case["variables"]}

    def check(self, what: str, out: torch.Tensor, states: list[torch.Tensor], weights: list[torch.Tensor]) -> Any:
        """Compare values, loss and gradients of inputs and states; give those of the weights."""
        results = {"out": out, **{f"final{number}": state for number, state in enumerate(states)}}
        for key, value in results.items():
            assert_close(f"{what}: {key}", value, self.arrays[key], self.tolerance)
        loss = sum((value * torch.tensor(self.arrays[f"ct_{key}"])).sum() for key, value in results.items())
        assert_close(f"{what}: loss", loss, self.arrays["loss"], self.tolerance)
        keys = ["g_x", *[f"g_init{number}" for number in range(len(self.init))]]
        found = torch.autograd.grad(loss, [self.x, *self.init, *weights])
        for key, grad in zip(keys, found, strict=False):
            assert_close(f"{what}: {key}", grad, self.arrays[key], self.tolerance)
        return found[len(keys) :]

    def check_weight_gradients(self, what: str, grads: Tensors) -> None:
        """Gradients of the saved tensors, by name."""
        assert grads.keys() == self.saved.keys()
        for variable in self.case["variables"]:
            key = f"g{variable['key']}"
            assert_close(f"{what}: {key}", grads[variable["name"]], self.arrays[key], self.tolerance)


def make_layer(case: Case) -> Any:
    """The layer of a case."""
    cls = find_class(CUDNN_CLASSES[case["rnn_mode"]])
    assert cls is getattr(cw, case["symbol"].rsplit(".", 1)[-1])
    return cls(**arguments(cls, {"dtype": case["dtype"], **case["layer_kwargs"]}, Placeholders(torch.float32)))


def check_cudnn(case: Case, arrays: Arrays) -> None:
    """The layer with the saved tensors loaded, and the compatible cells with the same; canonical tensors by the way."""
    problem = _Problem(case, arrays)
    layer = make_layer(case)
    layer.load_tf_canonical(problem.saved)
    for stem, got in (("cw", layer.canonical_weights()), ("cb", layer.canonical_biases())):
        for number, value in enumerate(got):
            assert_same_bits(f"{stem}{number}", value, arrays[f"{stem}{number}"])
    for name, value in layer.tf_canonical_tensors().items():
        assert_same_bits(name, value, problem.saved[name])
    out, states = layer(problem.x, tuple(problem.init), problem.lengths)
    found = problem.check("layer", out, list(states), list(layer.parameters()))
    problem.check_weight_gradients("layer", _of_saved(layer, found))
    _check_compatible_cells(problem)
    arrays.check_all_used()


def _of_saved(layer: Any, grads: Any) -> Tensors:
    """Gradients of the saved tensors out of those of the parameters.

    They lie as the parameters do. A saved bias that is a sum has the gradient of either part: half of what those add up
    to.
    """
    twin = type(layer)(
        layer.num_layers, layer.num_units, direction=layer.direction, dtype=layer.dtype, input_mode=layer.input_mode
    )
    twin.build((None, None, layer.input_size))
    for parameter, grad in zip(twin.parameters(), grads, strict=True):
        with torch.no_grad():
            parameter.copy_(grad)
    sums = {name for name in twin.tf_canonical_tensors() if name.endswith("bias") and "_projection" not in name}
    return {n: value / 2 if n in sums else value for n, value in twin.tf_canonical_tensors().items()}


def _check_compatible_cells(problem: _Problem) -> None:
    """Read the tensors into the cells that TF1 had for it, by their names."""
    case = problem.case
    with cw.VariableStore() as store:
        _run_cells(problem)
    assert list(store.variables) == [v["name"] for v in case["variables"]]
    for variable in case["variables"]:
        made = store.variables[variable["name"]]
        assert (list(made.shape), str(made.dtype)) == (variable["shape"], f"torch.{variable['dtype']}")
    with cw.VariableStore() as store:
        for name, value in problem.saved.items():
            cw.get_variable(name, initializer=value)
        with cw.variable_scope(cw.get_variable_scope(), reuse=True):
            out, states = _run_cells(problem)
        weights = [store.variables[v["name"]] for v in case["variables"]]
    grads = problem.check("cells", out, states, weights)
    problem.check_weight_gradients("cells", dict(zip(problem.saved, grads, strict=True)))


def _run_cells(problem: _Problem) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Outputs, and the final states in the layer's layout."""
    kwargs = problem.case["layer_kwargs"]
    layers, dirs = kwargs["num_layers"], 1 + (kwargs.get("direction") == "bidirectional")
    cells = [COMPATIBLE_CELLS[problem.case["rnn_mode"]](kwargs["num_units"]) for _ in range(layers * dirs)]
    init = [_as_state([leaf[place] for leaf in problem.init]) for place in range(layers * dirs)]
    options: dict[str, Any] = {"sequence_length": problem.lengths, "time_major": True}
    if dirs == 1:
        out, states = cw.dynamic_rnn(
            cw.MultiRNNCell(cells), problem.x, initial_state=tuple(init), **options
        )  # fmt: skip
    else:
        out, fw, bw = cw.stack_bidirectional_dynamic_rnn(
            cells[::2], cells[1::2], problem.x, init[::2], init[1::2], **options
        )
        states = [state for pair in zip(fw, bw, strict=True) for state in pair]
    leaves = [[state.h, state.c] if isinstance(state, cw.LSTMStateTuple) else [state] for state in states]
    return out, [torch.stack(column) for column in zip(*leaves, strict=True)]


def _as_state(leaves: list[torch.Tensor]) -> Any:
    return cw.LSTMStateTuple(leaves[1], leaves[0]) if len(leaves) == 2 else leaves[0]


def check_cudnn_variables(case: Case) -> None:
    """Canonical shapes, and names, shapes and dtypes of what is saved, of a layer that was just built."""
    check_keys(case, CUDNN_KEYS)
    layer = make_layer(case)
    assert layer.saveable is None
    layer.build((None, case["B"], case["D"]))
    assert [list(shape) for shape in layer.canonical_weight_shapes] == case["canonical_weight_shapes"]
    assert all(isinstance(shape, tuple) for shape in layer.canonical_weight_shapes)
    assert layer.canonical_bias_shapes == case["canonical_bias_shapes"]
    saved = {name: (list(t.shape), t.dtype) for name, t in layer.saveable.tensors().items()}
    assert saved == {v["name"]: (v["shape"], getattr(torch, v["dtype"])) for v in case["variables"]}
    assert case["state_structure"] == ("(h, c)" if len(layer.state_shape(1)) == 2 else "(h,)")
