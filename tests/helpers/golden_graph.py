"""Golden cases through a recorded graph: symbolic inputs, the driver recorded once, a Model run again and again."""

from __future__ import annotations

from typing import Any

import torch

import cellweave as cw
from helpers.golden_drivers import Setting
from helpers.golden_runs import Trial, check_gradients
from helpers.golden_set import Arrays, Case
from helpers.tolerances import GOLDEN, assert_close

#: raw_rnn's loop function looks at values while it runs, so there is nothing to record.
NOT_RECORDED = frozenset({"raw_rnn"})


def check_in_graph(case: Case, arrays: Arrays) -> None:
    """Outputs, states, loss and gradients of every run of the recorded graph."""
    tolerance = GOLDEN[case["dtype"]]
    with cw.Graph() as graph:
        cw.set_random_seed(case["graph_seed"])
        with cw.variable_scope(cw.get_variable_scope(), reuse=cw.AUTO_REUSE):
            weights = {
                f"g{v['key']}": cw.get_variable(v["name"], initializer=torch.tensor(arrays[v["key"]]))
                for v in case["variables"]
            }
            trial = Trial(case, arrays)
            symbols, outputs = _record(trial)
            model = cw.Model(symbols, list(outputs.values()))
    assert list(graph.store.variables) == [v["name"] for v in case["variables"]], "recording made other variables"
    leaves = trial.leaves() | weights
    fed = list(trial.leaves().values()) + ([] if trial.lengths is None else [trial.lengths])
    for number in range(case["runs"]):
        suffix = f"__run{number + 1}" if number else ""
        trial.placeholders.feed(number)
        results = dict(zip(outputs, model(fed), strict=True))
        for key, value in results.items():
            assert_close(key + suffix, value, arrays[key + suffix], tolerance)
        loss = sum((value * torch.tensor(arrays[f"ct_{key}"])).sum() for key, value in results.items())
        assert_close("loss" + suffix, loss, arrays["loss" + suffix], tolerance)
        check_gradients(loss, leaves, arrays, suffix, tolerance)


def _record(trial: Trial) -> tuple[list[Any], dict[str, Any]]:
    """The symbolic inputs, in the order of `Trial.leaves` and then the lengths, and the symbolic results by key."""
    case, dtype = trial.case, trial.case["dtype"]
    x = cw.Input(tuple(trial.x.shape), dtype=dtype)
    init = {d: [cw.Input(tuple(leaf.shape), dtype=dtype) for leaf in leaves] for d, leaves in trial.init.items()}
    lengths = None if trial.lengths is None else cw.Input((case["B"],), dtype="int32")
    setting = Setting(case, trial.cells, x, init, lengths, trial.dtype)
    symbols = [x, *(leaf for leaves in init.values() for leaf in leaves), *([] if lengths is None else [lengths])]
    if "static" not in case["driver"]:
        return symbols, trial.driver(setting).tensors
    setting.x = [x[t] for t in range(case["T"])]  # a symbol cannot be made a list
    return symbols, trial.driver(setting).tensors
