"""cellweave.nn's modules row by row and step by step, in float64 torch operations written from the equations.

Knows nothing of cellweave: masks come from the NumPy Philox of the oracles, seeds from torch's generator in the order
that the documentation gives.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from oracles.layer import mask_values

STRIDE = 1 << 32
Rows = list[torch.Tensor]


def lstm(x: torch.Tensor, state: Rows, w: dict[str, torch.Tensor], module: Any) -> Rows:
    """h and c after a step."""
    h, c = state
    i, f, g, o = (x @ w["ih"].t() + h @ w["hh"].t() + w["bih"] + w["bhh"]).chunk(4)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    h = torch.sigmoid(o) * torch.tanh(c)
    return [w["hr"] @ h if module.proj_size else h, c]


def gru(x: torch.Tensor, state: Rows, w: dict[str, torch.Tensor], module: Any) -> Rows:
    """h after a step."""
    h = state[0]
    xr, xz, xn = (x @ w["ih"].t() + w["bih"]).chunk(3)
    wr, wz, wn = w["hh"].chunk(3)
    br, bz, bn = w["bhh"].chunk(3)
    r, z = torch.sigmoid(xr + wr @ h + br), torch.sigmoid(xz + wz @ h + bz)
    n = torch.tanh(xn + (r * (wn @ h + bn) if module.reset_after else wn @ (r * h) + bn))
    return [(1 - z) * n + z * h]


def rnn(x: torch.Tensor, state: Rows, w: dict[str, torch.Tensor], module: Any) -> Rows:
    """h after a step."""
    total = w["ih"] @ x + w["hh"] @ state[0] + w["bih"] + w["bhh"]
    return [torch.relu(total) if module.nonlinearity == "relu" else torch.tanh(total)]


CELLS = {"LSTM": lstm, "GRU": gru, "RNN_TANH": rnn, "RNN_RELU": rnn}


def weights_of(module: Any, place: str, dropout: float) -> dict[str, torch.Tensor]:
    """The weights of one layer and direction; the recurrent ones dropped."""
    width = module.weight_hh_l0.shape[0]
    zeros = torch.zeros(width, dtype=torch.float64)
    found = {"ih": getattr(module, f"weight_ih{place}"), "hh": getattr(module, f"weight_hh{place}")}
    if dropout:
        found["hh"] = F.dropout(found["hh"], dropout)
    for name in ("bih", "bhh"):
        found[name] = getattr(module, f"bias_{name[1:]}{place}") if module.bias else zeros
    if module.proj_size:
        found["hr"] = getattr(module, f"weight_hr{place}")
    return found


def masks_of(module: Any, seeds: list[int], steps: int, rows: int, depth: int) -> dict[str, torch.Tensor]:
    """What acts at each place, `[T, B, N]`, with the first seeds of the list, which are taken from it."""
    width = module.proj_size or module.hidden_size
    found = {name: torch.ones(steps, rows, n, dtype=torch.float64) for name, n in _widths(depth, width).items()}
    rates = (("input", module.input_dropout), ("output", module.output_dropout), ("h", module.state_dropout))
    for place, rate in rates if module.training else ():
        if rate:
            draws = 1 if module.variational else steps
            shape = (1 if not module.mask_per_row else rows, found[place].shape[2])
            stream = (seeds.pop(0) & (2**64 - 1), 0, 0)
            values = mask_values(draws, shape, "float64", 1.0 - rate, by_floor=False, stream=stream, stride=STRIDE)
            found[place] = found[place] * torch.from_numpy(values)
    return found


def _widths(depth: int, width: int) -> dict[str, int]:
    return {"input": depth, "output": width, "h": width}


def loop(
    module: Any,
    x: torch.Tensor,
    state: Rows,
    *,
    lengths: list[int] | None = None,
    resets: torch.Tensor | None = None,
    fresh: Rows | None = None,
) -> tuple[torch.Tensor, Rows]:
    """Outputs `[T, B, D * P]` and states `[L * D, B, size]`, for inputs `[T, B, I]`."""
    steps, rows, _ = x.shape
    ends = [steps] * rows if lengths is None else lengths
    directions = 2 if module.bidirectional else 1
    dropping = module.weight_dropout if module.training else 0.0
    places = [(n, d) for n in range(module.num_layers) for d in range(directions)]
    weights = {p: weights_of(module, f"_l{p[0]}" + ("_reverse" if p[1] else ""), dropping) for p in places}
    count = sum(bool(r) for r in (module.input_dropout, module.output_dropout, module.state_dropout))
    count *= len(places) if module.training else 0
    seeds = torch.randint(-(2**63), 2**63 - 1, (count,)).tolist() if count else []
    there = torch.tensor([[t < end for end in ends] for t in range(steps)])[:, :, None]
    last: list[Rows] = []
    for number in range(module.num_layers):
        sides = []
        for direction in range(directions):
            place = number * directions + direction
            masks = masks_of(module, seeds, steps, rows, x.shape[2])
            start = [leaf[place] for leaf in state]
            again = [torch.zeros_like(leaf) for leaf in start] if fresh is None else [leaf[place] for leaf in fresh]
            cell, w = CELLS[module.mode], weights[(number, direction)]
            out, end = _rows(cell, w, module, x, start, again, ends, resets, masks, bool(direction))
            sides.append(out)
            last.append(end)
        y = torch.cat(sides, dim=2)
        if module.residual and x.shape == y.shape:
            y = torch.where(there, x, torch.zeros((), dtype=x.dtype)) + y
        if module.training and module.dropout and number < module.num_layers - 1:
            y = F.dropout(y, module.dropout)
        x = y
    return x, [torch.stack([leaves[k] for leaves in last]) for k in range(len(state))]


def _rows(
    cell: Any, w: Any, module: Any, x: torch.Tensor, start: Rows, again: Rows, ends: list[int],
    resets: torch.Tensor | None, masks: dict[str, torch.Tensor], backwards: bool,
) -> tuple[torch.Tensor, Rows]:  # fmt: skip
    steps, rows, _ = x.shape
    width = masks["output"].shape[2]
    columns, finals = [], []
    for b in range(rows):
        state, outputs = [leaf[b] for leaf in start], {}
        for s in range(ends[b]):
            t = ends[b] - 1 - s if backwards else s
            border = t + 1 if backwards else t  # a piece starts at a reset; backwards it is entered at its end
            if resets is not None and border < ends[b] and resets[border, b]:
                state = [leaf[b] for leaf in again]
            new = cell(x[t, b] * masks["input"][s, b], state, w, module)
            outputs[t] = new[0] * masks["output"][s, b]
            state = [new[0] * masks["h"][s, b], *new[1:]]
        zeros = torch.zeros(width, dtype=torch.float64)
        columns.append(torch.stack([outputs.get(t, zeros) for t in range(steps)]))
        finals.append(state)
    return torch.stack(columns, dim=1), [torch.stack([leaves[k] for leaves in finals]) for k in range(len(start))]
