"""TF1 names of variables: every cell, every unroll, uniquifying, scope capture (contract section 2)."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import cellweave as cw

D, N, P = 4, 3, 2
X = torch.linspace(-1.0, 1.0, 2 * D).reshape(2, D)
H = torch.zeros(2, N)
SEQUENCE = X[:, None].expand(2, 3, D)

GRU = {
    "gates/kernel": [D + N, 2 * N],
    "gates/bias": [2 * N],
    "candidate/kernel": [D + N, N],
    "candidate/bias": [N],
}
LSTM = {"kernel": [D + N, 4 * N], "bias": [4 * N]}
PEEPHOLES = {"w_f_diag": [N], "w_i_diag": [N], "w_o_diag": [N]}
CELLS: dict[str, tuple[Callable[..., Any], str, dict[str, list[int]]]] = {
    "basic_rnn": (cw.BasicRNNCell, "basic_rnn_cell", {"kernel": [D + N, N], "bias": [N]}),
    "gru": (cw.GRUCell, "gru_cell", GRU),
    "basic_lstm": (cw.BasicLSTMCell, "basic_lstm_cell", LSTM),
    "lstm": (cw.LSTMCell, "lstm_cell", LSTM),
    "lstm-peepholes": (lambda n, **k: cw.LSTMCell(n, use_peepholes=True, **k), "lstm_cell", {**LSTM, **PEEPHOLES}),
    "lstm-projection": (
        lambda n, **k: cw.LSTMCell(n, num_proj=P, **k),
        "lstm_cell",
        {"kernel": [D + P, 4 * N], "bias": [4 * N], "projection/kernel": [N, P]},
    ),
    "lstm-all": (
        lambda n, **k: cw.LSTMCell(n, use_peepholes=True, num_proj=P, **k),
        "lstm_cell",
        {"kernel": [D + P, 4 * N], "bias": [4 * N], **PEEPHOLES, "projection/kernel": [N, P]},
    ),
}
SCOPES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "direct": (lambda cell: cell(X, cell.zero_state(2, "float32")), ""),
    "direct-scope": (lambda cell: cell(X, cell.zero_state(2, "float32"), scope="zed"), "="),
    "dynamic": (lambda cell: cw.dynamic_rnn(cell, SEQUENCE, dtype="float32"), "rnn/"),
    "dynamic-scope": (lambda cell: cw.dynamic_rnn(cell, SEQUENCE, dtype="float32", scope="dec"), "dec/"),
    "static": (lambda cell: cw.static_rnn(cell, SEQUENCE.unbind(1), dtype="float32"), "rnn/"),
    "static-scope": (lambda cell: cw.static_rnn(cell, [X], dtype="float32", scope="a/b"), "a/b/"),
    "raw": (lambda cell: cw.raw_rnn(cell, _loop(cell)), "rnn/"),
    "raw-scope": (lambda cell: cw.raw_rnn(cell, _loop(cell), scope="dec"), "dec/"),
}


def _loop(cell: Any) -> Callable[..., Any]:
    def loop_fn(time: int, output: Any, state: Any, loop_state: Any) -> Any:
        state = cell.zero_state(2, "float32") if output is None else state
        return torch.tensor([time >= 2] * 2), X, state, output, None

    return loop_fn


def _shapes(module: nn.Module) -> dict[str, list[int]]:
    return {name: list(variable.shape) for name, variable in cw.variable_names(module).items()}


def _called(cell: Any, scope: Any = None) -> Any:
    cell(X, cell.zero_state(2, "float32"), scope=scope)
    return cell


@pytest.mark.parametrize("mode", ["eager", "store"])
@pytest.mark.parametrize("driver", SCOPES)
@pytest.mark.parametrize("kind", CELLS)
def test_every_cell_in_every_unroll(kind: str, driver: str, mode: str) -> None:
    """Names, shapes and creation order, with and without a store."""
    make, base, suffixes = CELLS[kind]
    run, prefix = SCOPES[driver]
    head = "zed/" if prefix == "=" else f"{prefix}{base}/"
    expected = {head + suffix: shape for suffix, shape in suffixes.items()}
    store = cw.VariableStore()
    if mode == "store":
        with store:
            run(cell := make(N))
        assert {name: list(variable.shape) for name, variable in store.variables.items()} == expected
        assert list(store.variables) == list(expected)
    else:
        run(cell := make(N))
    assert _shapes(cell) == expected
    assert list(_shapes(cell)) == list(expected)
    assert [list(weight.shape) for weight in cell.weights] == list(suffixes.values())
    assert cell.scope_name == head.rstrip("/")


@pytest.mark.parametrize("kind", CELLS)
def test_a_given_name_replaces_the_base_name(kind: str) -> None:
    make, _, suffixes = CELLS[kind]
    cell = make(N, name="mine")
    cw.dynamic_rnn(cell, SEQUENCE, dtype="float32")
    assert list(_shapes(cell)) == [f"rnn/mine/{suffix}" for suffix in suffixes]


@pytest.mark.parametrize("kind", CELLS)
def test_parameters_are_named_by_suffix(kind: str) -> None:
    make, _, suffixes = CELLS[kind]
    cell = _called(make(N))
    assert list(cell.state_dict()) == [suffix.replace("/", "_") for suffix in suffixes]
    for name, variable in cw.variable_names(cell).items():
        assert getattr(cell, name.split("/", 1)[1].replace("/", "_")) is variable


BIDIRECTIONAL: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "dynamic": (
        lambda fw, bw: cw.bidirectional_dynamic_rnn(fw, bw, SEQUENCE, dtype="float32"),
        "bidirectional_rnn/",
    ),
    "dynamic-scope": (
        lambda fw, bw: cw.bidirectional_dynamic_rnn(fw, bw, SEQUENCE, dtype="float32", scope="both"),
        "both/",
    ),
    "static": (
        lambda fw, bw: cw.static_bidirectional_rnn(fw, bw, SEQUENCE.unbind(1), dtype="float32"),
        "bidirectional_rnn/",
    ),
    "static-scope": (
        lambda fw, bw: cw.static_bidirectional_rnn(fw, bw, [X], dtype="float32", scope="both"),
        "both/",
    ),
    "stack": (
        lambda fw, bw: cw.stack_bidirectional_dynamic_rnn([fw], [bw], SEQUENCE, dtype="float32"),
        "stack_bidirectional_rnn/cell_0/bidirectional_rnn/",
    ),
    "stack-scope": (
        lambda fw, bw: cw.stack_bidirectional_dynamic_rnn([fw], [bw], SEQUENCE, dtype="float32", scope="deep"),
        "deep/cell_0/bidirectional_rnn/",
    ),
}


@pytest.mark.parametrize("driver", BIDIRECTIONAL)
def test_bidirectional_unrolls(driver: str) -> None:
    """fw and bw, and no `rnn` inside."""
    run, prefix = BIDIRECTIONAL[driver]
    fw, bw = cw.GRUCell(N), cw.GRUCell(N)
    with cw.variable_scope("enc"):
        run(fw, bw)
    assert list(_shapes(fw)) == [f"enc/{prefix}fw/gru_cell/{suffix}" for suffix in GRU]
    assert list(_shapes(bw)) == [f"enc/{prefix}bw/gru_cell/{suffix}" for suffix in GRU]


def test_layers_of_a_bidirectional_stack() -> None:
    fw, bw = [cw.GRUCell(N), cw.LSTMCell(N)], [cw.GRUCell(N), cw.BasicRNNCell(N)]
    cw.stack_bidirectional_dynamic_rnn(fw, bw, SEQUENCE, dtype="float32")
    head = "stack_bidirectional_rnn/cell_1/bidirectional_rnn"
    assert _shapes(fw[1]) == {f"{head}/fw/lstm_cell/kernel": [3 * N, 4 * N], f"{head}/fw/lstm_cell/bias": [4 * N]}
    assert _shapes(bw[1]) == {f"{head}/bw/basic_rnn_cell/kernel": [3 * N, N], f"{head}/bw/basic_rnn_cell/bias": [N]}


def _stack() -> Any:
    inner = cw.MultiRNNCell([cw.BasicRNNCell(N), cw.DropoutWrapper(cw.ResidualWrapper(cw.BasicRNNCell(N)))])
    return cw.MultiRNNCell([cw.DeviceWrapper(cw.LSTMCell(N, num_proj=P), "cpu"), inner])


STACKED = [
    "multi_rnn_cell/cell_0/lstm_cell/kernel",
    "multi_rnn_cell/cell_0/lstm_cell/bias",
    "multi_rnn_cell/cell_0/lstm_cell/projection/kernel",
    "multi_rnn_cell/cell_1/multi_rnn_cell/cell_0/basic_rnn_cell/kernel",
    "multi_rnn_cell/cell_1/multi_rnn_cell/cell_0/basic_rnn_cell/bias",
    "multi_rnn_cell/cell_1/multi_rnn_cell/cell_1/basic_rnn_cell/kernel",
    "multi_rnn_cell/cell_1/multi_rnn_cell/cell_1/basic_rnn_cell/bias",
]


@pytest.mark.parametrize("mode", ["called", "built", "in-a-store"])
def test_stacks_nest_and_wrappers_add_nothing(mode: str) -> None:
    stack = _stack()
    if mode == "built":
        stack.build([None, D])
        assert list(_shapes(stack)) == STACKED
    elif mode == "called":
        cw.dynamic_rnn(stack, SEQUENCE, dtype="float32")
        assert list(_shapes(stack)) == [f"rnn/{name}" for name in STACKED]
    else:
        with cw.VariableStore() as store:
            cw.dynamic_rnn(stack, SEQUENCE, dtype="float32")
        assert list(store.variables) == [f"rnn/{name}" for name in STACKED]


def test_a_scope_given_to_a_wrapper_is_the_cells() -> None:
    wrapper = cw.DropoutWrapper(cw.ResidualWrapper(cw.GRUCell(D)))
    wrapper(X, torch.zeros(2, D), scope="zed")
    assert list(cw.variable_names(wrapper)) == [f"zed/{suffix}" for suffix in GRU]


def test_names_of_tf2_wrappers_cells_stand_under_the_wrapper() -> None:
    wrapper = cw.RNNCellDropoutWrapper(cw.keras.GRUCell(N), name="drop")
    wrapper(X, H)
    assert list(cw.variable_names(wrapper)) == ["drop/kernel", "drop/recurrent_kernel", "drop/bias"]


class TestCapture:
    """The scope is fixed at the first call and kept."""

    def test_later_scopes_change_nothing(self) -> None:
        cell = cw.GRUCell(N)
        cw.dynamic_rnn(cell, SEQUENCE, dtype="float32")
        before = cw.variable_names(cell)
        cw.dynamic_rnn(cell, SEQUENCE, dtype="float32", scope="other")
        with cw.variable_scope("elsewhere"):
            _called(cell)
            _called(cell, scope="zed")
        assert cell.scope_name == "rnn/gru_cell"
        assert list(cw.variable_names(cell)) == list(before)
        assert all(variable is before[name] for name, variable in cw.variable_names(cell).items())

    def test_build_captures_too(self) -> None:
        cell = cw.GRUCell(N)
        with cw.variable_scope("enc"):
            cell.build([None, D])
        cw.dynamic_rnn(cell, SEQUENCE, dtype="float32")
        assert cell.scope_name == "enc/gru_cell"

    def test_constructing_does_not_capture(self) -> None:
        with cw.variable_scope("enc"):
            cell = cw.GRUCell(N)
        assert _called(cell).scope_name == "gru_cell"

    def test_in_a_store_a_captured_cell_makes_nothing_new(self) -> None:
        with cw.VariableStore() as store:
            cell = cw.GRUCell(N)
            for scope in ("rnn", "other", "rnn"):
                cw.dynamic_rnn(cell, SEQUENCE, dtype="float32", scope=scope)
            assert list(store.variables) == [f"rnn/gru_cell/{suffix}" for suffix in GRU]

    @pytest.mark.parametrize("scope, name", [("zed", "enc/zed"), ("a/b", "enc/a/b")])
    def test_a_scope_by_name_lies_below_the_open_one(self, scope: str, name: str) -> None:
        with cw.variable_scope("enc"):
            assert _called(cw.GRUCell(N), scope).scope_name == name

    def test_a_scope_object_is_a_full_path(self) -> None:
        with cw.variable_scope("deep/down") as scope:
            pass
        with cw.variable_scope("enc"):
            assert _called(cw.GRUCell(N), scope).scope_name == "deep/down"


class TestVariableNames:
    """`variable_names` of modules that were made outside every store."""

    def test_unnamed_cells_are_numbered_in_module_order(self) -> None:
        a, b, c = _called(cw.GRUCell(N)), _called(cw.GRUCell(N)), _called(cw.LSTMCell(N))
        names = list(cw.variable_names(nn.ModuleList([b, a, c])))
        assert names[::4] == ["gru_cell/gates/kernel", "gru_cell_1/gates/kernel", "lstm_cell/kernel"]
        assert cw.variable_names(nn.ModuleList([b, a]))["gru_cell/gates/kernel"] is b.gates_kernel

    def test_named_twins_are_numbered(self) -> None:
        cells = nn.ModuleList(_called(cw.GRUCell(N, name="foo")) for _ in range(3))
        assert list(cw.variable_names(cells))[::4] == [f"{foo}/gates/kernel" for foo in ("foo", "foo_1", "foo_2")]

    def test_names_do_not_depend_on_what_ran_before(self) -> None:
        for _ in range(3):
            _called(cw.GRUCell(N))
            cw.dynamic_rnn(cw.GRUCell(N), SEQUENCE, dtype="float32")
        with cw.variable_scope("gru_cell"):
            cw.get_variable("v", [1])
        cell = _called(cw.GRUCell(N))
        assert next(iter(cw.variable_names(cell))) == "gru_cell/gates/kernel"
        assert (cell.name, cw.GRUCell(N).name) == ("gru_cell_1", "gru_cell_1")

    def test_equal_scopes_are_an_error_that_helps(self) -> None:
        cells = nn.ModuleList([cw.GRUCell(N), cw.GRUCell(N)])
        for cell in cells:
            cw.dynamic_rnn(cell, SEQUENCE, dtype="float32")
        with pytest.raises(cw.ScopeError, match=r"two called 'rnn/gru_cell/gates/kernel'.*scope"):
            cw.variable_names(cells)

    def test_an_unbuilt_layer_is_named_in_the_error(self) -> None:
        module = nn.ModuleDict({"encoder": cw.GRUCell(N)})
        with pytest.raises(cw.ScopeError, match=r"variable_names: expected built layers, got 'encoder'"):
            cw.variable_names(module)

    def test_the_same_cell_twice_counts_once(self) -> None:
        cell = cw.GRUCell(N)
        stack = cw.MultiRNNCell([cell, cell])
        cell.build([None, N])
        stack(torch.zeros(2, N), (H, H))
        assert len(cw.variable_names(stack)) == 4

    def test_copies_keep_their_names(self) -> None:
        cells = nn.ModuleList([_called(cw.GRUCell(N)), _called(cw.GRUCell(N))])
        names = list(cw.variable_names(cells))
        assert list(cw.variable_names(copy.deepcopy(cells))) == names
        assert list(cw.variable_names(pickle.loads(pickle.dumps(cells)))) == names

    def test_a_cell_and_its_copy_are_two(self) -> None:
        cell = _called(cw.GRUCell(N))
        names = list(cw.variable_names(nn.ModuleList([cell, copy.deepcopy(cell)])))
        assert names[::4] == ["gru_cell/gates/kernel", "gru_cell_1/gates/kernel"]

    def test_modules_without_layers_have_no_variables(self) -> None:
        assert cw.variable_names(nn.Linear(2, 2)) == {}


def test_nothing_is_kept_alive() -> None:
    """No registry: cells and their weights go when the last reference goes."""
    stack = cw.MultiRNNCell([cw.DropoutWrapper(cw.LSTMCell(N), output_keep_prob=0.5), cw.GRUCell(N)])
    results = cw.dynamic_rnn(stack, SEQUENCE, dtype="float32")
    results[0].sum().backward()
    cw.variable_names(stack)
    stack.state_dict()
    watched = [weakref.ref(stack), *[weakref.ref(p) for p in stack.parameters()], *map(weakref.ref, stack.cells)]
    del stack, results
    gc.collect()
    assert [ref() for ref in watched] == [None] * len(watched)


def test_nothing_is_kept_alive_after_an_error() -> None:
    cell = cw.GRUCell(N)
    watched = weakref.ref(cell)
    with pytest.raises(cw.ShapeError):
        cell(X, torch.zeros(2, N + 1))
    del cell
    gc.collect()
    assert watched() is None


def test_names_of_no_module() -> None:
    with pytest.raises(cw.ArgumentTypeError, match="^variable_names: expected a module, got 3"):
        cw.variable_names(3)
