"""One function per driver of the goldens: runs the library, returns tensors under the goldens' keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch

import cellweave as cw
from helpers import nest

Tensors = dict[str, torch.Tensor]


@dataclass
class Outcome:
    """What one run gave.

    Attributes:
        tensors: Outputs and final state leaves by golden key.
        structure: Picture of the final state, or one per direction.
    """

    tensors: Tensors
    structure: Any


@dataclass
class Setting:
    """What one run gets.

    Attributes:
        cells: By direction, "" where there is one; a list per direction for stacks.
        init: Leaves of the initial state by direction; empty: zero state through `dtype`.
    """

    case: dict[str, Any]
    cells: dict[str, Any]
    x: torch.Tensor
    init: dict[str, list[torch.Tensor]]
    lengths: torch.Tensor | None
    dtype: torch.dtype

    def state(self, direction: str = "") -> Any:
        """The initial state in the cell's structure, or None."""
        leaves, cell = self.init[direction], self.cells[direction]
        sizes = tuple(c.state_size for c in cell) if isinstance(cell, list) else cell.state_size
        return nest.pack(sizes, leaves) if leaves else None

    @property
    def kwargs(self) -> dict[str, Any]:
        """The driver's own keywords."""
        return dict(self.case.get("driver_kwargs", {}))

    def start(self, direction: str = "") -> dict[str, Any]:
        """`initial_state` when the golden has one, else `dtype`."""
        state = self.state(direction)
        return {"dtype": self.dtype} if state is None else {"initial_state": state}


def _leaves(stem: str, state: Any) -> Tensors:
    return {f"{stem}{k}": leaf for k, leaf in enumerate(nest.flatten(state))}


def _one(out: torch.Tensor, state: Any) -> Outcome:
    return Outcome({"out": out, **_leaves("final", state)}, nest.picture(state))


def _two(outputs: Tensors, fw: Any, bw: Any) -> Outcome:
    tensors = {**outputs, **_leaves("final_fw", fw), **_leaves("final_bw", bw)}
    return Outcome(tensors, {"fw": nest.picture(fw), "bw": nest.picture(bw)})


def _cell(s: Setting) -> Outcome:
    state = s.state()
    if state is None:
        state = s.cells[""].zero_state(s.case["B"], s.dtype)
    return _one(*s.cells[""](s.x, state, **s.kwargs))


def _dynamic(s: Setting) -> Outcome:
    return _one(*cw.dynamic_rnn(s.cells[""], s.x, sequence_length=s.lengths, **s.start(), **s.kwargs))


def _static(s: Setting) -> Outcome:
    outputs, state = cw.static_rnn(s.cells[""], list(s.x), sequence_length=s.lengths, **s.start(), **s.kwargs)
    assert isinstance(outputs, list) and len(outputs) == s.case["T"]
    return _one(torch.stack(outputs), state)


def _raw(s: Setting) -> Outcome:
    cell, lengths = s.cells[""], s.lengths
    if lengths is None:
        lengths = torch.full((s.case["B"],), s.case["T"], dtype=torch.int32)
    state = s.state()
    if state is None:
        state = cell.zero_state(s.case["B"], s.dtype)

    def loop_fn(time: Any, output: Any, cell_state: Any, loop_state: Any) -> Any:
        step = int(time)
        finished = lengths <= step
        done = bool(finished.all())
        next_input = torch.zeros_like(s.x[0]) if done else s.x[step]
        return finished, next_input, state if output is None else cell_state, output, None

    emitted, final, _ = cw.raw_rnn(cell, loop_fn, **s.kwargs)
    return _one(emitted.stack(), final)


def _directions(s: Setting) -> dict[str, Any]:
    starts = {f"initial_state_{d}": s.state(d) for d in ("fw", "bw")}
    given = {key: value for key, value in starts.items() if value is not None}
    return given if len(given) == 2 else {**given, "dtype": s.dtype}


def _bidirectional(s: Setting) -> Outcome:
    (out_fw, out_bw), (fw, bw) = cw.bidirectional_dynamic_rnn(
        s.cells["fw"], s.cells["bw"], s.x, sequence_length=s.lengths, **_directions(s), **s.kwargs
    )
    return _two({"out_fw": out_fw, "out_bw": out_bw}, fw, bw)


def _static_bidirectional(s: Setting) -> Outcome:
    outputs, fw, bw = cw.static_bidirectional_rnn(
        s.cells["fw"], s.cells["bw"], list(s.x), sequence_length=s.lengths, **_directions(s), **s.kwargs
    )
    return _two({"out": torch.stack(outputs)}, fw, bw)


def _stack_bidirectional(s: Setting) -> Outcome:
    starts = {f"initial_states_{d}": s.state(d) for d in ("fw", "bw")}
    given = {key: list(value) for key, value in starts.items() if value is not None}
    out, fw, bw = cw.stack_bidirectional_dynamic_rnn(
        s.cells["fw"], s.cells["bw"], s.x, sequence_length=s.lengths, dtype=s.dtype, **given, **s.kwargs
    )
    return _two({"out": out}, fw, bw)


def _fused(s: Setting) -> Outcome:
    """A layer over a whole time-major sequence in one call."""
    leaves = s.init[""]
    start: dict[str, Any] = {"initial_state": tuple(leaves)} if leaves else {"dtype": s.dtype}
    return _one(*s.cells[""](s.x, sequence_length=s.lengths, **start, **s.kwargs))


#: Driver, its directions and the case keys that hold the cells.
DRIVERS: dict[str, tuple[Callable[[Setting], Outcome], dict[str, str]]] = {
    "cell": (_cell, {"": "cell"}),
    "dynamic_rnn": (_dynamic, {"": "cell"}),
    "static_rnn": (_static, {"": "cell"}),
    "raw_rnn": (_raw, {"": "cell"}),
    "bidirectional_dynamic_rnn": (_bidirectional, {"fw": "cell_fw", "bw": "cell_bw"}),
    "static_bidirectional_rnn": (_static_bidirectional, {"fw": "cell_fw", "bw": "cell_bw"}),
    "stack_bidirectional_dynamic_rnn": (_stack_bidirectional, {"fw": "cells_fw", "bw": "cells_bw"}),
    "fused": (_fused, {"": "cell"}),
}

#: Keys of a case that change nothing: what the file is, or a remark.
REMARKS = frozenset(
    [
        "id",
        "symbol",
        "driver",
        "file",
        "variables",
        "arrays",
        "sha256",
        "bytes",
        "state_structure",
        "init",
        "init_scale",
        "note",
    ]
)
KNOWN = REMARKS | frozenset(["B", "T", "D", "dtype", "runs", "graph_seed", "seq_len", "driver_kwargs"])


def check_keys(case: dict[str, Any], known: frozenset[str]) -> None:
    """Fail when a case holds a key that nobody would act on."""
    unknown = sorted(case.keys() - known)
    if unknown:
        pytest.fail(f"the golden harness does not know {unknown} of a {case['driver']} case")
